"""What the sandbox has of Stripe's API, a module for each resource."""

from app.sandbox.stripe.objects import Object
from app.sandbox.stripe.operations import Operations
from app.sandbox.stripe.resources import (
    billing_portal,
    charges,
    checkout,
    customers,
    disputes,
    events,
    invoice_payments,
    invoiceitems,
    invoices,
    payment_intents,
    payment_methods,
    prices,
    products,
    refunds,
    setup_intents,
    subscriptions,
    test_clocks,
    webhook_endpoints,
)

V1: list[Operations[Object]] = [
    billing_portal.operations,
    charges.operations,
    checkout.operations,
    customers.operations,
    disputes.operations,
    events.operations,
    invoice_payments.operations,
    invoiceitems.operations,
    invoices.operations,
    payment_intents.operations,
    payment_methods.operations,
    prices.operations,
    products.operations,
    refunds.operations,
    setup_intents.operations,
    subscriptions.operations,
    test_clocks.operations,
    webhook_endpoints.operations,
]
