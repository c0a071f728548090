"""The money adds up, whatever happens in whatever order: three customers, three plans, and everything that can go
wrong on the way to Stripe and back (failures.md 1 to 6, 22 to 31, 38).

The rules do what customers, senders, operators, Stripe and crashing workers do. At the end of each run all faults
are gone and the work that is left is done; then what Stripe has taken, what our books say and what was sent agree.
"""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import count
from typing import Any, Literal
from unittest import mock

import pytest
import stripe as sdk
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, Engine, event

from app.billing import charges, status, subscriptions
from app.contracts.billing import (
    AttachPaymentMethod,
    DetachPaymentMethod,
    EndTeams,
    LeavePayg,
    ResumeTeams,
    StartPayg,
    StartTeams,
)
from app.contracts.webhooks import StripeEvent
from app.db import get_engine, transaction
from app.ledger import ops
from app.ledger.command import Command
from app.ledger.enqueue import enqueue
from app.ledger.executor import Executor
from app.ledger.gates import BILLING
from app.ledger.relay import Relay
from app.ops.audit import audit
from app.sandbox.stripe import StripeSandbox
from app.stripe import catalog
from tests.system import money
from tests.system.scene import drain, drain_to_the_end, one, sql

TRIAL, BONUS, INCLUDED = 1, 1, 1
"""So few that the next fix is over them."""

CARDS = ["pm_card_visa", "pm_card_mastercard", "pm_card_chargeCustomerFail", "pm_card_authenticationRequired"]

OPERATIONS = [
    "POST /v1/payment_intents",
    "POST /v1/payment_intents/{intent}/confirm",
    "POST /v1/refunds",
    "POST /v1/invoiceitems",
    "POST /v1/invoiceitems/*",
    "POST /v1/invoices",
    "POST /v1/subscriptions",
    "POST /v1/subscriptions/*",
    "DELETE /v1/subscriptions/*",
    "POST /v1/payment_methods/*",
    "GET *",
    "*",
]

FAULTS: list[dict[str, Any]] = [
    {"kind": "lose"},
    {"kind": "refuse"},
    {"kind": "lock_timeout"},
    {"kind": "status", "status": 409},
    {"kind": "status", "status": 429},
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 500, "when": "after"},
]

MAY_BE_REFUSED = {
    "attach_payment_method",
    "start_payg",
    "start_teams",
    "resume_teams",
}
"""What a customer may ask for in vain. Everything else that ends as dead is a mistake of ours."""


QUEUES = ["webhooks", "billing"]

LIVES = st.none() | st.integers(0, 30) | st.just(10_000)
"""After how many steps a worker dies that begins at once; None: nobody begins yet."""


class WorkerDied(BaseException):
    """Nothing of the process runs after this, as after a SIGKILL."""


@contextmanager
def dying_after(steps: int) -> Iterator[None]:
    """A worker in this thread dies after so many steps: a commit is one, a request to Stripe and its answer are two.

    Once dead, it sends and commits nothing more.
    """
    me, left = threading.get_ident(), count(steps, -1)

    def step() -> None:
        if threading.get_ident() == me and next(left) <= 0:
            raise WorkerDied

    ask = sdk.RequestsClient.request

    def request(*args: Any, **options: Any) -> Any:
        step()
        answer = ask(*args, **options)
        step()
        return answer

    def commit(db: Connection) -> None:
        try:
            step()
        except WorkerDied:
            assert db.connection.dbapi_connection is not None
            db.connection.dbapi_connection.rollback()  # as PostgreSQL does when the process is gone
            raise

    event.listen(Engine, "commit", commit)
    try:
        with mock.patch.object(sdk.RequestsClient, "request", request):
            yield
    except WorkerDied:
        pass
    finally:
        event.remove(Engine, "commit", commit)


class MoneyMachine(RuleBasedStateMachine):
    """What may happen to three customers. `ada` begins on trial, `bob` on payg, `eve` on Teams."""

    def __init__(self, stripe: StripeSandbox) -> None:
        super().__init__()
        self.stripe = stripe
        self.closed: list[str] = []
        self.ahead = timedelta()
        self.clocks = [mock.patch.object(module, "datetime", self._clock()) for module in (status, subscriptions)]
        for clock in self.clocks:
            clock.start()

    def _clock(self) -> type[datetime]:
        """Where we ask for the time, it is Stripe's."""
        machine = self

        class Clock(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Any:
                return datetime.now(tz) + machine.ahead

        return Clock

    @initialize(card=st.sampled_from(CARDS))
    def begin(self, card: str) -> None:
        self.stripe.reset()
        sql("TRUNCATE customers, jobs, job_keys, job_attempts, external_calls, operator_actions CASCADE")
        self.sent: dict[int, set[int]] = {}
        self.numbers = count(1)
        self.asked: list[Command] = []
        catalog.sync()
        ada, bob, eve = self.customers = [money.customer(), money.customer("payg"), money.customer()]
        for customer, first in ((bob, card), (eve, "pm_card_visa")):
            self._ask(AttachPaymentMethod(customer_id=customer.id, payment_method=first, request="first"))
        self._ask(StartTeams(customer_id=eve.id, request="first"))
        self._settle()
        assert [money.status(customer).plan for customer in (ada, bob, eve)] == ["trial", "payg", "teams"]

    # What senders and customers do.

    @rule(
        burst=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 15), st.integers(0, 2)), min_size=1, max_size=6),
        steps=LIVES,
    )
    def deploy(self, burst: list[tuple[int, int, int]], steps: int | None) -> None:
        """Fixes, new or sent before: always as another result."""
        for who, n, by in burst:
            self._deploy(self.customers[who], n, by)
        self._work_until(steps)

    def _deploy(self, of: money.Customer, n: int, by: int) -> None:
        """Even ones have an id of the sender's and come from anywhere, odd ones are known by their place."""
        self.sent.setdefault(of.id, set()).add(n)
        fix_id = f"fix-{n}" if n % 2 == 0 or by == 0 else None
        issue = n + 1 + (100 * by if n % 2 == 0 else 0)
        repo = "O/R" if n % 2 and by == 2 else "o/r"
        money.deploy(
            of, issue, fix_id=fix_id, repo=repo, run=str(next(self.numbers)), at=datetime.now(UTC) + self.ahead
        )

    def _ask(self, command: Command) -> None:
        with transaction() as db:
            enqueue(db, command)
        if command not in self.asked:
            self.asked.append(command)

    @rule(who=st.integers(0, 2), card=st.sampled_from([*CARDS, None]), steps=LIVES)
    def change_card(self, who: int, card: str | None, steps: int | None) -> None:
        """Another card, or away with the one that is charged."""
        customer, request = self.customers[who].id, str(next(self.numbers))
        default = one("SELECT default_payment_method FROM customers WHERE id = %(id)s", id=customer)
        if card is not None:
            self._ask(AttachPaymentMethod(customer_id=customer, payment_method=card, request=request))
        elif default is not None:
            self._ask(DetachPaymentMethod(customer_id=customer, payment_method=default, request=request))
        self._work_until(steps)

    @rule(who=st.integers(0, 2), choice=st.integers(0, 3), after=st.sampled_from(["trial", "payg"]), steps=LIVES)
    def choose(self, who: int, choice: int, after: Literal["trial", "payg"], steps: int | None) -> None:
        """A plan, from those that there are beside the present one."""
        customer, request = self.customers[who].id, str(next(self.numbers))
        plan = one("SELECT plan FROM customers WHERE id = %(id)s", id=customer)
        if plan == "teams" and choice:
            end = EndTeams(customer_id=customer, at_period_end=choice == 1, plan_after=after, request=request)
            self._ask(end)
        elif plan == "teams":
            self._ask(ResumeTeams(customer_id=customer, request=request))
        elif choice:
            self._ask(StartTeams(customer_id=customer, request=request))
        else:
            self._ask((LeavePayg if plan == "payg" else StartPayg)(customer_id=customer, request=request))
        self._work_until(steps)

    @rule(consents=st.booleans())
    def ask_again(self, consents: bool) -> None:
        """Every request so far comes once more; whoever has a link to their bank uses it, and Stripe says so."""
        for command in self.asked.copy():
            self._ask(command)
        waiting = {i["id"] for i in self.stripe.objects("payment_intent") if i["status"] == "requires_action"}
        for intent_id in waiting:
            self.stripe.authenticate(intent_id, consents)
        for event_of in self.stripe.objects("event") if waiting else ():
            if event_of["data"]["object"]["id"] in waiting:
                self._ask(StripeEvent(event=event_of))

    # What operators do.

    @rule(cents=st.sampled_from([1, 500, 1500, None]), data=st.data())
    def refund(self, cents: int | None, data: st.DataObject) -> None:
        paid = sql("SELECT fix_id, id FROM charges WHERE state = 'succeeded' ORDER BY id")
        if not paid:
            return
        fix, charge = data.draw(st.sampled_from([tuple(row) for row in paid]))
        with transaction() as db:
            left = charges.refundable(db, charge)
        if not 0 < (cents or left) <= left:
            with pytest.raises(charges.RefundRefused), transaction() as db:
                charges.ask_refund(db, fix, cents, actor="ops", reason="greedy")
            return
        with transaction() as db:
            charges.ask_refund(db, fix, cents, actor="ops", reason="kind")

    @rule(open_again=st.booleans())
    def flip_the_kill_switch(self, open_again: bool) -> None:
        self.closed = [] if open_again else [BILLING]
        self._sweep()

    # What Stripe does, and time.

    @rule(operation=st.sampled_from(OPERATIONS), fault=st.sampled_from(FAULTS), times=st.integers(1, 3))
    def fail_at(self, operation: str, fault: dict[str, Any], times: int) -> None:
        self.stripe.fault(operation=operation, count=times, **fault)

    @rule(hours=st.sampled_from([25, 25, 3 * 24, 32 * 24]), idle=st.booleans())
    def time_passes(self, hours: int, idle: bool) -> None:
        """Stripe's clock moves, periods end, keys are forgotten; `idle`: nobody has worked before that."""
        if not idle:
            self._settle()
        moment = self.stripe.advance(hours * 3600)
        self.ahead = datetime.fromtimestamp(moment, UTC) - datetime.now(UTC)
        passed = timedelta(hours=hours)
        sql("UPDATE external_calls SET first_sent_at = first_sent_at - %(passed)s", passed=passed)
        sql("UPDATE charges SET failed_at = failed_at - %(passed)s", passed=passed)
        # Looks at Stripe are planned for a moment of Stripe's clock, which their occasion names.
        sql(
            "UPDATE jobs SET run_at = CASE WHEN name <> 'sync_subscription' THEN run_at - %(passed)s"
            " WHEN payload ->> 'occasion' ~ '^(period|invoice):'"
            " AND split_part(payload ->> 'occasion', ':', 2)::bigint + 5400 > %(now)s THEN run_at"
            " ELSE clock_timestamp() END WHERE queue IN ('webhooks', 'billing') AND state IN ('queued', 'retrying')",
            passed=passed,
            now=moment,
        )

    # What workers do.

    def _sweep(self) -> None:
        with get_engine().connect() as db:
            Relay(self.closed).sweep(db)

    def _work(self, *queues: str) -> None:
        executor = Executor(self.closed)
        try:
            for queue in queues or QUEUES:
                executor.drain(queue)
        finally:
            executor.stop()
        # PostgreSQL's clock has not moved along: what is done about plans that change within a second misses those.
        sql(
            "UPDATE plan_changes AS this SET effective_at = last FROM (SELECT id, max(effective_at) OVER"
            " (PARTITION BY customer_id ORDER BY id) AS last FROM plan_changes) AS changes"
            " WHERE changes.id = this.id AND last > effective_at"
        )

    def _patience(self) -> None:
        """What was told to wait, has failed, or tells overage a few seconds after the last time, is due again; what
        was planned for a later day is not."""
        sql(
            "UPDATE jobs SET run_at = clock_timestamp() WHERE state = 'retrying' OR (state = 'queued'"
            " AND (busy_since IS NOT NULL OR error_kind IS NOT NULL OR name = 'sync_overage'))"
        )

    @rule(steps=LIVES)
    def work(self, steps: int | None) -> None:
        """Also at what was told to wait."""
        self._patience()
        self._work_until(steps)

    def _work_until(self, steps: int | None) -> None:
        """A worker does what is due, or dies in the middle: its lease runs out, and the relay takes its job back."""
        if steps is not None:
            with dying_after(steps):
                self._work()
            sql("UPDATE jobs SET lease_until = clock_timestamp() - interval '1 ms' WHERE state = 'running'")
            self._sweep()

    def _settle(self, rounds: int = 40) -> None:
        """Work until nothing is left but what is planned for later, or held."""
        waiting = (
            "SELECT name, state, error_message FROM jobs WHERE queue IN ('webhooks', 'billing')"
            " AND (state IN ('running', 'retrying')"
            " OR (state = 'queued'"
            " AND (run_at <= clock_timestamp() OR busy_since IS NOT NULL OR name = 'sync_overage')))"
        )
        for _ in range(rounds):
            self._sweep()
            self._patience()
            self._work()
            left = sql(waiting)
            if not left or self.closed:
                return
        pytest.fail(f"still at it after {rounds} rounds: {left}")

    def teardown(self) -> None:
        try:
            if hasattr(self, "customers"):
                self._end_well()
        finally:
            for clock in self.clocks:
                clock.stop()

    def _end_well(self) -> None:
        self.stripe.clear_faults()
        self.closed = []
        self._settle()
        for [job_id] in sql("SELECT id FROM jobs WHERE state = 'dead' AND error_kind = 'crashed'"):
            with transaction() as db:  # its worker died too often: ops send it on
                ops.requeue(db, job_id, actor="ops")
        self._settle()
        while one("SELECT count(*) FROM jobs WHERE queue = 'mail' AND state = 'queued'"):
            self._work("mail")
        dead = sql("SELECT name, error_kind, error_message FROM jobs WHERE state = 'dead'")
        assert [row for row in dead if row.name not in MAY_BE_REFUSED or row.error_kind != "permanent"] == []
        assert audit(with_stripe=True)["findings"] == []
        for customer in self.customers:
            self._check_fixes(customer)
            self._check_status(customer)
            self._check_teams(customer)
        self._check_charges()

    def _check_fixes(self, of: money.Customer) -> None:
        """Every fix that was sent is counted once, in a period that it was accepted in."""
        rows = sql("SELECT * FROM fixes WHERE customer_id = %(id)s ORDER BY id", id=of.id)
        assert len(rows) == len(self.sent.get(of.id, ()))
        places = {"trial": TRIAL + BONUS, "payg": 0, "teams": INCLUDED}
        outside = {"trial": ("over_limit", 0), "payg": ("charge", 1500), "teams": ("overage", 800)}
        for (plan, _), within in _grouped(rows, "plan", "period_start").items():
            free = [row for row in within if row.outcome == "included"]
            assert len(free) <= places[plan]
            assert plan == "trial" or len(free) == min(len(within), places[plan])
            assert {(row.outcome, row.amount_cents) for row in within if row not in free} <= {outside[plan]}
            assert {row.amount_cents for row in free} <= {0}

    def _check_status(self, of: money.Customer) -> None:
        seen = money.status(of)
        used = one(
            "SELECT count(*) FROM fixes WHERE customer_id = %(id)s AND plan = %(plan)s AND outcome <> 'over_limit'"
            " AND period_start = %(start)s",
            id=of.id,
            plan=seen.plan,
            start=seen.period_start,
        )
        bonus = one("SELECT bonus_at IS NOT NULL FROM customers WHERE id = %(id)s", id=of.id)
        included = {"trial": TRIAL + BONUS * bonus, "payg": 0, "teams": INCLUDED}[seen.plan]
        assert (seen.current_usage, seen.included) == (used, included)
        assert seen.remaining == max(0, included - used)
        assert seen.overage == (max(0, used - included) if seen.plan == "teams" else 0)
        assert seen.plan == one("SELECT plan FROM customers WHERE id = %(id)s", id=of.id)

    def _check_charges(self) -> None:
        """Stripe took 1500 for a fix of payg or nothing, never twice, and gave back what we say."""
        taken: Counter[int] = Counter()
        fixes: dict[str, int] = {}
        for intent in self.stripe.objects("payment_intent"):
            if "fix_id" in intent["metadata"]:
                fixes[intent["id"]] = int(intent["metadata"]["fix_id"])
                taken[fixes[intent["id"]]] += intent["amount_received"]
        back: Counter[int] = Counter()
        for refund in self.stripe.objects("refund"):
            back[fixes[refund["payment_intent"]]] += refund["amount"]
        rows = sql(
            "SELECT fix_id, state, coalesce(-sum(e.amount_cents) FILTER (WHERE kind = 'refunded'), 0) AS refunded,"
            " coalesce(sum(asked_cents), 0) AS asked"
            " FROM charges JOIN charge_entries AS e ON e.charge_id = charges.id GROUP BY fix_id, state"
        )
        assert {row.fix_id: 1500 * (row.state == "succeeded") for row in rows} | taken == {
            row.fix_id: taken[row.fix_id] for row in rows
        }
        for row in rows:
            assert taken[row.fix_id] == 1500 * (row.state == "succeeded")
            assert back[row.fix_id] == row.refunded == row.asked <= 1500

    def _check_teams(self, of: money.Customer) -> None:
        """Overage of each period is in Stripe to the cent, and on an invoice once Teams has ended."""
        owed: Counter[datetime] = Counter()
        for row in sql("SELECT * FROM fixes WHERE customer_id = %(id)s AND outcome = 'overage'", id=of.id):
            owed[row.period_start] += 800
        items = [i for i in self.stripe.objects("invoiceitem") if i["customer"] == of.stripe_id]
        told: Counter[datetime] = Counter()
        for item in items:
            if "overage_of" in item["metadata"]:
                told[datetime.fromisoformat(item["metadata"]["overage_of"])] += item["amount"]
        assert told == owed
        subscribed = [
            s
            for s in self.stripe.objects("subscription")
            if s["customer"] == of.stripe_id and s["status"] != "canceled"
        ]
        assert len(subscribed) <= 1
        assert bool(subscribed) == (money.status(of).plan == "teams")
        if not subscribed:
            assert [item["id"] for item in items if item["invoice"] is None] == []


def _grouped(rows: list[Any], *names: str) -> dict[tuple[Any, ...], list[Any]]:
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, name) for name in names), []).append(row)
    return groups


@pytest.fixture
def machine(stripe: StripeSandbox, configure: Callable[..., None]) -> Callable[[], MoneyMachine]:
    configure(
        TRIAL_FIXES=str(TRIAL),
        TRIAL_BONUS_FIXES=str(BONUS),
        TEAMS_INCLUDED_FIXES=str(INCLUDED),
    )
    return lambda: MoneyMachine(stripe)


def run(machine: Callable[[], MoneyMachine], **how: Any) -> None:
    run_state_machine_as_test(machine, settings=settings(deadline=None, suppress_health_check=list(HealthCheck), **how))


def test_the_money_adds_up_whatever_happens(machine: Callable[[], MoneyMachine]) -> None:
    # Not shrunk: the long run below finds the short way to what this one finds in seconds.
    phases = [Phase.explicit, Phase.reuse, Phase.generate]
    run(machine, max_examples=12, stateful_step_count=25, phases=phases, derandomize=True)


# What the machine has found, in as few steps as it takes.


@pytest.mark.parametrize("waited_h", [0, 25])
@pytest.mark.parametrize("fault", [{"kind": "lose"}, {"kind": "status", "status": 500, "when": "after"}])
def test_overage_that_stripe_has_taken_and_not_confirmed_is_found_there(
    stripe: StripeSandbox, configure: Callable[..., None], fault: dict[str, Any], waited_h: int
) -> None:
    configure(TEAMS_INCLUDED_FIXES="0")
    ada = money.teams()
    stripe.fault(operation="POST /v1/invoiceitems", **fault)
    money.deploy(ada, 1)
    drain()
    stripe.advance(waited_h * 3600)
    sql("UPDATE external_calls SET first_sent_at = first_sent_at - make_interval(hours => %(h)s)", h=waited_h)
    drain_to_the_end()
    assert [item["amount"] for item in stripe.objects("invoiceitem")] == [800]
    assert audit(with_stripe=True)["findings"] == []


def test_who_pays_by_a_link_what_was_given_up_is_past_due_no_longer(stripe: StripeSandbox) -> None:
    ada = money.customer("payg", "pm_card_chargeCustomerFail")
    money.deploy(ada, 1)
    drain()
    money.days_pass(ada, 30)
    drain_to_the_end()
    assert money.status(ada).subscription_status == "past_due"
    card = "pm_card_authenticationRequired"
    with transaction() as db:
        enqueue(db, AttachPaymentMethod(customer_id=ada.id, payment_method=card, request="new"))
    drain()
    assert (money.charge_states(ada), money.status(ada).subscription_status) == (["uncollectible"], "past_due")
    assert audit(with_stripe=True)["findings"] == []
    [intent] = stripe.objects("payment_intent")
    stripe.authenticate(intent["id"])
    with transaction() as db:
        enqueue(db, StripeEvent(event=stripe.objects("event")[0]))
    drain()
    assert money.charge_states(ada) == ["succeeded"]
    assert (money.status(ada).subscription_status, money.status(ada).can_use_service) == ("active", True)
    assert audit(with_stripe=True)["findings"] == []


@pytest.mark.slow
def test_the_money_adds_up_whatever_happens_for_longer(machine: Callable[[], MoneyMachine]) -> None:
    run(machine, max_examples=int(os.environ.get("BILLING_EXAMPLES", "400")), stateful_step_count=30)
