"""Payment methods that are no cards: our pages of Checkout offer none, and one that somebody made the default in the
dashboard stays what Stripe charges."""

import pytest
from flask.testing import FlaskClient

from app.contracts.webhooks import SyncCustomer
from app.db import transaction
from app.ledger.enqueue import enqueue
from app.sandbox.stripe import StripeSandbox
from app.stripe import catalog
from app.stripe.client import client
from tests.system.money import Customer
from tests.system.scene import drain, one
from tests.system.test_payment_methods import cards, default_in_stripe, open_page
from tests.system.test_plans import on_teams, with_card
from tests.system.test_reconcile import reconcile
from tests.system.test_stripe_webhooks import event, post
from tests.system.test_webhook_commands import dry_run


def link_by_default(of: Customer, subscription: str | None = None) -> str:
    """In the dashboard somebody makes Link what the customer's invoices are charged to."""
    made = client().v1.payment_methods.create({"type": "link", "billing_details": {"email": "ada@example.com"}}).id
    client().v1.payment_methods.attach(made, {"customer": of.stripe_id})
    client().v1.customers.update(of.stripe_id, {"invoice_settings": {"default_payment_method": made}})
    if subscription is not None:
        client().v1.subscriptions.update(subscription, {"default_payment_method": made})
    return made


def sync(of: Customer, occasion: str) -> None:
    with transaction() as db:
        enqueue(db, SyncCustomer(customer_id=of.id, occasion=occasion))
    drain()
    assert one("SELECT state FROM jobs WHERE name = 'sync_customer' ORDER BY id DESC LIMIT 1") == "succeeded"


def test_a_default_that_is_no_card_is_left_as_it_is(web: FlaskClient, stripe: StripeSandbox) -> None:
    catalog.sync()
    ada = on_teams(web)
    [subscription] = stripe.objects("subscription")
    link = link_by_default(ada, subscription["id"])
    for occasion in ("event:evt_1", "event:evt_2"):
        sync(ada, occasion)
        assert default_in_stripe(ada) == link
        assert stripe.objects("subscription")[0]["default_payment_method"] == link
        assert cards(web, ada) == [("visa", True)], "a fix of payg is charged to a card still"


def test_a_default_that_is_no_card_is_left_though_the_last_card_goes(web: FlaskClient) -> None:
    ada = with_card(web)
    link = link_by_default(ada)
    client().v1.payment_methods.detach(one("SELECT id FROM payment_methods"))
    sync(ada, "event:evt_1")
    assert default_in_stripe(ada) == link
    assert cards(web, ada) == []
    assert one("SELECT default_payment_method FROM customers") is None


def test_a_default_that_is_no_card_is_no_drift_once_it_was_seen(web: FlaskClient) -> None:
    ada = with_card(web)
    link_by_default(ada)
    rules = [row["rule"] for row in reconcile("--fix")]
    assert rules.count("default_payment_method") == 1
    drain()
    assert "default_payment_method" not in [row["rule"] for row in reconcile()]
    card = one("SELECT default_payment_method FROM customers")
    client().v1.customers.update(ada.stripe_id, {"invoice_settings": {"default_payment_method": card}})
    sync(ada, "event:evt_1")
    assert one("SELECT default_elsewhere FROM customers") is None


def test_a_dry_run_leaves_a_default_that_is_no_card(web: FlaskClient) -> None:
    ada = with_card(web)
    link_by_default(ada)
    sent = event("customer.updated", {"id": ada.stripe_id, "object": "customer"})
    assert post(web, sent).status_code == 200
    drain()
    assert dry_run(sent["id"]) == []


def test_where_it_is_taken_away_the_card_is_the_default_again(web: FlaskClient) -> None:
    ada = with_card(web)
    client().v1.payment_methods.detach(link_by_default(ada))
    sync(ada, "event:evt_1")
    assert cards(web, ada) == [("visa", True)]
    assert default_in_stripe(ada) == one("SELECT id FROM payment_methods")


@pytest.mark.parametrize("purpose", ["payment_method", "teams"])
def test_a_page_of_checkout_offers_cards_alone(web: FlaskClient, stripe: StripeSandbox, purpose: str) -> None:
    catalog.sync()
    open_page(web, with_card(web), purpose)
    [asked] = stripe.requests("POST /v1/checkout/sessions")
    assert asked["params"]["payment_method_types"] == {"0": "card"}
