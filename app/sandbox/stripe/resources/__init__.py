"""What the sandbox has of Stripe's API, a module for each resource."""

from app.sandbox.stripe.objects import Object
from app.sandbox.stripe.operations import Operations
from app.sandbox.stripe.resources import customers, events, test_clocks, webhook_endpoints

V1: list[Operations[Object]] = [
    customers.operations,
    events.operations,
    test_clocks.operations,
    webhook_endpoints.operations,
]
