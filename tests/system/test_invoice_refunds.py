"""What is given back of an invoice of Teams, or disputed (failures.md 32): entries that add up, whoever did it, and
whatever order it is heard of in."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from app.sandbox.stripe import StripeSandbox
from app.stripe import catalog
from app.stripe.client import client
from tests.system.money import Customer
from tests.system.scene import Mailbox, drain, findings, job, sql
from tests.system.test_plans import on_teams
from tests.system.test_reconcile import reconcile
from tests.system.test_stripe_webhooks import event, post


@pytest.fixture(autouse=True)
def price(stripe: StripeSandbox) -> str:
    return catalog.sync()["price"]


@pytest.fixture
def ada(web: FlaskClient, price: str) -> Customer:
    """On Teams, whose first invoice is paid."""
    return on_teams(web)


def intent(stripe: StripeSandbox) -> str:
    """The one that paid the invoice."""
    [payment] = stripe.objects("invoice_payment")
    found: str = payment["payment"]["payment_intent"]
    return found


def refund(stripe: StripeSandbox, cents: int) -> str:
    """In the dashboard."""
    return client().v1.refunds.create({"payment_intent": intent(stripe), "amount": cents}).id


def hear(web: FlaskClient, stripe: StripeSandbox, event_type: str, thing: str) -> None:
    """Stripe tells of the newest object of that kind."""
    assert post(web, event(event_type, stripe.objects(thing)[0])).status_code == 200
    drain()


def entries() -> list[tuple[str, int]]:
    return [(row.kind, row.amount_cents) for row in sql("SELECT kind, amount_cents FROM invoice_entries ORDER BY id")]


def shown(web: FlaskClient, of: Customer) -> dict[str, Any]:
    """The invoice as its customer sees it."""
    [found] = web.get("/api/v1/invoices", headers=of.headers).json
    return dict(found)


def mails(mailbox: Mailbox, subject: str) -> int:
    return sum(subject in mail.subject for mail in mailbox.mails())


def test_a_refund_of_an_invoice_is_an_entry_is_shown_and_is_told_once(
    web: FlaskClient, stripe: StripeSandbox, ada: Customer, mailbox: Mailbox
) -> None:
    refund(stripe, 10000)
    assert [row["rule"] for row in findings()] == ["stripe_invoices_agree"]
    hear(web, stripe, "refund.created", "refund")
    hear(web, stripe, "charge.refunded", "charge")
    assert entries() == [("refunded", -10000)]
    bill = shown(web, ada)
    assert (bill["amount_cents"], bill["paid_cents"], bill["refunded_cents"]) == (49900, 49900, 10000)
    assert mails(mailbox, "We have refunded $100.00") == 1
    refund(stripe, 39900)
    hear(web, stripe, "refund.created", "refund")
    assert entries() == [("refunded", -10000), ("refunded", -39900)]
    assert shown(web, ada)["refunded_cents"] == 49900
    assert findings() == []


def test_a_refund_that_the_bank_could_not_make_is_taken_back(
    web: FlaskClient, stripe: StripeSandbox, ada: Customer, mailbox: Mailbox
) -> None:
    made = refund(stripe, 10000)
    hear(web, stripe, "refund.created", "refund")
    stripe.fail_refund(made)
    hear(web, stripe, "refund.failed", "refund")
    assert mails(mailbox, "Our refund of $100.00 did not arrive") == 1
    assert entries() == [("refunded", -10000), ("refund_failed", 10000)]
    assert shown(web, ada)["refunded_cents"] == 0
    assert findings() == []


@pytest.mark.parametrize(("ends", "back"), [("won", [("dispute_reinstated", 49900)]), ("lost", [])])
def test_a_dispute_of_an_invoice_withdraws_and_gives_back_only_if_it_is_won(
    web: FlaskClient, stripe: StripeSandbox, ada: Customer, mailbox: Mailbox, ends: str, back: list[tuple[str, int]]
) -> None:
    dispute = stripe.dispute(stripe.objects("charge")[0]["id"])
    hear(web, stripe, "charge.dispute.created", "dispute")
    assert entries() == [("dispute_withdrawn", -49900)]
    assert mails(mailbox, "A payment of $499.00 is disputed") == 1
    stripe.close_dispute(dispute["id"], ends)
    hear(web, stripe, "charge.dispute.closed", "dispute")
    assert entries() == [("dispute_withdrawn", -49900), *back]
    assert sql("SELECT status, closed_at IS NOT NULL FROM disputes") == [(ends, True)]
    assert mails(mailbox, "disputed") == 1
    assert findings() == []


def test_a_refund_that_is_heard_of_before_the_invoice_is_kept_with_it(
    web: FlaskClient, stripe: StripeSandbox, ada: Customer
) -> None:
    sql("DELETE FROM invoices")
    refund(stripe, 500)
    hear(web, stripe, "refund.created", "refund")
    assert (shown(web, ada)["status"], shown(web, ada)["refunded_cents"]) == ("paid", 500)
    assert findings() == []


def test_a_refund_that_no_event_told_of_is_found_by_comparing(stripe: StripeSandbox, ada: Customer) -> None:
    refund(stripe, 500)
    stripe.dispute(stripe.objects("charge")[0]["id"])
    rules = {row["rule"]: row["repair"] for row in reconcile("--fix")}
    assert rules["refund_agrees"] == rules["dispute_agrees"] == "sync_invoice_payment"
    drain()
    assert sorted(entries()) == [("dispute_withdrawn", -49400), ("refunded", -500)]
    assert [row for row in reconcile() if row["rule"] != "event_arrived"] == []


def test_a_payment_of_our_customer_that_is_of_no_invoice_is_not_ours(
    web: FlaskClient, stripe: StripeSandbox, ada: Customer
) -> None:
    paid = client().v1.payment_intents.create(
        {
            "amount": 700,
            "currency": "usd",
            "customer": ada.stripe_id,
            "payment_method": "pm_card_visa",
            "confirm": True,
            "payment_method_types": ["card"],
        }
    )
    client().v1.refunds.create({"payment_intent": paid.id})
    hear(web, stripe, "refund.created", "refund")
    assert job("stripe_event")["result"]["ignored"] == "it is not ours"
    assert (entries(), findings()) == ([], [])
