"""Plans: chosen, subscribed to, renewed, ended (failures.md 28, 31; stripe.md, "Teams")."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from flask.testing import FlaskClient
from typer.testing import CliRunner
from werkzeug.test import TestResponse

from app.billing import plans
from app.contracts.billing import InvoiceOverage, StartTeams, SyncSubscription
from app.db import get_engine, transaction
from app.ledger.enqueue import enqueue
from app.ledger.executor import Executor
from app.ledger.gates import BILLING
from app.ledger.relay import Relay
from app.ops.cli import cli
from app.sandbox.stripe import StripeSandbox
from app.stripe import catalog
from app.stripe.client import client
from tests.system.money import Customer, customer, deploy, status
from tests.system.scene import (
    Mailbox,
    count,
    drain,
    drain_to_the_end,
    during,
    findings,
    one,
    sign_up,
    sql,
    sweep,
    time_passes,
)
from tests.system.test_payment_methods import add, give_card_at, open_page, outcome

DAY = 24 * 3600
SUBSCRIBE = "POST /v1/subscriptions"
CANCEL = "DELETE /v1/subscriptions/{subscription_exposed_id}"


@pytest.fixture
def price(stripe: StripeSandbox) -> str:
    return catalog.sync()["price"]


def choose(web: FlaskClient, of: Customer, plan: str, query: str = "", key: str | None = None) -> TestResponse:
    headers = of.headers | ({} if key is None else {"Idempotency-Key": key})
    return web.post(f"/api/v1/subscription{query}", json={"plan": plan}, headers=headers)


def cancel(web: FlaskClient, of: Customer, query: str = "") -> TestResponse:
    return web.delete(f"/api/v1/subscription{query}", headers=of.headers)


def with_card(web: FlaskClient, card: str = "pm_card_visa") -> Customer:
    made = customer()
    assert outcome(web, made, add(web, made, card))["state"] == "succeeded"
    return made


def on_teams(web: FlaskClient) -> Customer:
    made = with_card(web)
    done = outcome(web, made, choose(web, made, "teams"))
    assert done["state"] == "succeeded", done
    return made


def paid(stripe: StripeSandbox, of: Customer) -> int:
    """Cents that all invoices have taken."""
    return sum(i["amount_paid"] for i in stripe.objects("invoice") if i["customer"] == of.stripe_id)


def plan(of: Customer) -> str:
    return str(one("SELECT plan FROM customers WHERE id = %(id)s", id=of.id))


def sync(of: Customer, occasion: str) -> None:
    """A webhook says that something about the subscription has changed."""
    found = one("SELECT id FROM subscriptions WHERE customer_id = %(id)s ORDER BY created_at DESC LIMIT 1", id=of.id)
    with transaction() as db:
        enqueue(db, SyncSubscription(customer_id=of.id, subscription_id=found, occasion=occasion))
    drain()


def invoices(of: Customer) -> list[tuple[str, int, int]]:
    """Status, total and what was paid of the invoices that are kept, the largest first."""
    return [
        tuple(row)
        for row in sql(
            "SELECT status, total_cents, paid_cents FROM invoices WHERE customer_id = %(id)s ORDER BY total_cents DESC",
            id=of.id,
        )
    ]


# The catalogue


def test_sync_catalog_makes_what_is_sold_once(stripe: StripeSandbox) -> None:
    first, second = catalog.sync(), catalog.sync()
    assert (first["done"], second["done"]) == ("created", "unchanged")
    [made] = stripe.objects("price")
    assert (made["lookup_key"], made["unit_amount"], made["currency"]) == ("teams_monthly", 49900, "usd")
    assert made["recurring"]["interval"] == "month"
    assert first["price"] == second["price"] == made["id"]


def test_the_command_says_what_to_do_where_the_amount_differs(
    stripe: StripeSandbox, price: str, configure: Callable[..., None]
) -> None:
    configure(TEAMS_MONTH_CENTS="59900")
    refused = CliRunner().invoke(cli, ["stripe", "sync-catalog"])
    assert refused.exit_code == 1
    assert "49900" in refused.output
    assert "--transfer" in refused.output
    assert len(stripe.objects("price")) == 1
    done = CliRunner().invoke(cli, ["stripe", "sync-catalog", "--transfer", "--json"])
    assert done.exit_code == 0
    assert '"transferred"' in done.output
    assert {p["unit_amount"]: p["lookup_key"] for p in stripe.objects("price")} == {49900: None, 59900: "teams_monthly"}


# Payg


def test_payg_begins_by_the_customers_choice_and_ends_by_it(web: FlaskClient, mailbox: Mailbox) -> None:
    jane = with_card(web)
    assert outcome(web, jane, choose(web, jane, "payg"))["result"] == {"plan": "payg"}
    assert (plan(jane), status(jane).can_use_service) == ("payg", True)
    assert choose(web, jane, "payg").status_code == 409
    assert outcome(web, jane, cancel(web, jane))["result"] == {"plan": "trial"}
    assert plan(jane) == "trial"
    assert cancel(web, jane).status_code == 409
    assert [row.plan for row in sql("SELECT plan FROM plan_changes ORDER BY id")] == ["payg", "trial"]
    assert len(mailbox.mails()) == 2


def test_a_plan_that_costs_needs_a_card(web: FlaskClient) -> None:
    jane = customer()
    for wanted in ("payg", "teams"):
        answer = choose(web, jane, wanted)
        assert (answer.status_code, "payment method" in answer.json["detail"]) == (409, True)
    assert count("jobs") == 0


# Teams begins


def test_teams_is_charged_and_begins_at_once(
    web: FlaskClient, stripe: StripeSandbox, price: str, mailbox: Mailbox
) -> None:
    jane = with_card(web)
    done = outcome(web, jane, choose(web, jane, "teams"))
    assert (done["state"], done["result"]["status"]) == ("succeeded", "active")
    [theirs] = stripe.objects("subscription")
    assert theirs["metadata"]["customer_id"] == str(jane.id)
    assert paid(stripe, jane) == 49900
    seen = status(jane)
    assert (seen.plan, seen.subscription_status, seen.can_use_service, seen.included) == ("teams", "active", True, 60)
    assert invoices(jane) == [("paid", 49900, 49900)]
    item = theirs["items"]["data"][0]
    [period] = sql("SELECT starts_at, ends_at FROM billing_periods")
    assert [int(t.timestamp()) for t in period] == [item["current_period_start"], item["current_period_end"]]
    assert one("SELECT effective_at FROM plan_changes WHERE plan = 'teams'").timestamp() == theirs["start_date"]
    assert "teams" in mailbox.mail().subject.lower()


def test_the_same_request_for_teams_is_one_subscription(web: FlaskClient, stripe: StripeSandbox, price: str) -> None:
    jane = with_card(web)
    first = choose(web, jane, "teams", key="once")
    outcome(web, jane, choose(web, jane, "teams"))  # another, before the first was done
    assert choose(web, jane, "teams", key="once").json == first.json
    assert choose(web, jane, "teams").status_code == 409
    assert len(stripe.objects("subscription")) == 1
    assert paid(stripe, jane) == 49900
    assert one("SELECT count(*) FROM plan_changes WHERE plan = 'teams'") == 1


def test_a_lost_answer_makes_no_second_subscription(web: FlaskClient, stripe: StripeSandbox, price: str) -> None:
    jane = with_card(web)
    stripe.fault("lose", operation=SUBSCRIBE)
    accepted = choose(web, jane, "teams")
    drain()
    sql("UPDATE external_calls SET first_sent_at = first_sent_at - interval '25 hours'")
    stripe.advance(25 * 3600)
    time_passes()
    assert outcome(web, jane, accepted)["state"] == "succeeded"
    assert len(stripe.objects("subscription")) == 1
    assert len(stripe.requests(SUBSCRIBE)) == 1


@pytest.mark.parametrize("card", ["pm_card_chargeCustomerFail", "pm_card_authenticationRequired"])
def test_a_declined_first_month_leaves_nothing(web: FlaskClient, stripe: StripeSandbox, price: str, card: str) -> None:
    jane = with_card(web, card)
    done = outcome(web, jane, choose(web, jane, "teams"))
    assert (done["state"], done["error"]["kind"]) == ("dead", "permanent")
    assert "declined" in done["error"]["message"]
    assert stripe.objects("subscription") == []
    assert (plan(jane), paid(stripe, jane), count("subscriptions")) == ("trial", 0, 0)
    outcome(web, jane, add(web, jane, "pm_card_visa"))
    assert outcome(web, jane, choose(web, jane, "teams"))["state"] == "succeeded"


def test_a_first_month_that_the_bank_wants_confirmed_is_confirmed_on_a_page(
    web: FlaskClient, stripe: StripeSandbox, price: str, mailbox: Mailbox
) -> None:
    jane = with_card(web, "pm_card_authenticationRequired")
    accepted = choose(web, jane, "teams")
    stripe.fault("lose", operation="POST /v1/checkout/sessions")
    drain()
    time_passes()
    assert outcome(web, jane, accepted)["state"] == "dead"
    mail = mailbox.mail()
    assert mail.subject == "Please confirm your payment for Teams"
    [page] = [page for page in stripe.objects("checkout.session") if page["status"] == "open"]
    assert page["url"] in mail.text
    web.get(give_card_at(page["url"], "authenticationRequired"))
    drain()
    assert (plan(jane), paid(stripe, jane)) == ("teams", 49900)


def test_teams_that_was_wanted_at_signup_begins_with_the_first_card(
    web: FlaskClient, mailbox: Mailbox, price: str
) -> None:
    sign_up(web, plan="teams")
    drain()
    jane = Customer(*sql("SELECT id, stripe_customer_id FROM customers")[0], mailbox.mail().key)
    outcome(web, jane, add(web, jane, "pm_card_visa"))
    assert plan(jane) == "teams"


def wrong_amount(price: str) -> None:
    product = client().v1.prices.retrieve(price).product
    client().v1.prices.create(
        {
            "product": str(product),
            "currency": "usd",
            "unit_amount": 1,
            "recurring": {"interval": "month"},
            "lookup_key": "teams_monthly",
            "transfer_lookup_key": True,
        }
    )


def archived_price(price: str) -> None:
    client().v1.prices.update(price, {"active": False})


def archived_product(price: str) -> None:
    client().v1.products.update(str(client().v1.prices.retrieve(price).product), {"active": False})


def no_lookup_key(price: str) -> None:
    client().v1.prices.update(price, {"lookup_key": ""})


@pytest.mark.parametrize("spoil", [wrong_amount, archived_price, archived_product, no_lookup_key])
def test_a_price_that_somebody_has_changed_charges_nobody(
    web: FlaskClient, stripe: StripeSandbox, price: str, spoil: Callable[[str], None]
) -> None:
    jane = with_card(web)
    spoil(price)
    done = outcome(web, jane, choose(web, jane, "teams"))
    assert (done["state"], "teams_monthly" in done["error"]["message"]) == ("dead", True)
    page = outcome(web, jane, web.post("/api/v1/checkout", json={"purpose": "teams"}, headers=jane.headers))
    assert page["state"] == "dead"
    assert (stripe.requests(SUBSCRIBE), stripe.objects("checkout.session")) == ([], [])


def test_teams_can_be_had_at_checkout(web: FlaskClient, stripe: StripeSandbox, price: str) -> None:
    jane = customer()
    assert web.get(give_card_at(open_page(web, jane, "teams")["url"], "visa")).status_code == 200
    drain()
    seen = status(jane)
    assert (seen.plan, seen.subscription_status, seen.can_use_service) == ("teams", "active", True)
    assert paid(stripe, jane) == 49900
    assert web.get("/api/v1/payment-methods", headers=jane.headers).json["payment_methods"][0]["default"]
    assert choose(web, jane, "teams").status_code == 409


def test_a_page_left_open_cannot_be_used_to_pay_teams_twice(
    web: FlaskClient, stripe: StripeSandbox, price: str
) -> None:
    jane = with_card(web)
    open_page(web, jane, "teams")
    outcome(web, jane, choose(web, jane, "teams"))
    assert [page["status"] for page in stripe.objects("checkout.session")] == ["expired"]


def test_a_page_completed_while_teams_is_asked_for_is_the_one_that_is_paid(
    web: FlaskClient, stripe: StripeSandbox, price: str
) -> None:
    jane = with_card(web)
    page = open_page(web, jane, "teams")["url"]
    accepted = choose(web, jane, "teams")
    close = "POST /v1/checkout/sessions/{session}/expire"
    during(stripe, close, drain, lambda: give_card_at(page, "mastercard"))
    time_passes()
    assert outcome(web, jane, accepted)["state"] == "succeeded"
    assert (len(stripe.objects("subscription")), paid(stripe, jane)) == (1, 49900)
    assert plan(jane) == "teams"


def test_with_billing_switched_off_teams_is_held_and_no_page_is_opened(
    web: FlaskClient, stripe: StripeSandbox, price: str
) -> None:
    jane = with_card(web)
    accepted = web.post("/api/v1/checkout", json={"purpose": "teams"}, headers=jane.headers)
    choose(web, jane, "teams")
    work_with_billing_off()
    assert sql("SELECT name, state FROM jobs WHERE name IN ('open_checkout', 'start_teams') ORDER BY name") == [
        ("open_checkout", "held"),
        ("start_teams", "held"),
    ]
    assert stripe.objects("checkout.session") == []
    sql("UPDATE jobs SET created_at = created_at - interval '8 days' WHERE name = 'open_checkout'")
    sql("DELETE FROM jobs WHERE name = 'start_teams'")
    sweep()
    assert outcome(web, jane, accepted)["result"]["url"]


def work_with_billing_off() -> None:
    """Be a worker and a relay, where the kill switch is off."""
    executor = Executor([BILLING])
    executor.start()
    executor.drain("billing")
    executor.stop()
    with get_engine().connect() as db:
        Relay([BILLING]).sweep(db)


@pytest.mark.parametrize(("then", "plan_after"), [("trial", "trial"), ("payg", "payg")])
def test_teams_that_is_held_can_be_taken_back(
    web: FlaskClient, stripe: StripeSandbox, price: str, then: str, plan_after: str
) -> None:
    jane = with_card(web)
    held = choose(web, jane, "teams")
    work_with_billing_off()
    assert one("SELECT state FROM jobs WHERE name = 'start_teams'") == "held"
    withdrawn = cancel(web, jane) if then == "trial" else choose(web, jane, then)
    assert withdrawn.status_code == 202
    work_with_billing_off()
    assert web.get(withdrawn.json["status_url"], headers=jane.headers).json["state"] == "succeeded"
    sweep()
    assert outcome(web, jane, held)["state"] == "succeeded"
    assert (plan(jane), paid(stripe, jane), stripe.objects("subscription")) == (plan_after, 0, [])
    assert (cancel(web, jane) if then == "trial" else choose(web, jane, then)).status_code == 409


def test_teams_that_was_taken_back_and_asked_for_again_begins_once(
    web: FlaskClient, stripe: StripeSandbox, price: str
) -> None:
    jane = with_card(web)
    choose(web, jane, "teams")
    assert (cancel(web, jane).status_code, cancel(web, jane).status_code) == (202, 409)
    choose(web, jane, "teams")
    drain()
    assert (plan(jane), paid(stripe, jane)) == ("teams", 49900)


def test_teams_that_was_wanted_at_signup_and_taken_back_begins_with_no_card(
    web: FlaskClient, stripe: StripeSandbox, price: str
) -> None:
    jane = customer()
    sql("UPDATE customers SET wanted_plan = 'teams'")
    add(web, jane, "pm_card_visa")
    work_with_billing_off()
    assert cancel(web, jane).status_code == 202
    drain()
    outcome(web, jane, add(web, jane, "pm_card_mastercard"))
    assert (plan(jane), stripe.objects("subscription")) == ("trial", [])


@pytest.mark.parametrize("mishap", ["lose", "refuse"])
def test_teams_that_is_taken_back_while_stripe_is_asked_for_it_does_not_go_on(
    web: FlaskClient, stripe: StripeSandbox, price: str, mishap: str
) -> None:
    """Whether Stripe had made the subscription when its answer was lost, or never heard of it."""
    jane = with_card(web)
    stripe.fault(mishap, operation=SUBSCRIBE)
    accepted = choose(web, jane, "teams")
    drain()
    made = len(stripe.objects("subscription"))
    assert (one("SELECT state FROM jobs WHERE name = 'start_teams'"), made) == ("queued", int(mishap == "lose"))
    assert cancel(web, jane).status_code == 202
    drain_to_the_end()
    assert outcome(web, jane, accepted)["state"] == "succeeded"
    assert len(stripe.objects("subscription")) == made
    assert [s["status"] for s in stripe.objects("subscription")] == ["canceled"] * made
    assert plan(jane) == "trial"


def test_teams_that_is_taken_back_while_it_begins_ends_again(
    web: FlaskClient, stripe: StripeSandbox, price: str
) -> None:
    jane = with_card(web)
    choose(web, jane, "teams")
    during(stripe, SUBSCRIBE, drain, lambda: choose(web, jane, "payg"))
    time_passes()
    drain()
    assert [s["status"] for s in stripe.objects("subscription")] == ["canceled"]
    assert plan(jane) == "payg"
    assert sql("SELECT name, error_message FROM jobs WHERE state = 'dead'") == []


# Teams goes on


def test_a_renewal_brings_the_next_period_and_its_invoice(web: FlaskClient, stripe: StripeSandbox, price: str) -> None:
    jane = on_teams(web)
    time_passes()
    drain()  # too early: Stripe has not renewed it
    assert one("SELECT count(*) FROM billing_periods") == 1
    stripe.advance(32 * DAY)
    time_passes()
    drain()
    periods = sql("SELECT starts_at, ends_at FROM billing_periods ORDER BY starts_at")
    assert len(periods) == 2
    assert periods[0].ends_at == periods[1].starts_at
    assert invoices(jane) == [("paid", 49900, 49900)] * 2
    ahead = sql("SELECT run_at FROM jobs WHERE name = 'sync_subscription' AND state = 'queued' ORDER BY run_at")
    assert len(ahead) >= 2
    assert ahead[0].run_at > periods[1].ends_at


def test_a_renewal_that_fails_is_past_due_until_it_is_paid(
    web: FlaskClient, stripe: StripeSandbox, price: str, mailbox: Mailbox
) -> None:
    jane = on_teams(web)
    mailbox.clear()
    stripe.change_card(stripe.objects("payment_method")[0]["id"], "chargeCustomerFail")
    stripe.advance(32 * DAY)
    sync(jane, "evt_1")
    sync(jane, "evt_2")
    assert status(jane).subscription_status == "past_due"
    since = one("SELECT past_due_since FROM subscriptions")
    assert since is not None
    assert (
        one(
            "SELECT payload -> 'values' ->> 'amount_cents' FROM jobs WHERE payload ->> 'kind' = 'subscription_past_due'"
        )
        == "49900"
    )
    assert len(mailbox.mails()) == 1
    outcome(web, jane, add(web, jane, "pm_card_mastercard"))
    [theirs] = stripe.objects("subscription")
    new = web.get("/api/v1/payment-methods", headers=jane.headers).json["payment_methods"][0]
    assert (theirs["default_payment_method"], new["brand"]) == (new["id"], "mastercard")
    stripe.advance(10 * DAY)
    sync(jane, "evt_3")
    assert status(jane).subscription_status == "active"
    assert one("SELECT past_due_since FROM subscriptions") is None


# Teams ends


def test_at_the_periods_end_the_plan_after_it_begins(
    web: FlaskClient, stripe: StripeSandbox, price: str, mailbox: Mailbox
) -> None:
    jane = on_teams(web)
    mailbox.clear()
    done = outcome(web, jane, choose(web, jane, "payg", "?at_period_end=true"))
    assert (done["state"], done["result"]["cancel_at_period_end"]) == ("succeeded", True)
    assert (plan(jane), status(jane).can_use_service) == ("teams", True)
    assert "ends" in mailbox.mail().subject
    assert choose(web, jane, "payg", "?at_period_end=true").status_code == 409
    stripe.advance(32 * DAY)
    time_passes()
    drain()
    ended = one("SELECT ended_at FROM subscriptions")
    assert ended == one("SELECT ends_at FROM billing_periods")
    assert one("SELECT effective_at FROM plan_changes WHERE plan = 'payg'") == ended
    assert (plan(jane), status(jane).subscription_status, paid(stripe, jane)) == ("payg", "active", 49900)


def test_with_billing_switched_off_teams_still_ends_with_its_period(
    web: FlaskClient, stripe: StripeSandbox, price: str
) -> None:
    jane = on_teams(web)
    accepted = cancel(web, jane, "?at_period_end=true")
    work_with_billing_off()
    assert web.get(accepted.json["status_url"], headers=jane.headers).json["state"] == "succeeded"
    stripe.advance(32 * DAY)
    assert ([s["status"] for s in stripe.objects("subscription")], paid(stripe, jane)) == (["canceled"], 49900)


def test_an_end_that_the_dashboard_has_set_for_later_is_not_the_end_of_this_period(
    web: FlaskClient, stripe: StripeSandbox, price: str
) -> None:
    jane = on_teams(web)
    later = {"cancel_at": int(time.time()) + 150 * DAY}
    client().v1.subscriptions.update(stripe.objects("subscription")[0]["id"], later)
    sync(jane, "evt_later")
    assert one("SELECT cancel_at_period_end FROM subscriptions") is False
    done = outcome(web, jane, cancel(web, jane, "?at_period_end=true"))
    assert (done["state"], done["result"]["cancel_at_period_end"]) == ("succeeded", True)
    stripe.advance(32 * DAY)
    assert [s["status"] for s in stripe.objects("subscription")] == ["canceled"]


def test_a_cancellation_can_be_taken_back(web: FlaskClient, stripe: StripeSandbox, price: str) -> None:
    jane = on_teams(web)
    assert outcome(web, jane, cancel(web, jane, "?at_period_end=true"))["state"] == "succeeded"
    again = choose(web, jane, "teams", key="resume")
    assert outcome(web, jane, again)["result"]["cancel_at_period_end"] is False
    assert choose(web, jane, "teams", key="resume").json == again.json
    assert choose(web, jane, "teams").status_code == 409
    stripe.advance(32 * DAY)
    time_passes()
    drain()
    assert (plan(jane), paid(stripe, jane)) == ("teams", 2 * 49900)


def test_cancelled_at_once_the_rest_is_given_back_and_the_overage_billed(
    web: FlaskClient, stripe: StripeSandbox, price: str, configure: Callable[..., None]
) -> None:
    configure(TEAMS_INCLUDED_FIXES="1")
    jane = on_teams(web)
    for issue in range(3):
        deploy(jane, issue + 1)
    accepted = cancel(web, jane)  # before the fixes have been counted
    drain()
    time_passes()
    done = outcome(web, jane, accepted)
    assert (done["state"], done["result"]["status"]) == ("succeeded", "canceled")
    lines = [line["amount"] for i in stripe.objects("invoice") for line in i["lines"]["data"]]
    assert sorted(lines) == [-49900, 1600, 49900]
    assert (plan(jane), status(jane).subscription_status) == ("trial", "active")
    assert sum(total for _, total, _ in invoices(jane)) == 1600
    assert len(stripe.requests(CANCEL)) == 1


def test_teams_ends_although_fixes_go_on_arriving(
    web: FlaskClient, stripe: StripeSandbox, price: str, configure: Callable[..., None]
) -> None:
    configure(TEAMS_INCLUDED_FIXES="1")
    jane = on_teams(web)
    for issue in (1, 2, 3):
        deploy(jane, issue)
    drain()
    accepted = cancel(web, jane)
    sql("UPDATE jobs SET run_at = run_at + interval '1 minute' WHERE name = 'end_teams'")
    deploy(jane, 4)
    drain()  # it is counted, and Stripe not told of it yet
    sql("UPDATE jobs SET run_at = clock_timestamp() WHERE name = 'end_teams'")
    assert outcome(web, jane, accepted)["state"] == "succeeded"
    waited = "SELECT count(*) FROM job_attempts WHERE outcome = 'busy' AND job_id = %(id)s"
    assert one(waited, id=accepted.json["job_id"]) == 0
    time_passes()
    drain_to_the_end()
    assert [s["status"] for s in stripe.objects("subscription")] == ["canceled"]
    assert sum(item["amount"] for item in stripe.objects("invoiceitem") if item["amount"] > 0) == 3 * 800


def test_a_lost_answer_cancels_once(web: FlaskClient, stripe: StripeSandbox, price: str) -> None:
    jane = on_teams(web)
    stripe.fault("lose", operation=CANCEL)
    accepted = choose(web, jane, "payg")
    drain()
    time_passes()
    assert outcome(web, jane, accepted)["state"] == "succeeded"
    assert len(stripe.requests(CANCEL)) == 1
    assert plan(jane) == "payg"


def test_overage_that_no_invoice_took_is_billed_after_the_end(
    web: FlaskClient, stripe: StripeSandbox, price: str, configure: Callable[..., None]
) -> None:
    configure(TEAMS_INCLUDED_FIXES="1")
    jane = on_teams(web)
    for issue in range(3):
        deploy(jane, issue + 1)
    drain()
    [theirs] = stripe.objects("subscription")
    client().v1.subscriptions.cancel(theirs["id"])  # in the dashboard, without an invoice
    stripe.fault("lose", operation="POST /v1/invoices")
    sync(jane, "evt_deleted")
    time_passes()
    drain()
    stripe.advance(2 * 3600)
    sync(jane, "evt_later")
    assert invoices(jane) == [("paid", 49900, 49900), ("paid", 1600, 1600)]
    assert plan(jane) == "trial"
    assert [item["amount"] for item in stripe.objects("invoiceitem")] == [1600]


def test_overage_that_is_counted_after_the_last_invoice_gets_one_of_its_own(
    web: FlaskClient, stripe: StripeSandbox, price: str, configure: Callable[..., None]
) -> None:
    configure(TEAMS_INCLUDED_FIXES="1")
    jane = on_teams(web)
    accepted = datetime.now(UTC)
    for issue in range(3):
        deploy(jane, issue + 1)
    drain()
    stripe.advance(3600)
    client().v1.subscriptions.cancel(stripe.objects("subscription")[0]["id"])  # in the dashboard, without an invoice
    sync(jane, "evt_deleted")
    for issue in (4, 5):  # each was accepted in time, and its job requeued when it had been dead
        stripe.advance(2 * 3600)
        stripe.fault("lose", operation="POST /v1/invoices")
        deploy(jane, issue, at=accepted)
        drain()
        time_passes()
        drain()
    stripe.advance(2 * 3600)
    sync(jane, "evt_later")
    assert invoices(jane) == [("paid", 49900, 49900), ("paid", 1600, 1600), ("paid", 800, 800), ("paid", 800, 800)]
    assert findings() == []


def test_who_does_not_pay_the_last_overage_is_told_once(
    web: FlaskClient, stripe: StripeSandbox, price: str, mailbox: Mailbox, configure: Callable[..., None]
) -> None:
    configure(TEAMS_INCLUDED_FIXES="1")
    jane = on_teams(web)
    for issue in range(3):
        deploy(jane, issue + 1)
    drain()
    client().v1.subscriptions.cancel(stripe.objects("subscription")[0]["id"])  # in the dashboard, without an invoice
    sync(jane, "evt_deleted")
    stripe.change_card(stripe.objects("payment_method")[0]["id"], "chargeCustomerFail")
    stripe.advance(2 * 3600)
    sync(jane, "evt_later")
    sync(jane, "evt_later_still")
    [mail] = [mail for mail in mailbox.mails() if "could not be charged" in mail.subject]
    [unpaid] = [invoice for invoice in stripe.objects("invoice") if invoice["status"] == "open"]
    assert "$16.00" in mail.subject
    assert unpaid["hosted_invoice_url"] in mail.text


def test_overage_of_a_customer_deleted_in_stripe_is_done_with(
    web: FlaskClient, stripe: StripeSandbox, price: str
) -> None:
    jane = on_teams(web)
    [theirs] = stripe.objects("subscription")
    client().v1.customers.delete(jane.stripe_id)
    with transaction() as db:
        enqueue(db, InvoiceOverage(customer_id=jane.id, subscription_id=theirs["id"]))
    drain()
    assert one("SELECT state FROM jobs WHERE name = 'invoice_overage'") == "succeeded"


def test_after_teams_has_ended_it_can_be_had_again(web: FlaskClient, stripe: StripeSandbox, price: str) -> None:
    jane = on_teams(web)
    outcome(web, jane, cancel(web, jane))
    assert outcome(web, jane, choose(web, jane, "teams"))["state"] == "succeeded"
    assert (plan(jane), len(stripe.objects("subscription"))) == ("teams", 2)
    deploy(jane, 1)
    drain()
    assert status(jane).current_usage == 1


def test_a_fix_belongs_to_the_plan_of_its_moment(web: FlaskClient, stripe: StripeSandbox, price: str) -> None:
    jane = on_teams(web)
    deploy(jane, 1)
    drain()
    outcome(web, jane, choose(web, jane, "payg"))
    deploy(jane, 2)
    drain()
    rows: list[Any] = sql("SELECT plan, outcome FROM fixes ORDER BY id")
    assert [tuple(row) for row in rows] == [("teams", "included"), ("payg", "charge")]


def test_plans_chosen_within_a_second_follow_each_other(web: FlaskClient, stripe: StripeSandbox, price: str) -> None:
    jane = with_card(web)
    for wanted in ("payg", "teams", "payg", "teams"):
        assert outcome(web, jane, choose(web, jane, wanted))["state"] == "succeeded"
        with transaction() as db:
            assert plans.plan_at(db, jane.id, datetime.now(UTC)) == wanted


def test_a_subscription_of_another_customer_is_not_taken_over(
    web: FlaskClient, stripe: StripeSandbox, price: str
) -> None:
    jane, eve = on_teams(web), customer()
    theirs = stripe.objects("subscription")[0]["id"]
    with transaction() as db:
        enqueue(db, SyncSubscription(customer_id=eve.id, subscription_id=theirs, occasion="evt_1"))
    drain()
    assert one("SELECT state FROM jobs WHERE key LIKE '%%evt_1'") == "dead"
    assert (plan(eve), plan(jane)) == ("trial", "teams")


def test_teams_begins_again_although_its_end_in_stripe_was_not_heard_of(
    web: FlaskClient, stripe: StripeSandbox, price: str
) -> None:
    """As after an EndTeams whose worker died between Stripe's answer and its commit."""
    ada = on_teams(web)
    [first] = stripe.objects("subscription")
    client().v1.subscriptions.cancel(first["id"])
    with transaction() as db:
        enqueue(db, StartTeams(customer_id=ada.id, request="again"))
    drain()
    [running] = [one for one in stripe.objects("subscription") if one["status"] == "active"]
    assert status(ada).plan == "teams"
    assert [row.id for row in sql("SELECT id FROM subscriptions WHERE ended_at IS NULL")] == [running["id"]]


@pytest.mark.parametrize("first", ["subscription", "page"])
def test_teams_is_had_again_by_checkout_although_its_end_in_stripe_was_not_heard_of(
    web: FlaskClient, stripe: StripeSandbox, price: str, first: str
) -> None:
    ada = on_teams(web)
    [ended] = stripe.objects("subscription")
    client().v1.subscriptions.cancel(ended["id"])
    page = open_page(web, ada, "teams")
    back = give_card_at(page["url"], "mastercard")
    [running] = [one["id"] for one in stripe.objects("subscription") if one["status"] == "active"]
    if first == "page":
        web.get(back)
    else:
        with transaction() as db:
            enqueue(db, SyncSubscription(customer_id=ada.id, subscription_id=running, occasion="event:evt_b"))
    drain()
    with transaction() as db:
        enqueue(db, SyncSubscription(customer_id=ada.id, subscription_id=ended["id"], occasion="event:evt_a"))
    drain()
    assert sql("SELECT name, error_message FROM jobs WHERE state = 'dead'") == []
    assert (plan(ada), status(ada).subscription_status, status(ada).can_use_service) == ("teams", "active", True)
    assert [row.id for row in sql("SELECT id FROM subscriptions WHERE ended_at IS NULL")] == [running]
