"""Whatever Stripe made and never delivered, never made, or we have forgotten, reconciling finds; it charges nobody
(stripe.md, "Catching up"; failures.md 17, 31 to 33, 40)."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from typer.testing import CliRunner

from app.billing import charges
from app.billing.reconcile import Sweep
from app.contracts.billing import SyncOverage
from app.contracts.upkeep import Reconcile
from app.customers import accounts
from app.db import transaction
from app.ledger.command import queues
from app.ledger.enqueue import enqueue
from app.ledger.executor import Executor
from app.ledger.gates import BILLING
from app.ops.cli import cli
from app.sandbox.stripe import StripeSandbox
from app.stripe import catalog
from app.stripe.client import client
from tests.conftest import wait_until
from tests.system import money
from tests.system.money import Customer, deploy
from tests.system.scene import (
    Mailbox,
    count,
    drain,
    drain_to_the_end,
    findings,
    one,
    rows_of_all_tables,
    sign_up,
    sql,
    time_passes,
)
from tests.system.test_payment_methods import add, outcome
from tests.system.test_plans import cancel, choose, on_teams, with_card
from tests.system.test_stripe_failures import hours_pass

DAY = 24 * 3600


@pytest.fixture(autouse=True)
def price(stripe: StripeSandbox) -> str:
    return catalog.sync()["price"]


def reconcile(*options: str) -> list[dict[str, Any]]:
    """The drift that the command finds; its exit status says the same."""
    result = CliRunner().invoke(cli, ["reconcile", "--json", *options], catch_exceptions=False)
    found = json.loads(result.stdout)
    assert found.keys() == {"ok", "checked", "drift"}
    bad = [row for row in found["drift"] if "--fix" not in options or not row["repaired"]]
    assert (found["ok"], result.exit_code) == ((False, 1) if bad else (True, 0))
    return list(found["drift"])


def rules(drift: list[dict[str, Any]]) -> Counter[str]:
    return Counter(row["rule"] for row in drift)


def mend() -> None:
    """Reconcile, and let the workers do what comes of it: then nothing is left."""
    reconcile("--fix")
    drain()
    assert reconcile() == []


def on_payg(web: FlaskClient) -> Customer:
    """A customer with a card and a fix that was paid."""
    made = with_card(web)
    sql("UPDATE customers SET wanted_plan = 'trial' WHERE id = %(id)s", id=made.id)
    assert web.post("/api/v1/subscription", json={"plan": "payg"}, headers=made.headers).status_code == 202
    drain()
    deploy(made, 1)
    drain()
    assert money.charge_states(made) == ["succeeded"]
    return made


def subscription(of: Customer) -> str:
    return str(one("SELECT id FROM subscriptions WHERE customer_id = %(id)s AND ended_at IS NULL", id=of.id))


def intent(of: Customer) -> str:
    return str(one("SELECT payment_intent FROM charges WHERE customer_id = %(id)s", id=of.id))


def test_events_that_were_not_delivered_are_found_and_applied(web: FlaskClient, stripe: StripeSandbox) -> None:
    ada = on_teams(web)
    mend()
    client().v1.subscriptions.update(subscription(ada), {"cancel_at_period_end": True})
    before = count("jobs")
    drift = reconcile()
    assert rules(drift) == {"event_arrived": 1, "subscription_agrees": 1}
    by_rule = {row["rule"]: row for row in drift}
    assert by_rule["event_arrived"]["subject"].startswith("event:evt_")
    assert "customer.subscription.updated" in by_rule["event_arrived"]["stripe"]
    assert (by_rule["event_arrived"]["ours"], by_rule["event_arrived"]["repair"]) == ("never arrived", "stripe_event")
    assert "ends with its period" in by_rule["subscription_agrees"]["stripe"]
    assert count("jobs") == before, "without --fix nothing is done"
    assert [row["repaired"] for row in reconcile("--fix")] == [True, True]
    assert count("jobs") == before + 2
    drain()
    assert one("SELECT cancel_at_period_end FROM subscriptions") is True
    assert reconcile() == []
    assert one("SELECT subject FROM operator_actions WHERE action = 'reconcile' LIMIT 1").startswith("reconcile:")


def refund_in_the_dashboard(stripe: StripeSandbox, payg: Customer, _: Customer) -> None:
    client().v1.refunds.create({"payment_intent": intent(payg), "amount": 500})


def refund_that_fails(stripe: StripeSandbox, payg: Customer, _: Customer) -> None:
    made = client().v1.refunds.create({"payment_intent": intent(payg), "amount": 500})
    mend()
    stripe.fail_refund(made.id)


def dispute(stripe: StripeSandbox, payg: Customer, _: Customer) -> None:
    [charge] = [c for c in stripe.objects("charge") if c["payment_intent"] == intent(payg)]
    stripe.dispute(charge["id"])


def lost_dispute(stripe: StripeSandbox, payg: Customer, teams: Customer) -> None:
    dispute(stripe, payg, teams)
    mend()
    stripe.close_dispute(stripe.objects("dispute")[0]["id"], "lost")


def cancellation(stripe: StripeSandbox, _: Customer, teams: Customer) -> None:
    client().v1.subscriptions.cancel(subscription(teams))


def renewal(stripe: StripeSandbox, _: Customer, teams: Customer) -> None:
    stripe.advance(32 * DAY)


def invoice_voided(stripe: StripeSandbox, _: Customer, teams: Customer) -> None:
    made = draft(teams)
    client().v1.invoices.finalize_invoice(made, {"auto_advance": False})
    mend()
    client().v1.invoices.void_invoice(made)


def draft(of: Customer) -> str:
    """An invoice that somebody has begun in the dashboard."""
    item = {"customer": of.stripe_id, "amount": 100, "currency": "usd"}
    client().v1.invoice_items.create(item)
    return client().v1.invoices.create({"customer": of.stripe_id, "pending_invoice_items_behavior": "include"}).id


def draft_deleted(stripe: StripeSandbox, _: Customer, teams: Customer) -> None:
    made = draft(teams)
    mend()
    client().v1.invoices.delete(made)


def customer_deleted(stripe: StripeSandbox, payg: Customer, _: Customer) -> None:
    client().v1.customers.delete(payg.stripe_id)


def card_detached(stripe: StripeSandbox, payg: Customer, _: Customer) -> None:
    card = one("SELECT default_payment_method FROM customers WHERE id = %(id)s", id=payg.id)
    client().v1.payment_methods.detach(card)


def other_default(stripe: StripeSandbox, payg: Customer, _: Customer) -> None:
    card = client().v1.payment_methods.attach("pm_card_mastercard", {"customer": payg.stripe_id})
    settings = {"invoice_settings": {"default_payment_method": card.id}}
    client().v1.customers.update(payg.stripe_id, settings)


UNMADE: dict[str, tuple[Callable[[StripeSandbox, Customer, Customer], None], str]] = {
    "a refund in the dashboard": (refund_in_the_dashboard, "refund_agrees"),
    "a refund that fails": (refund_that_fails, "refund_agrees"),
    "a dispute": (dispute, "dispute_agrees"),
    "a dispute that was lost": (lost_dispute, "dispute_agrees"),
    "a subscription that was cancelled": (cancellation, "subscription_agrees"),
    "a renewal": (renewal, "subscription_agrees"),
    "an invoice that was voided": (invoice_voided, "invoice_agrees"),
    "a draft that was deleted": (draft_deleted, "invoice_agrees"),
    "a customer who was deleted": (customer_deleted, "customer_is_there"),
    "a card that was detached": (card_detached, "default_payment_method"),
    "another default": (other_default, "default_payment_method"),
}


@pytest.mark.parametrize(("happens", "rule"), UNMADE.values(), ids=UNMADE)
def test_what_no_event_was_ever_made_of_is_found_by_comparing(
    happens: Callable[[StripeSandbox, Customer, Customer], None],
    rule: str,
    web: FlaskClient,
    stripe: StripeSandbox,
) -> None:
    payg, teams = on_payg(web), on_teams(web)
    mend()
    stripe.fault("unmade", event="*", count=None)
    happens(stripe, payg, teams)
    drift = reconcile()
    assert rules(drift)[rule] >= 1, drift
    assert rules(drift)["event_arrived"] == 0
    reconcile("--fix")
    drain()
    assert reconcile() == []
    assert findings() == []


@pytest.fixture
def backup() -> Iterator[Callable[[], Callable[[], None]]]:
    """Back up the whole database; what is returned restores it."""

    def tables() -> list[str]:
        rows = sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'")
        return [row.tablename for row in rows]

    def create() -> Callable[[], None]:
        sql("CREATE SCHEMA backup")
        sql("CREATE TABLE backup.numbers AS SELECT * FROM pg_sequences WHERE schemaname = 'public'")
        for table in tables():
            sql(f"CREATE TABLE backup.{table} AS TABLE public.{table}")
        return restore

    def restore() -> None:
        with transaction() as db:
            db.exec_driver_sql("SET LOCAL session_replication_role = replica")
            db.exec_driver_sql(f"TRUNCATE {', '.join(tables())} CASCADE")
            for table in tables():
                db.exec_driver_sql(f"INSERT INTO public.{table} OVERRIDING SYSTEM VALUE SELECT * FROM backup.{table}")
            db.exec_driver_sql(
                "SELECT setval(('public.' || sequencename)::regclass, coalesce(last_value, 1),"
                " last_value IS NOT NULL) FROM backup.numbers"
            )

    yield create
    sql("DROP SCHEMA IF EXISTS backup CASCADE")


def test_a_restored_backup_is_brought_up_and_nothing_is_charged_again(
    web: FlaskClient, stripe: StripeSandbox, backup: Callable[[], Callable[[], None]]
) -> None:
    ada, bob, eve = on_payg(web), on_teams(web), with_card(web)
    mend()
    deploy(ada, 2)
    drain_but_for_charges()
    restore = backup()
    drain()
    client().v1.refunds.create({"payment_intent": intent_of_newest(ada), "amount": 700})
    client().v1.subscriptions.cancel(subscription(bob))
    assert web.post("/api/v1/subscription", json={"plan": "teams"}, headers=eve.headers).status_code == 202
    drain()
    mend()
    before = {of.id: (money.entries(of), money.status(of)) for of in (ada, bob, eve)}
    taken = {of.id: money.taken(stripe, of) for of in (ada, bob, eve)}
    invoices = sorted((made["id"], made["amount_paid"]) for made in stripe.objects("invoice"))

    restore()
    drift = reconcile("--fix")
    assert rules(drift).keys() >= {"event_arrived", "charge_agrees", "subscription_agrees", "invoice_agrees"}
    assert all(row["repaired"] for row in drift)
    drain()
    mend()
    for of in (ada, bob, eve):
        entries, status = before[of.id]
        assert money.entries(of) == entries
        assert money.status(of) == status
        assert money.taken(stripe, of) == taken[of.id]
    assert sorted((made["id"], made["amount_paid"]) for made in stripe.objects("invoice")) == invoices
    assert findings() == []


def test_a_fix_that_was_paid_after_the_backup_is_not_charged_again_when_it_is_sent_again(
    web: FlaskClient, stripe: StripeSandbox, backup: Callable[[], Callable[[], None]]
) -> None:
    ada = on_payg(web)
    mend()
    restore = backup()
    deploy(ada, 2)
    drain()
    lost = intent_of_newest(ada)
    restore()

    [row] = [row for row in reconcile("--fix") if row["rule"] == "charge_is_known"]
    assert (row["subject"], row["repaired"]) == (f"payment_intent:{lost}", True)
    assert "have the sender send the fix again" in row["repair"]
    drain()
    hours_pass(stripe, 25)
    [row] = reconcile("--fix")
    assert row["rule"] == "charge_is_known"
    assert row["repair"].startswith("needs an operator: have the sender send the fix again")

    deploy(ada, 3)
    deploy(ada, 2)
    drain_to_the_end()
    assert money.charge_states(ada) == ["succeeded"] * 3
    assert intent_of_newest(ada) == lost
    assert money.taken(stripe, ada) == 4500
    assert len(stripe.objects("payment_intent")) == 3
    mend()
    assert findings() == []


def test_what_is_remembered_of_an_intent_is_what_was_sent_and_when(
    web: FlaskClient, stripe: StripeSandbox, backup: Callable[[], Callable[[], None]]
) -> None:
    ada = on_payg(web)
    mend()
    restore = backup()
    deploy(ada, 2)
    drain()
    lost = stripe.objects("payment_intent")[0]
    calls = "SELECT operation, number, parameters, first_sent_at FROM external_calls WHERE operation = %(name)s"
    name = f"fix:{lost['metadata']['fix']}:pi"
    [sent] = sql(calls, name=name)
    restore()
    reconcile("--fix")
    drain()
    made = datetime.fromtimestamp(lost["created"], UTC)
    assert sql(calls, name=name) == [(sent.operation, 1, sent.parameters, made)]


def overage_of(web: FlaskClient, fixes: int) -> Customer:
    """A customer on Teams with so many fixes over the included one, which Stripe has been told of."""
    bob = on_teams(web)
    for issue in range(fixes + 1):
        deploy(bob, issue + 1)
    tell()
    return bob


def tell() -> None:
    """Be a worker, also of the tellings that wait for what comes meanwhile."""
    drain()
    time_passes()
    drain()


def items(stripe: StripeSandbox) -> list[int]:
    """Cents of what waits for an invoice or is on one, but for what Stripe makes of a subscription."""
    return [item["amount"] for item in stripe.objects("invoiceitem") if "overage_of" in item["metadata"]]


@pytest.mark.parametrize("told", [0, 1])
def test_overage_that_stripe_was_told_of_after_the_backup_is_not_told_again(
    web: FlaskClient,
    stripe: StripeSandbox,
    backup: Callable[[], Callable[[], None]],
    configure: Callable[..., None],
    told: int,
) -> None:
    configure(TEAMS_INCLUDED_FIXES="1")
    bob = overage_of(web, told)
    mend()
    restore = backup()
    deploy(bob, 7)
    tell()
    assert items(stripe) == [800 * (told + 1)]
    restore()
    [row] = [row for row in reconcile("--fix") if row["rule"] == "overage_agrees"]
    assert row["repaired"]
    assert f"{800 * (told + 1)} cents" in row["stripe"]
    drain()
    hours_pass(stripe, 25)
    period = one("SELECT starts_at FROM billing_periods")
    with transaction() as db:
        enqueue(db, SyncOverage(customer_id=bob.id, period_start=period, occasion="by hand"))
    drain()
    assert items(stripe) == [800 * (told + 1)], "what was told is not taken back"
    assert reconcile() == []
    for issue in (7, 8):
        deploy(bob, issue)
        tell()
    assert items(stripe) == [800 * (told + 2)]
    assert money.status(bob).overage == told + 2
    mend()
    assert findings() == []


def test_overage_that_somebody_changed_in_stripe_needs_an_operator(
    web: FlaskClient, stripe: StripeSandbox, configure: Callable[..., None]
) -> None:
    configure(TEAMS_INCLUDED_FIXES="1")
    overage_of(web, 2)
    mend()
    [item] = [item["id"] for item in stripe.objects("invoiceitem")]
    for changes in ({"amount": 5}, {"amount": 9900}, {"metadata": {"fixes": "1"}, "amount": 800}):
        client().v1.invoice_items.update(item, changes)
        [row] = reconcile("--fix")
        assert (row["rule"], row["subject"], row["repaired"]) == ("overage_agrees", f"invoice_item:{item}", False)
        assert "1600 cents for 2 fixes" in row["ours"]
        assert "not what we last set it to" in row["repair"]
    client().v1.invoice_items.delete(item)
    [row] = reconcile("--fix")
    assert "Stripe does not have it" in row["repair"]
    assert count("overage_entries") == 1


def drain_but_for_charges() -> None:
    """Be a worker that moves no money."""
    executor = Executor([BILLING])
    executor.start()
    for queue in queues():
        executor.drain(queue)
    executor.stop()


def intent_of_newest(of: Customer) -> str:
    return str(one("SELECT payment_intent FROM charges WHERE customer_id = %(id)s ORDER BY id DESC LIMIT 1", id=of.id))


def test_reconciling_only_reads_in_stripe(web: FlaskClient, stripe: StripeSandbox) -> None:
    ada = on_payg(web)
    mend()
    client().v1.refunds.create({"payment_intent": intent(ada), "amount": 1})
    stripe.clear_requests()
    assert reconcile("--fix")
    drain()
    assert {entry["operation"].split()[0] for entry in stripe.requests()} == {"GET"}


def test_what_stripe_has_of_somebody_who_is_not_here_is_told_and_not_invented(
    web: FlaskClient, stripe: StripeSandbox
) -> None:
    ada = on_payg(web)
    client().v1.customers.create({"email": "theirs@example.com"})
    client().v1.customers.create({"metadata": {"customer_id": "their-own-7"}})
    mend()
    lost = client().v1.customers.create({"metadata": {"customer_id": "999"}})
    second = client().v1.customers.create({"metadata": {"customer_id": str(ada.id)}})
    wanted = {"amount": 1500, "currency": "usd", "customer": lost.id, "metadata": {"fix": "f00", "fix_id": "999"}}
    unknown = client().v1.payment_intents.create(wanted)
    before = rows_of_all_tables() | {"operator_actions": 0}
    drift = reconcile("--fix")
    assert {(row["rule"], row["subject"]) for row in drift} == {
        ("customer_is_known", "customer:999"),
        ("customer_is_known", f"customer:{ada.id}"),
        ("charge_is_known", f"payment_intent:{unknown.id}"),
    }
    assert all(row["repair"].startswith("needs an operator: ") and not row["repaired"] for row in drift)
    assert {row["stripe"] for row in drift} >= {lost.id, second.id}
    assert rows_of_all_tables() | {"operator_actions": 0} == before


def test_two_subscriptions_of_one_customer_need_an_operator_each_time(
    web: FlaskClient, stripe: StripeSandbox, price: str
) -> None:
    ada = on_teams(web)
    wanted = {"customer": ada.stripe_id, "items": [{"price": price}], "metadata": {"customer_id": str(ada.id)}}
    second = client().v1.subscriptions.create(wanted).id
    for _ in range(2):
        [row] = [row for row in reconcile("--fix") if row["rule"] == "subscription_agrees"]
        assert (row["subject"], row["repaired"]) == (f"subscription:{second}", False)
        assert f"{subscription(ada)} is open as well" in row["repair"]
        drain()
    assert one("SELECT count(*) FROM jobs WHERE state = 'dead' AND key LIKE '%%reconcile%%'") == 0


def test_money_that_differs_needs_an_operator(web: FlaskClient, stripe: StripeSandbox) -> None:
    ada = on_payg(web)
    mend()
    [paid] = stripe.objects("payment_intent")
    again = {name: paid[name] for name in ("amount", "currency", "customer", "metadata", "payment_method")}
    client().v1.payment_intents.create({**again, "confirm": True, "off_session": True})
    [row] = [row for row in reconcile("--fix") if row["rule"] != "event_arrived"]
    assert (row["rule"], row["repaired"]) == ("charge_agrees", False)
    assert "another payment intent" in row["repair"]
    assert money.taken(stripe, ada) == 3000


def test_since_says_how_far_to_look_back(web: FlaskClient, stripe: StripeSandbox) -> None:
    ada = on_teams(web)
    early = rules(reconcile())["event_arrived"]
    assert early > 0
    stripe.advance(3 * DAY)
    client().v1.subscriptions.update(subscription(ada), {"cancel_at_period_end": True})
    assert rules(reconcile())["event_arrived"] == early + 1
    day_after_tomorrow = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    assert rules(reconcile("--since", day_after_tomorrow, "--fix"))["event_arrived"] == 1
    assert rules(reconcile())["event_arrived"] == early, "the cursor stands where it stood"
    assert rules(reconcile("--since", "1h"))["event_arrived"] == early
    assert CliRunner().invoke(cli, ["reconcile", "--since", "yesterday"]).exit_code == 2


def test_a_look_at_the_last_hour_does_not_stand_for_the_days(web: FlaskClient) -> None:
    on_teams(web)
    mend()
    time_has_passed(hours=24)
    reconcile("--since", "1h", "--fix")
    assert by_the_clock(1)["checked"].keys() >= {"customers", "subscriptions", "charges", "invoices"}


def test_a_charge_that_is_open_is_compared_however_old(web: FlaskClient, stripe: StripeSandbox) -> None:
    ada = money.customer("payg", card="pm_card_chargeCustomerFail")
    deploy(ada, 1)
    drain()
    assert money.charge_states(ada) == ["declined"]
    reconcile("--fix")
    drain()
    mend()
    stripe.fault("unmade", event="*", count=None)
    client().v1.payment_intents.confirm(intent(ada), {"payment_method": "pm_card_visa"})
    assert rules(reconcile())["charge_agrees"] == 1
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    [row] = [row for row in reconcile("--since", tomorrow, "--fix") if row["rule"] == "charge_agrees"]
    assert (row["subject"], row["repair"]) == (f"charge:{charge(ada)}", "sync_charge")
    drain()
    assert money.charge_states(ada) == ["succeeded"]
    assert reconcile("--since", tomorrow) == []


def charge(of: Customer) -> int:
    return int(one("SELECT id FROM charges WHERE customer_id = %(id)s", id=of.id))


def test_a_draft_that_was_made_long_ago_is_no_drift(web: FlaskClient) -> None:
    draft(on_teams(web))
    mend()
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert reconcile("--since", tomorrow) == []


def test_what_is_paid_while_it_is_compared_is_no_operators_business(web: FlaskClient, stripe: StripeSandbox) -> None:
    ada = money.customer("payg", card="pm_card_chargeCustomerFail")
    deploy(ada, 1)
    drain()
    sweep = Sweep(transaction, "reconcile:test", fix=False)
    stripe.clear_requests()
    with ThreadPoolExecutor() as threads, transaction() as db:
        db.exec_driver_sql("LOCK TABLE fixes IN ACCESS EXCLUSIVE MODE")
        compared = threads.submit(sweep.objects, "charges")
        wait_until(lambda: stripe.requests("GET /v1/payment_intents"), what="the list of intents")
        client().v1.payment_intents.confirm(intent(ada), {"payment_method": "pm_card_visa"})
        charges.succeed(db, charges.get(db, charge(ada)), intent(ada))
        db.commit()
        compared.result()
    assert sweep.drift == []


def test_a_customer_who_is_being_provisioned_is_nobody_to_delete(web: FlaskClient, stripe: StripeSandbox) -> None:
    with transaction() as db:
        jane = accounts.create(db, email="jane@example.com", name="Jane", wanted_plan="trial", source="direct")
    client().v1.customers.create({"email": "jane@example.com", "metadata": {"customer_id": str(jane)}})
    [row] = reconcile("--fix")
    assert (row["rule"], row["repaired"]) == ("customer_is_known", False)
    assert "being provisioned" in row["repair"]
    assert "delete nothing" in row["repair"]


def test_drift_is_printed_as_a_table(web: FlaskClient) -> None:
    ada = on_teams(web)
    mend()
    result = CliRunner().invoke(cli, ["reconcile"])
    assert result.exit_code == 0
    assert "no drift" in result.stdout
    sub = subscription(ada)
    client().v1.subscriptions.update(sub, {"cancel_at_period_end": True})
    result = CliRunner().invoke(cli, ["reconcile"])
    assert result.exit_code == 1
    for shown in ("subscription_agrees", f"subscription:{sub}", "sync_subscription", "event_arrived", "--fix"):
        assert shown in result.stdout
    result = CliRunner().invoke(cli, ["reconcile", "--fix"])
    assert result.exit_code == 0
    assert "2 of 2" in result.stdout


def by_the_clock(hour: int) -> dict[str, Any]:
    """The calendar's job of that hour; returns what it came to."""
    period = datetime(2026, 11, 22, hour, tzinfo=UTC).isoformat()
    with transaction() as db:
        enqueue(db, Reconcile(period=period))
    drain()
    found: dict[str, Any] = one("SELECT result FROM jobs WHERE key = %(key)s", key=f"reconcile:{period}")
    return found


@pytest.mark.parametrize("waiting", [False, True], ids=["wanted at signup", "asked for and not begun"])
def test_a_teams_that_has_ended_since_the_backup_is_not_bought_again(
    web: FlaskClient, stripe: StripeSandbox, backup: Callable[[], Callable[[], None]], mailbox: Mailbox, waiting: bool
) -> None:
    if waiting:
        ada = with_card(web)
        mend()
        choose(web, ada, "teams")
        restore = backup()
        drain()
    else:
        sign_up(web, plan="teams")
        drain()
        ada = Customer(*sql("SELECT id, stripe_customer_id FROM customers")[0], mailbox.mail().key)
        mend()
        restore = backup()
        outcome(web, ada, add(web, ada, "pm_card_visa"))
    assert money.status(ada).plan == "teams"
    outcome(web, ada, cancel(web, ada, "?at_period_end=true"))
    stripe.advance(32 * 86400)
    restore()
    sql("UPDATE jobs SET created_at = created_at - interval '25 hours' WHERE name = 'start_teams'")
    drain()
    time_has_passed(hours=24)
    by_the_clock(1)  # by nobody's word
    assert [invoice["amount_paid"] for invoice in stripe.objects("invoice")] == [49900]
    assert money.status(ada).plan == "trial"


def test_a_clock_that_was_ahead_does_not_end_catching_up(web: FlaskClient, stripe: StripeSandbox) -> None:
    ada = on_teams(web)
    mend()
    sql("UPDATE reconcile_cursors SET at = at + interval '1 year'")
    client().v1.subscriptions.update(subscription(ada), {"cancel_at_period_end": True})
    by_the_clock(1)
    drain()
    assert one("SELECT cancel_at_period_end FROM subscriptions")
    assert sql("SELECT name FROM reconcile_cursors WHERE at > clock_timestamp() + interval '1 day'") == []


def test_a_link_that_was_not_used_while_another_card_was_ruled_out_is_no_drift(
    web: FlaskClient, stripe: StripeSandbox
) -> None:
    ada = on_payg(web)
    [visa] = stripe.objects("payment_method")
    stripe.change_card(visa["id"], "chargeDeclinedLostCard")
    deploy(ada, 2)
    drain()
    outcome(web, ada, add(web, ada, "pm_card_authenticationRequired"))
    outcome(web, ada, add(web, ada, visa["id"]))
    assert money.charge_states(ada) == ["succeeded", "requires_action"]
    mend()


def time_has_passed(**since: int) -> None:
    sql("UPDATE reconcile_cursors SET at = at - make_interval(hours => %(hours)s)", hours=since["hours"])


def test_by_the_clock_events_are_fetched_each_hour_and_objects_each_day(
    web: FlaskClient, stripe: StripeSandbox
) -> None:
    ada = on_teams(web)
    mend()
    sql("TRUNCATE reconcile_cursors")
    stripe.clear_requests()
    assert by_the_clock(1) == {"checked": {}, "drift": 0, "left": 0, "needs_operator": []}
    assert stripe.requests() == [], "a system that has just begun has missed nothing"

    client().v1.subscriptions.update(subscription(ada), {"cancel_at_period_end": True})
    stripe.clear_requests()
    came_to = by_the_clock(2)
    assert (came_to["drift"], came_to["left"]) == (1, 0)
    assert came_to["checked"].keys() == {"events"}
    assert one("SELECT cancel_at_period_end FROM subscriptions") is True

    stripe.fault("unmade", event="*", count=None)
    client().v1.subscriptions.update(subscription(ada), {"cancel_at_period_end": False})
    assert by_the_clock(3)["drift"] == 0
    time_has_passed(hours=24)
    came_to = by_the_clock(4)
    assert (came_to["drift"], came_to["left"]) == (1, 0)
    assert came_to["checked"].keys() >= {"customers", "subscriptions", "charges", "invoices"}
    assert one("SELECT cancel_at_period_end FROM subscriptions") is False
    assert by_the_clock(5)["checked"].keys() == {"events"}


def test_what_needs_an_operator_stays_with_the_job_that_found_it(web: FlaskClient, stripe: StripeSandbox) -> None:
    ada = on_payg(web)
    mend()
    time_has_passed(hours=24)
    second = client().v1.customers.create({"metadata": {"customer_id": str(ada.id)}})
    for stranger in range(50):
        client().v1.customers.create({"metadata": {"customer_id": str(9000 + stranger)}})
    came_to = by_the_clock(1)
    assert (came_to["drift"], came_to["left"], len(came_to["needs_operator"])) == (51, 51, 50)
    [row] = [row for row in came_to["needs_operator"] if row["subject"] == f"customer:{ada.id}"]
    assert (row["rule"], row["ours"], row["stripe"]) == ("customer_is_known", ada.stripe_id, second.id)
    job_id = str(one("SELECT id FROM jobs WHERE name = 'reconcile'"))
    shown = CliRunner().invoke(cli, ["jobs", "show", job_id]).stdout
    assert second.id in shown
    assert "delete the one that has nothing" in " ".join(shown.split())


def test_the_help_says_what_follows_from_news_that_come_late() -> None:
    result = CliRunner().invoke(cli, ["reconcile", "--help"])
    said = " ".join(result.stdout.replace("│", " ").split())
    assert "Takes no money itself" in said
    assert "a card whose arrival was missed pays what has failed" in said


def test_a_run_that_was_stopped_goes_on_where_it_was(web: FlaskClient, stripe: StripeSandbox) -> None:
    ada = on_payg(web)
    mend()
    by_the_clock(1)
    time_has_passed(hours=24)
    client().v1.refunds.create({"payment_intent": intent(ada), "amount": 5})
    stripe.fault("status", operation="GET /v1/refunds", count=4, status=503)
    assert by_the_clock(2) is None
    assert one("SELECT state FROM jobs WHERE key LIKE %(key)s", key="reconcile:%T02:%") == "queued"
    stripe.clear_requests()
    sql("UPDATE jobs SET run_at = clock_timestamp() WHERE name = 'reconcile'")
    drain()
    asked = Counter(entry["operation"] for entry in stripe.requests())
    assert asked["GET /v1/subscriptions"] == 0, "it was done before"
    assert asked["GET /v1/refunds"] > 0
    assert reconcile() == []


def test_lists_longer_than_a_page_are_read_to_their_end(web: FlaskClient) -> None:
    ada = on_teams(web)
    mend()
    for number in range(101):
        client().v1.customers.create({"email": f"theirs{number}@example.com"})
    assert reconcile() == []
    client().v1.customers.delete(ada.stripe_id)
    assert rules(reconcile())["customer_is_there"] == 1


def test_a_moments_trouble_at_stripe_is_waited_out(web: FlaskClient, stripe: StripeSandbox) -> None:
    on_teams(web)
    mend()
    stripe.fault("status", operation="GET /v1/subscriptions", status=429, retry_after=1)
    assert reconcile() == []


def test_a_nul_in_an_event_does_not_stop_the_sweep(web: FlaskClient, stripe: StripeSandbox) -> None:
    ada = on_teams(web)
    mend()
    time_has_passed(hours=1)
    text = "a\0\\u0000"
    changes = {"cancel_at_period_end": True, "metadata": {"customer_id": str(ada.id), "note": text}}
    client().v1.subscriptions.update(subscription(ada), changes)
    assert stripe.objects("subscription")[0]["metadata"]["note"] == text
    cursor = one("SELECT at FROM reconcile_cursors WHERE name = 'events'")
    found = rules(reconcile("--fix"))
    assert (found["event_arrived"], found["subscription_agrees"]) == (1, 1)
    assert one("SELECT at FROM reconcile_cursors WHERE name = 'events'") > cursor
    note = "payload #>> '{event,data,object,metadata,note}'"
    assert one(f"SELECT {note} FROM jobs WHERE {note} <> ''") == "a\ufffd\\u0000"
    drain()
    assert one("SELECT cancel_at_period_end FROM subscriptions") is True
    assert reconcile() == []
