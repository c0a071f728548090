"""A fix is counted once for ever, in its period and under its plan (seed: "usage events accepted", "trial signup to
first fix", "prevents race conditions", "billing returns correct status"; failures.md 27 to 30)."""

from datetime import timedelta

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st

from app.billing import plans
from app.db import get_engine, transaction
from app.ledger import ops
from app.ledger.claim import claim
from app.ops.audit import audit
from app.sandbox.stripe import StripeSandbox
from app.stripe import catalog
from app.stripe.client import client
from tests.system import money
from tests.system.scene import Mailbox, drain, drain_to_the_end, during, one, spoil, sql, sweep, time_passes
from tests.system.test_plans import on_teams

ITEMS = "* /v1/invoiceitems*"


def test_trial_signup_to_first_fix(stripe: StripeSandbox) -> None:
    ada = money.customer()
    money.deploy(ada, 1)
    drain()
    seen = money.status(ada)
    assert (seen.plan, seen.current_usage, seen.included, seen.remaining) == ("trial", 1, 5, 4)
    assert seen.can_use_service
    assert stripe.requests("POST /v1/payment_intents") == []


def test_the_last_free_fix_is_announced_and_those_over_it_are_recorded_and_cost_nothing(mailbox: Mailbox) -> None:
    ada = money.customer()
    for issue in range(7):
        money.deploy(ada, issue + 1)
    drain()
    assert money.outcomes(ada) == ["included"] * 5 + ["over_limit"] * 2
    seen = money.status(ada)
    assert (seen.current_usage, seen.remaining, seen.can_use_service) == (5, 0, False)
    assert money.charge_states(ada) == []
    assert len(mailbox.mails()) == 3  # the last free one, and two over it


def test_of_two_fixes_on_two_workers_one_gets_the_last_place() -> None:
    """failures.md 27: the second does not begin while another worker has the first (law 7)."""
    ada = money.customer()
    for issue in range(4):
        money.deploy(ada, issue + 1)
    drain()
    for issue in (5, 6):
        money.deploy(ada, issue)
    with get_engine().connect() as db:
        assert len(claim(db, queue="billing", names=["track_fix"], closed=[], owner="another worker", limit=1)) == 1
    drain()
    assert money.outcomes(ada) == ["included"] * 4
    sql("UPDATE jobs SET lease_until = clock_timestamp() - interval '1 ms' WHERE state = 'running'")
    sweep()
    drain_to_the_end()
    assert money.outcomes(ada) == ["included"] * 5 + ["over_limit"]


def test_the_bonus_adds_five_once() -> None:
    ada = money.customer()
    sql("UPDATE customers SET bonus_at = clock_timestamp() WHERE id = %(id)s", id=ada.id)
    for issue in range(11):
        money.deploy(ada, issue + 1)
    drain()
    assert money.outcomes(ada) == ["included"] * 10 + ["over_limit"]


@pytest.mark.parametrize("case", [{"run": "2"}, {"repo": "O/R"}, {"commit": "C0FFEE"}, {"fix_id": "fix-1", "run": "3"}])
def test_the_same_fix_by_another_result_is_one_fix(case: dict[str, str]) -> None:
    ada = money.customer("payg", "pm_card_visa")
    money.deploy(ada, 1)
    money.deploy(ada, 1, **case)
    drain()
    assert money.outcomes(ada) == ["charge"]


@pytest.mark.parametrize("case", [{"issue": 2}, {"commit": "beef"}, {"repo": "o/other"}])
def test_a_fix_at_another_place_is_another_fix(case: dict[str, object]) -> None:
    ada = money.customer()
    money.deploy(ada, 1)
    money.deploy(ada, **({"issue": 1} | case))
    drain()
    assert money.outcomes(ada) == ["included", "included"]


def test_the_senders_id_decides_where_there_is_one() -> None:
    ada = money.customer()
    money.deploy(ada, 1, fix_id="a")
    money.deploy(ada, 1, fix_id="b")  # two fixes at one place
    money.deploy(ada, 2, fix_id="a")  # the first one again, from elsewhere
    money.deploy(ada, 1)  # and by its place alone
    drain()
    assert money.outcomes(ada) == ["included", "included"]


def test_the_same_fix_of_another_customer_is_theirs() -> None:
    ada, bob = money.customer(), money.customer()
    money.deploy(ada, 1, fix_id="a")
    money.deploy(bob, 1, fix_id="a")
    drain()
    assert money.outcomes(ada) == money.outcomes(bob) == ["included"]


def test_a_fix_is_billed_under_the_plan_of_the_moment_that_it_was_accepted_in() -> None:
    ada = money.customer()
    money.deploy(ada, 1)
    with transaction() as db:
        plans.change(db, ada.id, "payg", reason="test")
    money.deploy(ada, 2)
    drain()
    assert money.outcomes(ada) == ["included", "charge"]


def test_fixes_of_a_period_that_stripe_has_not_begun_wait_for_days_and_ask_once_a_minute(
    web: FlaskClient, stripe: StripeSandbox
) -> None:
    catalog.sync()
    ada = on_teams(web)
    [end] = sql("SELECT ends_at FROM billing_periods")[0]
    for issue in range(3):
        money.deploy(ada, issue + 1, at=end + timedelta(minutes=5))
    drain()
    stripe.clear_requests()
    sql("UPDATE jobs SET busy_since = busy_since - interval '2 days' WHERE name = 'track_fix'")
    for _ in range(5):
        sql("UPDATE jobs SET run_at = clock_timestamp() WHERE name = 'track_fix'")
        drain()
    assert len(stripe.requests("GET /v1/subscriptions/*")) <= 2  # the minute may turn
    stripe.advance(32 * 86400)
    for _ in range(2):
        time_passes()
        drain()
    assert money.outcomes(ada) == ["included"] * 3
    assert sql("SELECT DISTINCT period_start FROM fixes") == [(end,)]


def test_teams_include_sixty_and_the_sixty_first_is_eight_dollars_on_one_item(
    stripe: StripeSandbox, mailbox: Mailbox
) -> None:
    ada = money.teams()
    for issue in range(63):
        money.deploy(ada, issue + 1)
    drain()
    assert money.outcomes(ada) == ["included"] * 60 + ["overage"] * 3
    [item] = stripe.objects("invoiceitem")
    assert (item["amount"], item["currency"], item["customer"]) == (2400, "usd", ada.stripe_id)
    assert len(mailbox.mails()) == 2  # at 80 % and at 100 %
    assert money.status(ada).overage == 3


def test_a_burst_of_overage_fixes_costs_few_requests(stripe: StripeSandbox) -> None:
    ada = money.teams()
    for issue in range(160):
        money.deploy(ada, issue + 1)
    drain()
    [item] = stripe.objects("invoiceitem")
    assert item["amount"] == 100 * 800
    assert len(stripe.requests(ITEMS)) < 20


def test_overage_fixes_that_trickle_in_share_one_telling(stripe: StripeSandbox) -> None:
    ada = money.teams()
    for issue in range(61):
        money.deploy(ada, issue + 1)
    drain()
    stripe.clear_requests()
    for issue in (62, 63, 64):
        money.deploy(ada, issue)
        drain()
    assert [item["amount"] for item in stripe.objects("invoiceitem")] == [800]
    assert money.status(ada).overage == 4
    drain_to_the_end()
    assert [item["amount"] for item in stripe.objects("invoiceitem")] == [4 * 800]
    assert len(stripe.requests(ITEMS)) == 2  # a look and a setting


@pytest.mark.parametrize("end", ["dead", "cancelled"])
def test_a_telling_that_has_ended_without_effect_is_not_waited_for(stripe: StripeSandbox, end: str) -> None:
    ada = money.teams()
    for issue in range(61):
        money.deploy(ada, issue + 1)
    drain()
    money.deploy(ada, 62)
    drain()
    if end == "cancelled":
        with transaction() as db:
            ops.cancel(db, one("SELECT id FROM jobs WHERE name = 'sync_overage' AND state = 'queued'"), actor="ops")
    else:
        spoil("name = 'sync_overage' AND state = 'queued'")
        drain_to_the_end()
    money.deploy(ada, 63)
    drain_to_the_end()
    assert [item["amount"] for item in stripe.objects("invoiceitem")] == [3 * 800]


def test_overage_after_the_periods_invoice_is_finalized_goes_on_the_next_one(stripe: StripeSandbox) -> None:
    ada = money.teams()
    for issue in range(62):
        money.deploy(ada, issue + 1)
    drain()
    invoice = client().v1.invoices.create({"customer": ada.stripe_id, "pending_invoice_items_behavior": "include"})
    client().v1.invoices.finalize_invoice(invoice.id)
    money.deploy(ada, 63)
    drain_to_the_end()
    items = stripe.objects("invoiceitem")
    assert sorted(item["amount"] for item in items) == [800, 1600]
    assert [item["invoice"] for item in items].count(None) == 1


@pytest.mark.parametrize("operation", ["POST /v1/invoiceitems", "POST /v1/invoiceitems/*"])
@pytest.mark.parametrize("kind", ["lose", "refuse", "status"])
def test_the_overage_is_exact_whatever_stripe_loses(stripe: StripeSandbox, operation: str, kind: str) -> None:
    ada = money.teams()
    for issue in range(61):
        money.deploy(ada, issue + 1)
    drain()
    stripe.fault(kind, operation=operation, count=2)
    for issue in (62, 63):
        money.deploy(ada, issue)
        drain_to_the_end()
    assert [item["amount"] for item in stripe.objects("invoiceitem")] == [2400]


def test_an_item_whose_invoice_is_finalized_while_it_is_set_leaves_the_rest_to_another(stripe: StripeSandbox) -> None:
    ada = money.teams()
    for issue in range(61):
        money.deploy(ada, issue + 1)
    drain()
    money.deploy(ada, 62)
    drain()
    time_passes()

    def finalize() -> None:
        invoice = client().v1.invoices.create({"customer": ada.stripe_id, "pending_invoice_items_behavior": "include"})
        client().v1.invoices.finalize_invoice(invoice.id)

    during(stripe, "POST /v1/invoiceitems/{invoiceitem}", drain, finalize)
    drain_to_the_end()
    assert [item["amount"] for item in stripe.objects("invoiceitem")] == [800, 800]
    assert [item["invoice"] for item in stripe.objects("invoiceitem")].count(None) == 1
    assert one("SELECT count(*) FROM jobs WHERE state = 'dead'") == 0


def test_overage_is_set_again_where_a_call_that_was_given_up_lands_late(stripe: StripeSandbox) -> None:
    ada = money.teams()
    for issue in range(61):
        money.deploy(ada, issue + 1)
    drain()
    [item] = stripe.objects("invoiceitem")
    for issue, fault in ((62, "refuse"), (63, "lose")):  # the first is on its way for so long that the second overtakes
        stripe.fault(fault, operation="POST /v1/invoiceitems/*", count=1)
        money.deploy(ada, issue)
        drain()
        time_passes()
        drain()
    assert stripe.objects("invoiceitem")[0]["amount"] == 2400
    client().v1.invoice_items.update(item["id"], {"amount": 1600, "metadata": {"fixes": "2"}})
    drain_to_the_end()
    assert [item["amount"] for item in stripe.objects("invoiceitem")] == [2400]
    assert audit(with_stripe=True)["findings"] == []


@pytest.mark.parametrize(("known", "told"), [(True, 0), (True, 1), (False, 0)])
def test_the_overage_of_a_customer_who_was_deleted_in_stripe_is_not_told(
    stripe: StripeSandbox, known: bool, told: int
) -> None:
    ada = money.teams()
    for issue in range(60 + told):
        money.deploy(ada, issue + 1)
    drain()
    client().v1.customers.delete(ada.stripe_id)
    if known:
        sql("UPDATE customers SET stripe_deleted_at = clock_timestamp()")
    stripe.clear_requests()
    money.deploy(ada, 70)
    drain_to_the_end()
    assert one("SELECT count(*) FROM jobs WHERE state = 'dead'") == 0
    assert one("SELECT stripe_deleted_at FROM customers") is not None
    assert not money.status(ada).can_use_service
    assert (stripe.requests(ITEMS) == []) is known
    assert audit(with_stripe=False)["findings"] == []  # there is nobody to tell


def test_a_database_restored_from_before_the_overage_was_told_finds_it_in_stripe(stripe: StripeSandbox) -> None:
    ada = money.teams()
    for issue in range(62):
        money.deploy(ada, issue + 1)
    drain_to_the_end()
    for statement in (
        "TRUNCATE overage_entries",
        "DELETE FROM external_calls",
        "ALTER TABLE fixes DISABLE TRIGGER USER",
        "UPDATE fixes SET created_at = created_at - interval '2 days'",
        "ALTER TABLE fixes ENABLE TRIGGER USER",
    ):
        sql(statement)
    stripe.advance(2 * 86400)
    money.deploy(ada, 63)
    drain_to_the_end()
    assert [item["amount"] for item in stripe.objects("invoiceitem")] == [2400]
    assert audit(with_stripe=True)["findings"] == []


def test_an_item_that_somebody_changed_in_stripe_is_not_set_over(stripe: StripeSandbox) -> None:
    ada = money.teams()
    for issue in range(61):
        money.deploy(ada, issue + 1)
    drain()
    [item] = stripe.objects("invoiceitem")
    client().v1.invoice_items.update(item["id"], {"amount": 5})
    money.deploy(ada, 62)
    drain_to_the_end()
    last = "SELECT state FROM jobs WHERE name = 'sync_overage' ORDER BY created_at DESC LIMIT 1"
    assert one(last) == "dead"
    assert [item["amount"] for item in stripe.objects("invoiceitem")] == [5]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([None, "a", "b"]), st.integers(1, 2), st.sampled_from(["c1", "C1", "c2"])),
        max_size=6,
    )
)
def test_no_order_of_the_same_fixes_counts_one_twice(sent: list[tuple[str | None, int, str]]) -> None:
    """Whoever has an id is known by it; whoever has none is known by its place."""
    ada = money.customer()
    sql("UPDATE customers SET bonus_at = clock_timestamp() WHERE id = %(id)s", id=ada.id)
    for run, (fix_id, issue, commit) in enumerate(sent + sent):
        money.deploy(ada, issue, fix_id=fix_id, commit=commit, run=str(run))
    drain()
    ids = {fix_id for fix_id, _, _ in sent if fix_id}
    named = {(issue, commit.lower()) for fix_id, issue, commit in sent if fix_id}
    nameless = {(issue, commit.lower()) for fix_id, issue, commit in sent if fix_id is None}
    assert len(ids) + len(nameless - named) <= len(money.outcomes(ada)) <= len(ids) + len(nameless)
