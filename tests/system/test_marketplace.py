"""Purchases on GitHub's Marketplace: whose they are, what plan follows from them in whatever order they are told, and
that nobody pays twice (seed: "marketplace installation"; failures.md 36, 37)."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count as numbers
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from app.billing.periods import Period, period_at
from app.contracts.billing import StartTeams
from app.customers import signups
from app.db import transaction
from app.github import history
from app.github.deliveries import made_at
from app.ledger.enqueue import enqueue
from app.ops.audit import audit
from app.ops.cli import cli
from app.sandbox.stripe import StripeSandbox
from app.stripe.client import client
from tests.conftest import ROOT
from tests.system.money import Customer, charge_states, customer, deploy, outcomes, status, taken
from tests.system.scene import Mailbox, at_once, count, drain, one, rows_of_all_tables, show, sql
from tests.system.test_github_webhooks import Account, _plans, account, came_to, day, deliver, post, samples, settle
from tests.system.test_payment_methods import give_card_at, open_page, outcome
from tests.system.test_plans import choose, on_teams, paid, price, with_card
from tests.system.test_schemathesis import EXAMPLES

__all__ = ["_plans", "price"]

_numbers = numbers(1)


def days_pass(days: float) -> None:
    """What is to take effect in so many days does now, and whoever waits for it wakes."""
    sql(f"UPDATE marketplace_purchases SET effective_at = effective_at - interval '{days} days'")
    sql("UPDATE jobs SET run_at = clock_timestamp() WHERE name = 'apply_marketplace_plan' AND state = 'queued'")
    drain()


def the_customer(of: Account) -> Customer:
    """The customer that the account has become, with the key that was mailed."""
    [found] = sql(
        "SELECT id, stripe_customer_id FROM customers JOIN marketplace_accounts AS a ON a.customer_id = id"
        " WHERE github_id = %(id)s",
        id=of.id,
    )
    return Customer(found.id, found.stripe_customer_id, "")


def plan(of: Customer) -> str:
    return status(of).plan


# marketplace installation


def test_a_purchase_that_was_kept_under_a_wrong_mapping_is_mended_by_a_replay(
    web: FlaskClient, configure: Callable[..., None]
) -> None:
    configure(MARKETPLACE_PLANS="435=payg")
    org = account()
    deliver(web, org.says("purchased", 435), delivery="d1")
    settle()
    assert plan(the_customer(org)) == "payg"
    configure(MARKETPLACE_PLANS="435=teams")
    assert CliRunner().invoke(cli, ["webhooks", "replay", "d1"]).exit_code == 0
    settle()
    assert plan(the_customer(org)) == "teams"


def test_marketplace_installation(web: FlaskClient, mailbox: Mailbox, stripe: StripeSandbox) -> None:
    """A purchase makes a customer with their plan, who is not charged by Stripe for it."""
    [purchased, *_] = samples("marketplace_purchase")
    assert deliver(web, purchased)["state"] == "succeeded"
    [found] = sql("SELECT email, name, plan, source, stripe_customer_id, subscription_status FROM customers")
    assert tuple(found)[:4] == ("username@email.com", "username", "payg", "gh_marketplace")
    assert found.stripe_customer_id in {one["id"] for one in stripe.objects("customer")}
    assert found.subscription_status == "active"
    assert one("SELECT status FROM signups") == "provisioned"
    welcome, told = mailbox.mails()
    assert "GitHub bills it" in told.text

    headers = {"X-API-Key": welcome.key}
    sent = {"phase": "mitigation", "data": {"fixed": True}, "repo": "o/r", "issueNumber": 42, "commitSha": "c0ffee"}
    assert web.post("/api/v1/phase-data", json=sent, headers=headers).status_code == 202
    drain()
    seen = web.get("/api/v1/billing/status", headers=headers).json
    assert (seen["plan"], seen["can_use_service"], seen["current_usage"], seen["overage"]) == ("payg", True, 1, 0)
    assert sql("SELECT outcome, amount_cents FROM fixes") == [("included", 0)]
    assert stripe.objects("payment_intent") == []
    assert count("charges") == 0
    assert audit(with_stripe=True)["ok"]


def test_githubs_own_history_ends_as_it_says(web: FlaskClient) -> None:
    for sent in samples("marketplace_purchase"):
        assert deliver(web, sent)["state"] == "succeeded"
    assert sql("SELECT email, plan FROM customers ORDER BY email") == [
        ("organizationusername@gmail.com", "trial"),
        ("username@email.com", "payg"),
    ]


def test_a_purchase_repeated_changes_nothing(web: FlaskClient, mailbox: Mailbox) -> None:
    org = account()
    sent = org.says("purchased", 686)
    deliver(web, sent, delivery="d1")
    before, mails = rows_of_all_tables(), len(mailbox.mails())
    assert post(web, sent, delivery="d1").json["duplicate"] is True
    drain()
    assert rows_of_all_tables() == before
    deliver(web, sent)  # the same, from another webhook
    assert len(mailbox.mails()) == mails
    assert count("customers") == count("plan_changes") == 1


def test_deliveries_at_the_same_instant_make_one_customer(web: FlaskClient) -> None:
    org = account()
    for n in range(6):
        post(web, org.says("changed" if n else "purchased", 686))
    workers = at_once(*[drain] * 3)
    assert len(workers) == 3
    settle()
    assert (count("customers"), count("signups"), count("plan_changes")) == (1, 1, 1)
    assert plan(the_customer(org)) == "teams"


def test_a_purchase_finds_who_is_a_customer_already_by_their_address(web: FlaskClient, mailbox: Mailbox) -> None:
    jane = customer()
    email = one("SELECT email FROM customers")
    org = Account(5, email.upper())
    deliver(web, org.says("purchased", 686))
    assert (count("customers"), count("signups")) == (1, 0)
    assert plan(jane) == "teams"
    assert len(mailbox.mails()) == 1
    # From now on the account is known, whatever its address becomes.
    deliver(web, Account(5, "new@example.com").says("changed", 435, day(0)))
    assert count("customers") == 1
    assert plan(jane) == "payg"


def test_a_purchase_without_an_address_is_dead_until_a_delivery_names_one(web: FlaskClient) -> None:
    nobody = account(None)
    dead = deliver(web, nobody.says("purchased", 686), delivery="d1")
    assert (dead["state"], dead["error"]["kind"]) == ("dead", "permanent")
    assert f"org{nobody.id}" in dead["error"]["message"]
    assert count("customers") == 0
    later = nobody.says("pending_change", 435, day(10)) | {"sender": {"email": "boss@example.com"}}
    deliver(web, later)
    assert plan(the_customer(nobody)) == "teams"
    assert one("SELECT email FROM customers") == "boss@example.com"
    assert CliRunner().invoke(cli, ["jobs", "requeue", dead["id"]]).exit_code == 0
    settle()
    assert came_to("d1")["state"] == "succeeded"


@pytest.mark.parametrize("address", ["not an address", "x@users.noreply.github.com", "x@mailinator.com", "a" * 400])
def test_an_address_that_nobody_reads_is_none(web: FlaskClient, address: str) -> None:
    assert deliver(web, account(address).says("purchased"))["state"] == "dead"
    assert count("signups") == 0


def test_a_plan_that_nobody_has_named_is_dead_with_what_to_set_and_the_customer_is_made(
    web: FlaskClient, configure: Callable[..., None]
) -> None:
    org = account()
    dead = deliver(web, org.says("purchased", 99), delivery="d1")
    assert dead["state"] == "dead"
    assert "MARKETPLACE_PLANS" in dead["error"]["message"]
    assert "99=" in dead["error"]["message"]
    drain()
    assert one("SELECT status FROM signups") == "provisioned"
    configure(MARKETPLACE_PLANS="99=teams")
    CliRunner().invoke(cli, ["jobs", "requeue", dead["id"]])
    settle()
    assert plan(the_customer(org)) == "teams"


def test_a_plan_can_be_named_by_its_name(web: FlaskClient) -> None:
    org = account()
    deliver(web, org.says("purchased", "FREE"))
    assert plan(the_customer(org)) == "trial"
    deliver(web, org.says("changed", 686, before=99))  # what it was before need not be known
    assert plan(the_customer(org)) == "teams"


def test_a_purchase_waits_for_the_approval_of_its_customer(web: FlaskClient, configure: Callable[..., None]) -> None:
    configure(AUTO_PROVISION="false")
    org = account()
    post(web, org.says("purchased", 686), delivery="d1")
    drain()
    assert (came_to("d1")["state"], came_to("d1")["error"]["kind"]) == ("queued", "busy")
    assert one("SELECT source FROM signups WHERE status = 'awaiting_approval'") == "gh_marketplace"
    with transaction() as db:
        signups.approve(db, one("SELECT id FROM signups"), actor="test")
    settle()
    assert plan(the_customer(org)) == "teams"


def test_a_purchase_of_a_customer_who_was_rejected_is_dead(web: FlaskClient, configure: Callable[..., None]) -> None:
    configure(AUTO_PROVISION="false")
    post(web, account().says("purchased", 686), delivery="d1")
    drain()
    with transaction() as db:
        signups.reject(db, one("SELECT id FROM signups"), actor="test")
    settle()
    assert came_to("d1")["state"] == "dead"
    assert "rejected" in came_to("d1")["error"]["message"]


def test_support_sees_what_a_customer_has_on_github(web: FlaskClient) -> None:
    org = account()
    deliver(web, org.says("purchased", 686))
    seen = {"id": 5, "account": {"id": org.id, "login": "x", "type": "User"}, "updated_at": 1762300800}
    deliver(web, {"action": "created", "installation": seen}, event="installation")
    shown = CliRunner().invoke(cli, ["customers", "show", str(org.email), "--json"])
    login = f"org{org.id}"
    assert json.loads(shown.output)["github"] == [{"login": login, "plan": "teams", "installations": ["active"]}]
    assert f"{login}, teams by the Marketplace" in CliRunner().invoke(cli, ["customers", "show", str(org.email)]).output


def test_ops_see_what_followed_from_a_delivery_and_have_it_done_again(web: FlaskClient) -> None:
    org = account()
    deliver(web, org.says("purchased", 686), delivery="d1")
    jane = the_customer(org)
    shown = json.loads(CliRunner().invoke(cli, ["webhooks", "show", "d1", "--json"]).output)
    assert (shown["followed_by"]["name"], shown["followed_by"]["result"]) == (
        "apply_marketplace_plan",
        {"plan": "teams"},
    )
    assert str(org.email) not in json.dumps(shown)
    before = count("plan_changes")
    assert CliRunner().invoke(cli, ["webhooks", "replay", "d1"]).exit_code == 0
    settle()
    assert (plan(jane), count("plan_changes")) == ("teams", before)
    assert one("SELECT count(*) FROM jobs WHERE name = 'apply_marketplace_plan' AND state = 'succeeded'") == 2


def dry_run(delivery: str) -> Any:
    """What having it done again would change, by a dry run that changes nothing."""
    before = rows_of_all_tables()
    result = CliRunner().invoke(cli, ["webhooks", "replay", delivery, "--dry-run", "--json"])
    assert result.exit_code == 0, result.output
    assert rows_of_all_tables() == before
    [preview] = json.loads(result.stdout)
    return [tuple(change.values()) for change in preview["changes"]]


def test_a_dry_run_says_what_plan_would_come_of_a_delivery(web: FlaskClient) -> None:
    org = account()
    deliver(web, org.says("purchased", 435, day(-3)), delivery="d1")
    jane = the_customer(org)
    assert dry_run("d1") == []
    said = org.says("changed", 686, day(-2))
    post(web, said, delivery="d2")  # and no worker comes
    assert dry_run("d2") == [
        ("delivery:d2", "not kept", f"changed, from {day(-2):%Y-%m-%d} on"),
        (f"plan of customer:{jane.id}", "payg, paid on the Marketplace", "teams, paid on the Marketplace"),
    ]
    assert plan(jane) == "payg"
    settle()
    assert dry_run("d2") == []
    assert plan(jane) == "teams"


def test_a_dry_run_of_the_first_purchase_makes_nobody(web: FlaskClient) -> None:
    post(web, account().says("purchased", 435, day(-3)), delivery="d1")
    assert dry_run("d1") == [("delivery:d1", "not kept", f"purchased, from {day(-3):%Y-%m-%d} on")]


def test_a_dry_run_says_how_an_installation_would_be(web: FlaskClient) -> None:
    org = {"id": 7, "login": "org", "type": "Organization"}
    installation = {"id": 1, "account": org, "updated_at": day(0).isoformat(), "suspended_at": None}
    post(web, {"action": "created", "installation": installation}, "installation", delivery="d1")
    assert dry_run("d1") == [("installation:1", "nothing", "active")]
    settle()
    assert dry_run("d1") == []


# changes, each at its time


def test_a_change_and_a_cancellation_follow(web: FlaskClient, mailbox: Mailbox) -> None:
    org = account()
    deliver(web, org.says("purchased", 435, day(-3)))
    jane = the_customer(org)
    deliver(web, org.says("changed", 686, day(-2)))
    assert plan(jane) == "teams"
    deliver(web, org.says("cancelled", 686, day(-1), unit_count=0))
    seen = status(jane)
    assert (seen.plan, seen.subscription_status, seen.can_use_service) == ("trial", "trial", True)
    assert "the trial" in mailbox.mails()[-1].text
    deliver(web, org.says("purchased", 435, day(0)))
    assert plan(jane) == "payg"


def test_a_pending_change_waits_for_its_day(web: FlaskClient) -> None:
    org = account()
    deliver(web, org.says("purchased", 686, day(-3)))
    jane = the_customer(org)
    deliver(web, org.says("pending_change", 435, day(20), before=686))
    assert plan(jane) == "teams"
    days_pass(19)
    assert plan(jane) == "teams"
    days_pass(2)
    assert plan(jane) == "payg"


def test_a_pending_cancellation_ends_the_plan_on_its_day(web: FlaskClient) -> None:
    org = account()
    deliver(web, org.says("purchased", 686, day(-3)))
    deliver(web, org.says("pending_change", 686, day(20), before=686, unit_count=0))
    assert plan(the_customer(org)) == "teams"
    days_pass(21)
    assert plan(the_customer(org)) == "trial"


def test_a_purchase_with_a_date_to_come_waits_for_it(web: FlaskClient) -> None:
    org = account()
    deliver(web, org.says("purchased", 686, day(2)))
    assert plan(the_customer(org)) == "trial"
    assert one("SELECT run_at::date FROM jobs WHERE payload ->> 'occasion' LIKE 'date:%%'") == day(2).date()
    days_pass(3)
    assert plan(the_customer(org)) == "teams"


@pytest.mark.parametrize("late", [False, True])
def test_a_pending_change_that_was_taken_back_never_comes(web: FlaskClient, late: bool) -> None:
    org = account()
    deliver(web, org.says("purchased", 686, day(-3)))
    told = [
        org.says("pending_change", 435, day(20), before=686),
        org.says("pending_change_cancelled", 686, day(0)),
    ]
    for sent in reversed(told) if late else told:
        deliver(web, sent)
    days_pass(21)
    assert plan(the_customer(org)) == "teams"


def test_nothing_is_pending_of_what_was_cancelled(web: FlaskClient) -> None:
    org = account()
    deliver(web, org.says("purchased", 686, day(-3)))
    deliver(web, org.says("cancelled", 686, day(-1), unit_count=0))
    deliver(web, org.says("pending_change", 435, day(20), before=686))  # made before, and late
    days_pass(21)
    assert plan(the_customer(org)) == "trial"


def test_what_was_lost_is_made_good_by_the_next_delivery(web: FlaskClient) -> None:
    org = account()
    deliver(web, org.says("changed", 686, day(-1), before=435))  # `purchased` never came
    assert plan(the_customer(org)) == "teams"
    other = account()
    deliver(web, other.says("pending_change", 435, day(20), before=686))
    assert plan(the_customer(other)) == "teams"


def test_of_two_accounts_of_one_customer_the_greater_plan_counts(web: FlaskClient) -> None:
    jane = customer()
    email = one("SELECT email FROM customers")
    one_org, other = Account(1, email), Account(2, email)
    deliver(web, one_org.says("purchased", 686))
    deliver(web, other.says("purchased", 435))
    assert plan(jane) == "teams"
    deliver(web, one_org.says("cancelled", 686, day(0)))
    assert plan(jane) == "payg"


# any order

_GREGORIAN = datetime(1582, 10, 15, tzinfo=UTC)


def made_id(at: datetime) -> str:
    """An id as GitHub gives it to a delivery that it makes at that moment."""
    ticks = (at - _GREGORIAN) // timedelta(microseconds=1) * 10
    low, middle, high = ticks & 0xFFFFFFFF, ticks >> 32 & 0xFFFF, ticks >> 48 & 0x0FFF
    return str(UUID(fields=(low, middle, high | 0x1000, 0x80, next(_numbers) % 256, 0x4C9367DC0958)))


def test_a_delivery_says_when_it_was_made() -> None:
    at = datetime(2026, 11, 22, 12, 30, 15, 250_000, tzinfo=UTC)
    assert made_at(made_id(at)) == at
    sample = made_at("72d3162e-cc78-11e3-81ab-4c9367dc0958")  # of GitHub's documentation
    assert sample is not None
    assert sample.date() == date(2014, 4, 25)
    assert made_at(str(uuid4())) is made_at("d1") is None


@dataclass
class Life:
    """What an account does, in the order that it does it, and what it has at the end."""

    told: list[tuple[str, int, float, float, int | None]]
    """Action, plan, day that it takes effect, day that it is told, plan before."""
    plan: int | None = None
    pending: tuple[int | None, float] | None = None


@st.composite
def lives(draw: st.DrawFn) -> Life:
    """A history as GitHub makes it; days are whole ones, and much can happen on one."""
    life, today = Life([]), -60.0
    for _ in range(draw(st.integers(1, 6))):
        today += draw(st.sampled_from([0.01, 0.2, 1.0, 7.0]))
        if life.pending is not None and life.pending[1] <= today:
            life.plan, life.pending = life.pending[0], None
        midnight = float(int(today) - 1)
        new, before = draw(st.sampled_from([435, 686, 7])), life.plan
        if before is None:
            life.told.append(("purchased", new, midnight, today, None))
            life.plan, life.pending = new, None
            continue
        action = draw(st.sampled_from(["changed", "cancelled", "pending_change", "pending_change_cancelled"]))
        if action == "changed":
            life.told.append((action, new, midnight, today, before))
            life.plan, life.pending = new, None
        elif action == "cancelled":
            life.told.append((action, before, midnight, today, None))
            life.plan = life.pending = None
        elif action == "pending_change" and life.pending is None:
            life.pending = (new, float(int(today) + 10))
            life.told.append((action, new, life.pending[1], today, before))
        elif action == "pending_change_cancelled" and life.pending is not None:
            life.told.append((action, before, midnight, today, None))
            life.pending = None
    if life.pending is not None and life.pending[1] <= 0:
        life.plan = life.pending[0]
    return life


OURS = {435: "payg", 686: "teams", 7: "teams", None: "trial"}


@given(life=lives(), shuffle=st.randoms(use_true_random=False))
@settings(max_examples=500, deadline=None, derandomize=True)
def test_any_order_and_repetition_is_read_as_the_same_purchase(life: Life, shuffle: Any) -> None:
    start = datetime(2026, 11, 22, tzinfo=UTC)
    told = [
        history.Told(
            delivery=f"d{n}",
            action=action,
            effective_at=start + timedelta(days=effective),
            plan="trial" if action == "cancelled" else OURS[plan],
            plan_before=None if before is None else OURS[before],
            made_at=start + timedelta(days=made, seconds=n),
            received_at=start,
            months_from=start,
        )
        for n, (action, plan, effective, made, before) in enumerate(life.told)
    ]
    told += [one for one in told if shuffle.random() < 0.3]
    shuffle.shuffle(told)
    standing = history.standing_at(told, start)
    assert (standing.plan if standing else "trial") == OURS[life.plan]


@given(life=lives(), shuffle=st.randoms(use_true_random=False))
@settings(EXAMPLES, max_examples=15)
def test_a_customer_ends_on_the_right_plan_whatever_order_github_delivers_in(
    web: FlaskClient, life: Life, shuffle: Any
) -> None:
    jane, now = customer(), day(0)
    org = Account(10_000 + jane.id, one("SELECT email FROM customers WHERE id = %(id)s", id=jane.id))
    deliveries = []
    for n, (action, bought, effective, made, before) in enumerate(life.told):
        sent = org.says(action, bought, now + timedelta(days=effective), before=before)
        deliveries.append((made_id(now + timedelta(days=made, seconds=n)), sent))
    deliveries += [one for one in deliveries if shuffle.random() < 0.3]
    shuffle.shuffle(deliveries)
    for delivery, sent in deliveries:
        assert post(web, sent, delivery=delivery).status_code == 202
        if shuffle.random() < 0.5:
            drain()
    drain()
    assert plan(jane) == OURS[life.plan]
    assert count("customers") == one("SELECT count(DISTINCT customer_id) FROM marketplace_accounts")


# nobody pays twice


def test_teams_of_the_marketplace_has_its_fixes_a_month_and_nothing_is_charged_beyond(
    web: FlaskClient, mailbox: Mailbox, stripe: StripeSandbox, configure: Callable[..., None]
) -> None:
    configure(TEAMS_INCLUDED_FIXES="5")
    jane = with_card(web)
    org = Account(5, one("SELECT email FROM customers"))
    deliver(web, org.says("purchased", 686))
    mailbox.clear()
    seen = status(jane)
    assert (seen.plan, seen.subscription_status, seen.included, seen.remaining) == ("teams", "active", 5, 5)
    assert seen.period_end == day(20) or abs(seen.period_end - day(20)) < timedelta(seconds=60)
    for issue in range(1, 8):
        deploy(jane, issue)
        drain()
    assert outcomes(jane) == ["included"] * 5 + ["over_limit"] * 2
    seen = status(jane)
    assert (seen.current_usage, seen.remaining, seen.overage, seen.can_use_service) == (5, 0, 0, False)
    subjects = [mail.subject for mail in mailbox.mails()]
    assert (
        subjects
        == ["4 of 5 fixes of this month are used", "5 of 5 fixes of this month are used"]
        + ["A fix was deployed over what your plan includes"] * 2
    )
    assert (count("charges"), taken(stripe, jane), stripe.objects("invoiceitem")) == (0, 0, [])
    assert audit(with_stripe=True)["ok"]


def test_who_was_deleted_in_stripe_and_pays_on_the_marketplace_is_served(web: FlaskClient) -> None:
    jane = customer()
    client().v1.customers.delete(jane.stripe_id)
    sql("UPDATE customers SET stripe_deleted_at = clock_timestamp()")
    assert not status(jane).can_use_service
    deliver(web, Account(5, one("SELECT email FROM customers")).says("purchased", 686))
    assert (status(jane).plan, status(jane).can_use_service) == ("teams", True)


def test_payg_that_becomes_the_marketplaces_is_charged_until_then_and_no_longer(
    web: FlaskClient, stripe: StripeSandbox
) -> None:
    jane = customer("payg", "pm_card_visa")
    deploy(jane, 1)
    drain()
    org = Account(5, one("SELECT email FROM customers"))
    deliver(web, org.says("purchased", 435, day(0)))
    deploy(jane, 2)
    drain()
    assert (charge_states(jane), taken(stripe, jane)) == (["succeeded"], 1500)
    assert outcomes(jane) == ["charge", "included"]


def test_teams_with_us_ends_when_it_is_bought_on_the_marketplace(
    web: FlaskClient, stripe: StripeSandbox, price: str, mailbox: Mailbox
) -> None:
    jane = on_teams(web)
    mailbox.clear()
    org = Account(5, one("SELECT email FROM customers"))
    deliver(web, org.says("purchased", 686))
    [subscription] = stripe.objects("subscription")
    assert subscription["status"] == "canceled"
    assert one("SELECT ended_at IS NOT NULL FROM subscriptions") is True
    seen = status(jane)
    assert (seen.plan, seen.subscription_status, seen.can_use_service) == ("teams", "active", True)
    assert [tuple(row) for row in sql("SELECT plan FROM plan_changes ORDER BY id")] == [("teams",), ("teams",)]
    assert paid(stripe, jane) == 49900  # the month that was paid; the rest of it is credited
    assert sum(i["total"] for i in stripe.objects("invoice")) < 49900
    told = mailbox.mail()
    assert "billed twice" in " ".join(told.text.split())
    assert audit(with_stripe=True)["ok"]


def test_who_pays_on_the_marketplace_cannot_buy_or_change_a_plan_here(
    web: FlaskClient, stripe: StripeSandbox, price: str
) -> None:
    jane = with_card(web)
    org = Account(5, one("SELECT email FROM customers"))
    deliver(web, org.says("purchased", 435))
    for wanted in ("teams", "payg"):
        answer = choose(web, jane, wanted)
        assert answer.status_code == 409
        assert "Marketplace" in answer.json["detail"]
    assert web.delete("/api/v1/subscription", headers=jane.headers).status_code == 409
    page = web.post("/api/v1/checkout", json={"purpose": "teams"}, headers=jane.headers)
    assert outcome(web, jane, page)["state"] == "dead"
    with transaction() as db:
        asked = enqueue(db, StartTeams(customer_id=jane.id, request="asked for a moment before"))
    drain()
    assert show(asked.job_id)["state"] == "dead"
    assert stripe.objects("subscription") == []
    deliver(web, org.says("cancelled", 435, day(0)))
    assert status(jane).subscription_status == "active"  # they have a card
    assert outcome(web, jane, choose(web, jane, "teams"))["state"] == "succeeded"


def test_a_card_on_the_marketplace_begins_nothing(web: FlaskClient, stripe: StripeSandbox) -> None:
    org = account()
    deliver(web, org.says("purchased", 686))
    jane = the_customer(org)
    sql("UPDATE customers SET wanted_plan = 'payg'")
    key = one("SELECT count(*) FROM api_keys")
    assert key == 1
    from app.contracts.billing import AttachPaymentMethod

    with transaction() as db:
        enqueue(db, AttachPaymentMethod(customer_id=jane.id, payment_method="pm_card_visa", request="r"))
    drain()
    assert plan(jane) == "teams"
    assert count("plan_changes") == 1


def test_a_page_of_checkout_completed_after_a_purchase_is_undone(
    web: FlaskClient, stripe: StripeSandbox, price: str
) -> None:
    jane = with_card(web)
    page = open_page(web, jane, "teams")
    deliver(web, Account(5, one("SELECT email FROM customers")).says("purchased", 686))
    assert web.get(give_card_at(page["url"], "visa")).status_code == 200
    drain()
    assert [s["status"] for s in stripe.objects("subscription")] == ["canceled"]
    assert (plan(jane), status(jane).subscription_status) == ("teams", "active")
    assert count("plan_changes") == 1


def test_teams_with_us_goes_on_beside_a_free_plan_of_the_marketplace(
    web: FlaskClient, stripe: StripeSandbox, price: str
) -> None:
    jane = on_teams(web)
    org = Account(5, one("SELECT email FROM customers"))
    deliver(web, org.says("purchased", "Free"))
    deliver(web, org.says("cancelled", "Free", day(0)))
    assert [s["status"] for s in stripe.objects("subscription")] == ["active"]
    assert plan(jane) == "teams"


@pytest.mark.parametrize(
    ("paid_from", "at", "start", "end"),
    [
        ("2026-11-05", "2026-11-22", "2026-11-05", "2026-12-05"),
        ("2026-12-05", "2026-11-22", "2026-11-05", "2026-12-05"),
        ("2026-12-05", "2026-12-05", "2026-12-05", "2027-01-05"),
        ("2027-10-05", "2026-12-04", "2026-11-05", "2026-12-05"),
        ("2026-01-31", "2026-02-27", "2026-01-31", "2026-02-28"),
        ("2026-01-31", "2026-02-28", "2026-02-28", "2026-03-31"),
        ("2026-01-31", "2028-02-29", "2028-02-29", "2028-03-31"),
        ("2026-01-31", "2026-12-31", "2026-12-31", "2027-01-31"),
    ],
)
def test_a_month_of_the_marketplace_begins_on_the_day_that_github_bills(
    paid_from: str, at: str, start: str, end: str
) -> None:
    jane = customer()
    sql(
        "INSERT INTO plan_changes (customer_id, plan, effective_at, reason, marketplace_from)"
        " VALUES (%(id)s, 'teams', '2000-01-01', 'test', %(paid)s)",
        id=jane.id,
        paid=f"{paid_from}T00:00:00Z",
    )
    with transaction() as db:
        found = period_at(db, jane.id, "teams", datetime.fromisoformat(f"{at}T00:00:00+00:00"))
    times = [datetime.fromisoformat(f"{each}T00:00:00+00:00") for each in (start, end)]
    assert found == Period(times[0], times[1])


def test_the_setting_says_what_is_wrong_with_it(configure: Callable[..., None]) -> None:
    from app.settings import SettingsError, get_settings

    configure(MARKETPLACE_PLANS=" 435 = teams , Basic=Plan=payg,")
    assert get_settings().marketplace_plans == {"435": "teams", "basic=plan": "payg"}
    for bad in ("435", "435=gold", "=teams"):
        configure(MARKETPLACE_PLANS=bad)
        with pytest.raises(SettingsError, match="MARKETPLACE_PLANS"):
            get_settings()
    assert "MARKETPLACE_PLANS" in (ROOT / "README.md").read_text()
