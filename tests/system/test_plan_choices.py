"""Choices of a plan that had to wait, and those that meet (seed: "prevents race conditions"): what holds is the newest,
with the card and the price of now."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from flask.testing import FlaskClient

from app.db import transaction
from app.ledger import ops
from app.ledger.retention import prune_jobs
from app.sandbox.stripe import StripeSandbox
from app.stripe import catalog
from app.stripe.client import client
from tests.system.money import customer, deploy
from tests.system.scene import Mailbox, count, drain, drain_to_the_end, findings, sql, sweep, time_passes
from tests.system.test_payment_methods import add, outcome
from tests.system.test_plans import (
    CANCEL,
    DAY,
    SUBSCRIBE,
    cancel,
    choose,
    on_teams,
    paid,
    plan,
    sync,
    with_card,
    work_with_billing_off,
)


@pytest.fixture
def price(stripe: StripeSandbox) -> str:
    return catalog.sync()["price"]


def drain_to_the_end_of_today() -> None:
    """Whatever waits for a moment only, and not for the next period."""
    for _ in range(5):
        drain()
        sql(
            "UPDATE jobs SET run_at = clock_timestamp() WHERE state IN ('queued', 'retrying')"
            " AND run_at < clock_timestamp() + interval '1 hour'"
        )


@pytest.mark.parametrize("lost", ["refuse", "lose"])
def test_teams_is_charged_to_the_card_that_came_while_it_waited(
    web: FlaskClient, stripe: StripeSandbox, price: str, lost: str
) -> None:
    jane = with_card(web)
    stripe.fault(lost, operation=SUBSCRIBE)
    choose(web, jane, "teams")
    drain()
    new = outcome(web, jane, add(web, jane, "pm_card_mastercard"))["result"]["payment_method"]
    time_passes()
    drain()
    [subscription] = stripe.objects("subscription")
    assert (subscription["default_payment_method"], plan(jane)) == (new, "teams")


def test_teams_that_was_declined_begins_on_another_card(
    web: FlaskClient, stripe: StripeSandbox, price: str, mailbox: Mailbox
) -> None:
    jane = with_card(web, "pm_card_chargeCustomerFail")
    accepted = choose(web, jane, "teams")
    assert outcome(web, jane, accepted)["state"] == "dead"
    assert [mail.subject for mail in mailbox.mails()] == ["Teams has not begun: your bank declined the payment"]
    outcome(web, jane, add(web, jane, "pm_card_visa"))
    with transaction() as db:
        ops.requeue(db, UUID(accepted.json["job_id"]), actor="ada")
    assert outcome(web, jane, accepted)["state"] == "succeeded"
    assert (plan(jane), paid(stripe, jane), len(stripe.objects("subscription"))) == ("teams", 49900, 1)


def test_teams_that_was_wanted_at_signup_begins_with_the_same_card_once_there_is_money_on_it(
    web: FlaskClient, stripe: StripeSandbox, price: str, mailbox: Mailbox
) -> None:
    jane = customer()
    sql("UPDATE customers SET wanted_plan = 'teams'")
    card = outcome(web, jane, add(web, jane, "pm_card_chargeCustomerFail"))["result"]["payment_method"]
    assert plan(jane) == "trial"
    assert "Teams has not begun" in mailbox.mail().subject
    stripe.change_card(card, "visa")
    outcome(web, jane, add(web, jane, card))
    assert plan(jane) == "teams"


def test_a_price_that_changed_while_teams_waited_is_not_charged(
    web: FlaskClient, stripe: StripeSandbox, price: str, configure: Callable[..., None]
) -> None:
    jane = with_card(web)
    stripe.fault("refuse", operation=SUBSCRIBE)
    accepted = choose(web, jane, "teams")
    drain()
    configure(TEAMS_MONTH_CENTS="59900")
    catalog.sync(transfer=True)
    time_passes()
    done = outcome(web, jane, accepted)
    assert (done["state"], "price has changed" in done["error"]["message"]) == ("dead", True)
    assert paid(stripe, jane) == 0


# The newest holds


def test_a_choice_that_a_newer_one_took_the_place_of_has_no_error(web: FlaskClient, price: str) -> None:
    jane = with_card(web)
    older, newer = choose(web, jane, "payg"), choose(web, jane, "teams")
    drain_to_the_end_of_today()
    assert plan(jane) == "teams"
    for accepted in (older, newer):
        done = outcome(web, jane, accepted)
        assert (done["state"], done["error"]) == ("succeeded", None)


@pytest.mark.parametrize("query", ["", "?at_period_end=true"])
@pytest.mark.parametrize("by_stripe", [False, True])
def test_who_cancels_after_they_had_chosen_payg_is_charged_for_nothing(
    web: FlaskClient, stripe: StripeSandbox, price: str, query: str, by_stripe: bool
) -> None:
    jane = on_teams(web)
    first = choose(web, jane, "payg")
    if by_stripe:  # it was sent, and its answer lost
        stripe.fault("lose", operation=CANCEL)
        drain()
    second = cancel(web, jane, query)
    assert (first.status_code, second.status_code) == (202, 202)
    drain_to_the_end_of_today()
    stripe.advance(32 * DAY)
    sync(jane, "evt_later")
    assert [s["status"] for s in stripe.objects("subscription")] == ["canceled"]
    assert plan(jane) == "trial"
    deploy(jane, 1)
    drain()
    assert count("charges") == 0


def test_who_chooses_payg_after_they_had_cancelled_has_it(web: FlaskClient, stripe: StripeSandbox, price: str) -> None:
    jane = on_teams(web)
    cancel(web, jane)
    assert choose(web, jane, "payg").status_code == 202
    drain_to_the_end()
    assert plan(jane) == "payg"


@pytest.mark.parametrize("query", ["", "?at_period_end=true"])
def test_an_end_that_waits_can_be_taken_back(web: FlaskClient, stripe: StripeSandbox, price: str, query: str) -> None:
    jane = on_teams(web)
    cancel(web, jane, query)
    assert choose(web, jane, "teams").status_code == 202
    drain_to_the_end_of_today()
    assert [(s["status"], s["cancel_at_period_end"]) for s in stripe.objects("subscription")] == [("active", False)]
    assert (plan(jane), stripe.requests(CANCEL)) == ("teams", [])


def test_payg_that_waits_can_be_taken_back(web: FlaskClient) -> None:
    jane = with_card(web)
    choose(web, jane, "payg")
    assert cancel(web, jane).status_code == 202
    drain()
    assert plan(jane) == "trial"


def test_payg_that_was_wanted_at_signup_can_be_taken_back_before_a_card_comes(web: FlaskClient) -> None:
    jane = customer()
    sql("UPDATE customers SET wanted_plan = 'payg'")
    assert outcome(web, jane, cancel(web, jane))["state"] == "succeeded"
    outcome(web, jane, add(web, jane, "pm_card_visa"))
    drain()
    assert plan(jane) == "trial"
    assert cancel(web, jane).status_code == 409


def test_a_cancellation_that_was_taken_back_and_made_again_holds_though_the_taking_back_took_longer(
    web: FlaskClient, stripe: StripeSandbox, price: str
) -> None:
    jane = on_teams(web)
    outcome(web, jane, cancel(web, jane, "?at_period_end=true"))
    stripe.fault("refuse", operation="GET /v1/subscriptions/{subscription_exposed_id}")
    choose(web, jane, "teams")
    drain()
    outcome(web, jane, cancel(web, jane, "?at_period_end=true"))
    drain_to_the_end_of_today()
    [subscription] = stripe.objects("subscription")
    assert subscription["cancel_at_period_end"] is True


def test_a_choice_of_a_month_ago_is_not_carried_out_when_its_job_is_requeued(
    web: FlaskClient, stripe: StripeSandbox, price: str
) -> None:
    jane = with_card(web, "pm_card_chargeCustomerFail")
    accepted = choose(web, jane, "teams")
    assert outcome(web, jane, accepted)["state"] == "dead"
    outcome(web, jane, add(web, jane, "pm_card_visa"))
    assert outcome(web, jane, choose(web, jane, "payg"))["state"] == "succeeded"
    with transaction() as db:
        prune_jobs(db, datetime.now(UTC) + timedelta(days=31))
        ops.requeue(db, UUID(accepted.json["job_id"]), actor="ada")
    sql("UPDATE jobs SET created_at = created_at - interval '31 days' WHERE name = 'start_teams'")
    assert outcome(web, jane, accepted)["state"] == "dead"
    assert (plan(jane), paid(stripe, jane)) == ("payg", 0)


# Ends that cannot come at once


def test_who_cancels_at_once_while_billing_is_off_is_charged_no_other_month(
    web: FlaskClient, stripe: StripeSandbox, price: str, mailbox: Mailbox, configure: Callable[..., None]
) -> None:
    jane = on_teams(web)
    configure(BILLING_ENABLED="false")
    accepted = cancel(web, jane)
    work_with_billing_off()
    told = web.get(accepted.json["status_url"], headers=jane.headers).json
    assert (told["state"], told["result"]["cancel_at_period_end"]) == ("succeeded", True)
    drain()  # the mail
    assert [mail.subject[:13] for mail in mailbox.mails() if "ends" in mail.subject] == ["Teams ends on"]
    stripe.advance(32 * DAY)
    assert ([s["status"] for s in stripe.objects("subscription")], paid(stripe, jane)) == (["canceled"], 49900)


def test_what_was_cancelled_at_once_while_billing_was_off_ends_with_the_release_unless_it_is_taken_back(
    web: FlaskClient, stripe: StripeSandbox, price: str, configure: Callable[..., None]
) -> None:
    jane = on_teams(web)
    for taken_back in (True, False):
        configure(BILLING_ENABLED="false")
        cancel(web, jane)
        work_with_billing_off()
        configure(BILLING_ENABLED="true")
        if taken_back:
            assert outcome(web, jane, choose(web, jane, "teams"))["state"] == "succeeded"
        sweep()
        drain()
        [subscription] = stripe.objects("subscription")
        assert subscription["status"] == ("active" if taken_back else "canceled")
    assert plan(jane) == "trial"


def test_an_end_that_waits_for_overage_lets_no_other_month_begin(
    web: FlaskClient, stripe: StripeSandbox, price: str, configure: Callable[..., None]
) -> None:
    configure(TEAMS_INCLUDED_FIXES="1")
    jane = on_teams(web)
    stripe.fault("refuse", operation="POST /v1/invoiceitems", count=None)
    for issue in (1, 2):
        deploy(jane, issue)
    cancel(web, jane)
    drain_to_the_end_of_today()
    [before] = stripe.objects("subscription")
    sql(
        "UPDATE jobs SET busy_since = busy_since - interval '2 minutes', run_at = clock_timestamp()"
        " WHERE name = 'end_teams'"
    )
    drain()
    [after] = stripe.objects("subscription")
    assert (before["cancel_at_period_end"], after["cancel_at_period_end"]) == (False, True)
    assert after["status"] == "active", "it ends at once when the overage is told"


def test_overage_that_cannot_be_told_keeps_nobody_from_cancelling(
    web: FlaskClient, stripe: StripeSandbox, price: str, configure: Callable[..., None]
) -> None:
    configure(TEAMS_INCLUDED_FIXES="1")
    jane = on_teams(web)
    for issue in (1, 2):
        deploy(jane, issue)
    drain()
    client().v1.invoice_items.update(
        stripe.objects("invoiceitem")[0]["id"], {"amount": 100}
    )  # by somebody, out of kindness
    deploy(jane, 3)
    drain()
    accepted = cancel(web, jane)
    drain_to_the_end_of_today()
    assert outcome(web, jane, accepted)["result"]["status"] == "canceled"
    assert plan(jane) == "trial"
    assert [finding["subject"] for finding in findings()] != [], "it stays on record"


# Cancelled in Stripe's dashboard


def told_of_ends(mailbox: Mailbox) -> int:
    return sum(mail.subject.startswith("Teams ends on") for mail in mailbox.mails())


def test_who_is_cancelled_in_the_dashboard_is_told_when_teams_ends_each_time_once(
    web: FlaskClient, stripe: StripeSandbox, price: str, mailbox: Mailbox
) -> None:
    jane = on_teams(web)
    [subscription] = stripe.objects("subscription")
    for number, cancels in enumerate((True, True, False, True)):
        client().v1.subscriptions.update(subscription["id"], {"cancel_at_period_end": cancels})
        sync(jane, f"evt_{number}")
        sync(jane, f"evt_{number}_again")
        stripe.advance(60)
    assert told_of_ends(mailbox) == 2


@pytest.mark.parametrize("lost", ["refuse", "lose"])
def test_who_cancels_is_told_once_whoever_sees_it_first(
    web: FlaskClient, stripe: StripeSandbox, price: str, mailbox: Mailbox, lost: str
) -> None:
    jane = on_teams(web)
    stripe.fault(lost, operation="POST /v1/subscriptions/{subscription_exposed_id}")
    cancel(web, jane, "?at_period_end=true")
    drain()
    sync(jane, "evt_1")
    time_passes()
    drain()
    sync(jane, "evt_2")
    assert told_of_ends(mailbox) == 1
