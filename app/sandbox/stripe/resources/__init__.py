"""What the sandbox has of Stripe's API, a module for each resource."""

from app.sandbox.stripe.objects import Object
from app.sandbox.stripe.operations import Operations
from app.sandbox.stripe.resources import (
    charges,
    customers,
    disputes,
    events,
    payment_intents,
    payment_methods,
    refunds,
    setup_intents,
    test_clocks,
    webhook_endpoints,
)

V1: list[Operations[Object]] = [
    charges.operations,
    customers.operations,
    disputes.operations,
    events.operations,
    payment_intents.operations,
    payment_methods.operations,
    refunds.operations,
    setup_intents.operations,
    test_clocks.operations,
    webhook_endpoints.operations,
]
