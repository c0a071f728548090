"""Events of Stripe's."""

from app.contracts.webhooks import StripeEvent
from app.sources.source import Source

SOURCE = Source(
    name="stripe",
    command=StripeEvent,
    type_at=("event", "type"),
    status=200,
    refusals=(400, 408, 413),
    summary="An event of Stripe's, signed",
    headers={"Stripe-Signature": "t=…,v1=…: by a secret of STRIPE_WEBHOOK_SECRETS, within 300 seconds."},
)
