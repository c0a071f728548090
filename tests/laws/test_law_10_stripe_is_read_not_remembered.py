"""Law 10. An event says that something changed, the object in Stripe says what: the one that came with the event is
never believed. Whole histories in any order are in tests/system/test_webhook_order.py."""

import json
import time
from itertools import count
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.contracts.billing import AttachPaymentMethod, StartTeams
from app.db import transaction
from app.intake import create_app
from app.ledger.enqueue import enqueue
from app.sandbox.stripe import StripeSandbox, signature_header
from app.stripe import catalog
from app.stripe.client import client
from tests.system.money import Customer, charge_states, customer, deploy, entries
from tests.system.scene import drain, one, sql

_numbers = count(1)


pytestmark = pytest.mark.usefixtures("stripe")


@pytest.fixture
def web() -> FlaskClient:
    return create_app().test_client()


def tell(web: FlaskClient, kind: str, thing: dict[str, Any]) -> None:
    """An event with that object arrives, and all that follows from it is done."""
    event = {
        "id": f"evt_{next(_numbers)}",
        "object": "event",
        "type": kind,
        "created": int(time.time()),
        "livemode": False,
        "data": {"object": thing},
    }
    body = json.dumps(event, default=str).encode()  # the SDK has decimals where Stripe has texts
    signature = signature_header(body, ("whsec_tallyhooktests",), int(time.time()))
    assert web.post("/webhooks/stripe", data=body, headers={"Stripe-Signature": signature}).status_code == 200
    drain()
    assert sql("SELECT name, state, error_message FROM jobs WHERE state IN ('dead', 'retrying')") == []


def charged(card: str) -> tuple[Customer, dict[str, Any]]:
    """A customer of payg with one fix, and its payment intent."""
    made = customer("payg", card)
    deploy(made, 1)
    drain()
    return made, client().v1.payment_intents.retrieve(one("SELECT payment_intent FROM charges")).to_dict()


def subscribed() -> tuple[Customer, dict[str, Any]]:
    """A customer on Teams, and their subscription."""
    catalog.sync()
    made = customer()
    with transaction() as db:
        enqueue(db, AttachPaymentMethod(customer_id=made.id, payment_method="pm_card_visa", request="card"))
        enqueue(db, StartTeams(customer_id=made.id, request="teams"))
    drain()
    return made, client().v1.subscriptions.retrieve(one("SELECT id FROM subscriptions")).to_dict()


def test_a_payment_that_an_event_calls_successful_is_one_only_if_stripe_has_it(web: FlaskClient) -> None:
    ada, intent = charged("pm_card_chargeCustomerFail")
    before = entries(ada)
    tell(web, "payment_intent.succeeded", intent | {"status": "succeeded", "amount_received": 1500})
    assert (charge_states(ada), entries(ada)) == (["declined"], before)


@pytest.mark.parametrize(
    ("kind", "claim"),
    [
        ("charge.refunded", {"object": "charge", "id": "ch_1", "amount_refunded": 1500, "refunded": True}),
        ("refund.created", {"object": "refund", "id": "re_1", "amount": 1500, "status": "succeeded"}),
        ("charge.dispute.closed", {"object": "dispute", "id": "dp_1", "amount": 1500, "status": "lost"}),
        ("payment_intent.canceled", {"object": "payment_intent", "status": "canceled", "amount_received": 0}),
    ],
)
def test_money_that_an_event_takes_away_is_gone_only_if_stripe_says_so(
    web: FlaskClient, kind: str, claim: dict[str, Any]
) -> None:
    ada, intent = charged("pm_card_visa")
    about = {"id": intent["id"], "metadata": intent["metadata"], "payment_intent": intent["id"]}
    tell(web, kind, about | claim)
    assert charge_states(ada) == ["succeeded"]
    assert entries(ada) == [("accepted", 0), ("succeeded", 1500)]
    assert sql("SELECT id FROM disputes") == []


def test_a_refund_is_what_stripe_has_not_what_the_event_says(web: FlaskClient) -> None:
    ada, intent = charged("pm_card_visa")
    made = client().v1.refunds.create({"payment_intent": intent["id"], "amount": 500}).to_dict()
    tell(web, "refund.created", made | {"amount": 1500, "status": "failed"})
    assert entries(ada)[2:] == [("refunded", -500)]


def test_a_subscription_that_an_event_ends_goes_on_while_stripe_has_it(web: FlaskClient) -> None:
    _, theirs = subscribed()
    ended = {"status": "canceled", "ended_at": theirs["created"], "cancel_at_period_end": True}
    tell(web, "customer.subscription.deleted", theirs | ended)
    assert sql("SELECT status, ended_at, cancel_at_period_end FROM subscriptions") == [("active", None, False)]
    assert one("SELECT plan FROM customers") == "teams"


def test_a_subscription_that_an_event_calls_active_has_ended_if_stripe_ended_it(web: FlaskClient) -> None:
    _, theirs = subscribed()
    client().v1.subscriptions.cancel(theirs["id"])
    tell(web, "customer.subscription.updated", theirs)
    assert one("SELECT status FROM subscriptions") == "canceled"
    assert one("SELECT plan FROM customers") == "trial"


def test_an_invoice_that_an_event_calls_unpaid_is_paid_if_stripe_says_so(web: FlaskClient) -> None:
    _, theirs = subscribed()
    invoice = client().v1.invoices.retrieve(theirs["latest_invoice"]).to_dict()
    tell(web, "invoice.payment_failed", invoice | {"status": "open", "amount_paid": 0})
    assert sql("SELECT status, paid_cents FROM invoices") == [("paid", 49900)]
    assert one("SELECT subscription_status FROM customers") == "active"


def test_a_customer_and_their_card_are_gone_only_if_they_are_in_stripe(web: FlaskClient) -> None:
    ada, _ = subscribed()
    card = one("SELECT default_payment_method FROM customers")
    tell(web, "customer.deleted", {"id": ada.stripe_id, "object": "customer", "deleted": True})
    tell(web, "payment_method.detached", {"id": card, "object": "payment_method", "customer": None})
    assert sql("SELECT stripe_deleted_at, default_payment_method FROM customers") == [(None, card)]
    assert sql("SELECT id FROM payment_methods WHERE detached_at IS NULL") == [(card,)]


def test_an_event_that_is_read_late_finds_what_is_so_by_then(web: FlaskClient, stripe: StripeSandbox) -> None:
    ada, intent = charged("pm_card_visa")
    dispute = stripe.dispute(intent["latest_charge"])
    stripe.close_dispute(dispute["id"], "won")
    tell(web, "charge.dispute.created", dispute)
    assert entries(ada)[2:] == [("dispute_withdrawn", -1500), ("dispute_reinstated", 1500)]
    assert one("SELECT status FROM disputes") == "won"
