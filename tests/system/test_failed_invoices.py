"""Invoices of Teams that could not be charged: as a charge that failed, they are tried at once when a card arrives."""

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from app.sandbox.stripe import StripeSandbox
from app.stripe import catalog
from tests.system.money import Customer, deploy, status
from tests.system.scene import Mailbox, drain, drain_to_the_end, findings, sql, sweep, time_passes
from tests.system.test_payment_methods import add, outcome
from tests.system.test_plans import DAY, cancel, choose, invoices, on_teams, paid, plan, sync, work_with_billing_off

PAY = "POST /v1/invoices/{invoice}/pay"


@pytest.fixture
def price(stripe: StripeSandbox) -> str:
    return catalog.sync()["price"]


@pytest.fixture
def jane(web: FlaskClient, stripe: StripeSandbox, price: str) -> Customer:
    """Whose second month of Teams could not be charged."""
    made = on_teams(web)
    break_card(stripe)
    stripe.advance(30 * DAY + 40 * 3600)
    sync(made, "evt_failed")
    assert status(made).subscription_status == "past_due"
    return made


def break_card(stripe: StripeSandbox) -> None:
    stripe.change_card(stripe.objects("payment_method")[0]["id"], "chargeCustomerFail")


def open_invoices(of: Customer) -> list[tuple[str, int, int]]:
    return [bill for bill in invoices(of) if bill[0] == "open"]


def test_a_new_card_pays_it_at_once(web: FlaskClient, stripe: StripeSandbox, jane: Customer, mailbox: Mailbox) -> None:
    assert "it is charged at once" in mailbox.mails()[-1].text
    assert outcome(web, jane, add(web, jane, "pm_card_mastercard"))["state"] == "succeeded"
    drain()
    assert (open_invoices(jane), paid(stripe, jane)) == ([], 2 * 49900)
    assert (status(jane).subscription_status, status(jane).can_use_service) == ("active", True)
    assert findings() == []


@pytest.mark.parametrize("after", ["past_due", "unpaid"])
def test_a_new_card_pays_it_when_stripe_tries_no_more(
    web: FlaskClient, stripe: StripeSandbox, jane: Customer, after: str
) -> None:
    stripe.change_settings(after_last_retry=after)
    stripe.advance(25 * DAY)
    sync(jane, "evt_over")
    assert status(jane).subscription_status == after
    outcome(web, jane, add(web, jane, "pm_card_mastercard"))
    drain()
    assert (open_invoices(jane), paid(stripe, jane)) == ([], 2 * 49900)
    assert (status(jane).subscription_status, status(jane).can_use_service) == ("active", True)


@pytest.mark.parametrize("lost", ["refuse", "lose"])
def test_it_is_paid_once_whatever_is_lost(web: FlaskClient, stripe: StripeSandbox, jane: Customer, lost: str) -> None:
    stripe.fault(lost, operation=PAY)
    add(web, jane, "pm_card_mastercard")
    drain()
    for _ in range(3):
        time_passes()
        drain()
    assert (open_invoices(jane), paid(stripe, jane)) == ([], 2 * 49900)
    assert sum(move["amount"] for move in stripe.objects("balance_transaction")) == 2 * 49900


def test_a_card_that_is_declined_as_well_is_tried_once(web: FlaskClient, stripe: StripeSandbox, jane: Customer) -> None:
    stripe.fault("lose", operation="GET /v1/subscriptions/{subscription_exposed_id}", count=2)
    add(web, jane, "pm_card_chargeCustomerFail")
    drain()
    for _ in range(4):
        time_passes()
        drain()
    assert sql("SELECT state FROM jobs WHERE name = 'pay_invoices'") == [("succeeded",)]
    assert len({request["key"] for request in stripe.requests(PAY)}) == 1
    assert (open_invoices(jane), status(jane).subscription_status) == ([("open", 49900, 0)], "past_due")


def test_with_billing_switched_off_it_waits_for_the_release(
    web: FlaskClient, stripe: StripeSandbox, jane: Customer
) -> None:
    add(web, jane, "pm_card_mastercard")
    work_with_billing_off()
    assert sql("SELECT state FROM jobs WHERE name = 'pay_invoices'") == [("held",)]
    assert paid(stripe, jane) == 49900
    sweep()
    drain()
    assert paid(stripe, jane) == 2 * 49900


def test_the_last_invoice_of_teams_is_paid_by_a_new_card(
    web: FlaskClient, stripe: StripeSandbox, price: str, configure: Callable[..., None]
) -> None:
    configure(TEAMS_INCLUDED_FIXES="1")
    jane = on_teams(web)
    for issue in (1, 2):
        deploy(jane, issue)
    drain()
    outcome(web, jane, cancel(web, jane, "?at_period_end=true"))
    break_card(stripe)
    stripe.advance(32 * DAY)
    sync(jane, "evt_ended")
    drain_to_the_end()
    stripe.advance(2 * 3600)
    sync(jane, "evt_tried")
    assert (plan(jane), open_invoices(jane)) == ("trial", [("open", 800, 0)])
    outcome(web, jane, add(web, jane, "pm_card_visa"))
    drain()
    assert (open_invoices(jane), paid(stripe, jane)) == ([], 49900 + 800)


def test_a_month_that_nobody_paid_is_not_credited_when_teams_is_cancelled(
    web: FlaskClient, stripe: StripeSandbox, jane: Customer
) -> None:
    took = paid(stripe, jane)
    assert outcome(web, jane, cancel(web, jane))["result"]["status"] == "canceled"
    [theirs] = [customer for customer in stripe.objects("customer") if customer["id"] == jane.stripe_id]
    assert theirs["balance"] == 0
    stripe.change_card(stripe.objects("payment_method")[0]["id"], "visa")
    assert outcome(web, jane, choose(web, jane, "teams"))["state"] == "succeeded"
    assert paid(stripe, jane) - took == 49900
