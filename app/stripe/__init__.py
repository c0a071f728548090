"""The only place that talks to Stripe."""
