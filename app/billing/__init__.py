"""Plans, usage and what a customer may do."""
