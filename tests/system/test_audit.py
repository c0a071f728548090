"""The audit finds every breach of an invariant, and none in a sound system: each rule broken by hand, in SQL."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from typer.testing import CliRunner

from app.contracts.webhooks import SyncInvoicePayment
from app.db import transaction
from app.ledger.enqueue import enqueue
from app.ops.audit import audit
from app.ops.cli import cli
from app.sandbox.stripe import StripeSandbox
from app.stripe.client import client
from tests.system import money
from tests.system.scene import Mailbox, drain, one, sign_up, sql

JOHNS = "name = 'create_customer' AND state = 'queued'"
"""The job of the signup that waits."""

# Each: the rule, and what breaks it in the sound system below.
BREACHES: dict[str, tuple[str, tuple[str, ...]]] = {
    "a job due for ever": (
        "job_has_outcome_or_reason",
        (f"UPDATE jobs SET run_at = clock_timestamp() - interval '11 minutes' WHERE {JOHNS}",),
    ),
    "a job whose lease ran out for ever": (
        "job_has_outcome_or_reason",
        (
            "UPDATE jobs SET state = 'running', attempt = 1, started_at = clock_timestamp(), lease_owner = 'gone',"
            f" lease_until = clock_timestamp() - interval '2 minutes' WHERE {JOHNS}",
        ),
    ),
    "a job that waits for its turn behind nobody": (
        "job_has_outcome_or_reason",
        (
            "UPDATE jobs SET run_at = clock_timestamp() - interval '11 minutes', blocked = true,"
            f" serialize_by = 'customer:1' WHERE {JOHNS}",
        ),
    ),
    "a signup whose job was never there": (
        "signup_has_job",
        (
            f"DELETE FROM jobs WHERE {JOHNS}",
            "DELETE FROM job_keys WHERE job_id NOT IN (SELECT id FROM jobs)",
        ),
    ),
    "two jobs with one key": (
        "dedup_key_once",
        (
            "INSERT INTO jobs (id, name, queue, key, payload, max_attempts)"
            f" SELECT gen_random_uuid(), name, queue, key, payload, max_attempts FROM jobs WHERE {JOHNS}",
        ),
    ),
    "a job whose key is not kept": (
        "dedup_key_once",
        (f"DELETE FROM job_keys WHERE job_id IN (SELECT id FROM jobs WHERE {JOHNS})",),
    ),
    "a customer without a Stripe customer": (
        "customer_has_stripe_customer",
        ("UPDATE customers SET stripe_customer_id = NULL",),
    ),
    "a customer without a Stripe customer, whose job is dead": (
        "customer_has_stripe_customer",
        (
            "UPDATE customers SET stripe_customer_id = NULL",
            "ALTER TABLE jobs DISABLE TRIGGER job_moves",
            "UPDATE jobs SET state = 'dead' WHERE name = 'create_stripe_customer'",
            "ALTER TABLE jobs ENABLE TRIGGER job_moves",
        ),
    ),
    "a customer without a key": ("customer_has_one_first_key", ("DELETE FROM api_keys",)),
    "a sealed key after its mail": ("no_sealed_key_after_delivery", (r"UPDATE api_keys SET sealed = '\x00'",)),
    "a provisioned signup without a customer": (
        "signup_provisioned_is_whole",
        ("UPDATE signups SET customer_id = NULL WHERE status = 'provisioned'",),
    ),
    "a provisioned signup without a mail": (
        "signup_provisioned_is_whole",
        ("UPDATE customers SET welcomed_at = NULL",),
    ),
    "a customer that Stripe does not have": (
        "stripe_customers_agree",
        ("UPDATE customers SET stripe_customer_id = 'cus_nobody' WHERE id = 1",),
    ),
    "a customer that only Stripe has": ("stripe_customers_agree", ("TRUNCATE customers CASCADE",)),
    "a fix that was not counted": ("fix_counted_once", ("TRUNCATE usage_entries",)),
    "a fix over a trial's limit that took a place": (
        "fix_counted_once",
        (
            "ALTER TABLE fixes DISABLE TRIGGER fixes_append_only",
            "UPDATE fixes SET outcome = 'over_limit' WHERE outcome = 'included'",
            "ALTER TABLE fixes ENABLE TRIGGER fixes_append_only",
        ),
    ),
    "a fix that would be counted again": ("fix_counted_once", ("DELETE FROM fix_identities",)),
    "a fix that nobody was told to count": (
        "deployed_fix_is_tracked",
        (
            "INSERT INTO phase_results (id, customer_id, phase, status, repo, issue_number, commit_sha, data, digest,"
            " received_at) SELECT gen_random_uuid(), customer_id, phase, status, repo, 99, commit_sha, data, 'new',"
            " received_at FROM phase_results LIMIT 1",
        ),
    ),
    "usage that is no fix's": (
        "usage_is_the_sum_of_its_fixes",
        (
            "INSERT INTO usage_entries (customer_id, plan, period_start, fixes, reason)"
            " SELECT customer_id, plan, period_start, 1, 'out of the blue' FROM usage_entries LIMIT 1",
        ),
    ),
    "a fix of payg without a charge": ("fix_of_payg_has_one_charge", ("TRUNCATE charges CASCADE",)),
    "a charge of another amount than its fix": (
        "fix_of_payg_has_one_charge",
        ("UPDATE charges SET amount_cents = 1501 WHERE state = 'declined'",),
    ),
    "a charge for a fix that costs nothing": (
        "fix_of_payg_has_one_charge",
        (
            "INSERT INTO charges (fix_id, customer_id, amount_cents)"
            " SELECT id, customer_id, 1500 FROM fixes WHERE outcome = 'included'",
        ),
    ),
    "a paid charge without an entry of it": ("charge_entries_add_up", ("TRUNCATE charge_entries",)),
    "a charge that is not paid by its state, and paid by its entries": (
        "charge_entries_add_up",
        ("UPDATE charges SET state = 'uncollectible' WHERE state = 'succeeded'",),
    ),
    "more given back than was taken": (
        "charge_entries_add_up",
        (
            "INSERT INTO charge_entries (charge_id, kind, amount_cents)"
            " SELECT id, 'refunded', -1501 FROM charges WHERE state = 'succeeded'",
        ),
    ),
    "a failed charge that nobody will try again": (
        "charge_is_final_or_waits",
        ("DELETE FROM jobs WHERE name = 'charge_fix'",),
    ),
    "overage that Stripe was not told of": ("overage_is_told", ("TRUNCATE overage_entries",)),
    "overage that was told too high": (
        "overage_is_told",
        (
            "INSERT INTO overage_entries (customer_id, period_start, invoice_item, fixes, amount_cents)"
            " SELECT customer_id, period_start, invoice_item, 2, 1600 FROM overage_entries",
        ),
    ),
    "a charge that Stripe does not have": (
        "stripe_charges_agree",
        ("UPDATE charges SET payment_intent = 'pi_nobody' WHERE state = 'declined'",),
    ),
    "a charge that only Stripe has": ("stripe_charges_agree", ("TRUNCATE charges CASCADE",)),
    "a charge that is paid in Stripe alone": (
        "stripe_charges_agree",
        ("UPDATE charges SET state = 'uncollectible' WHERE state = 'succeeded'",),
    ),
    "a charge that is paid with us alone": (
        "stripe_charges_agree",
        ("UPDATE charges SET state = 'succeeded' WHERE state = 'declined'",),
    ),
    "a charge that is of another amount in Stripe": (
        "stripe_charges_agree",
        ("UPDATE charges SET amount_cents = 1501 WHERE state = 'declined'",),
    ),
    "a refund that Stripe has not made": (
        "stripe_charges_agree",
        (
            "INSERT INTO charge_entries (charge_id, kind, amount_cents)"
            " SELECT id, 'refunded', -1 FROM charges WHERE state = 'succeeded'",
        ),
    ),
    "more given back of an invoice than it was paid": (
        "invoice_entries_add_up",
        (
            "INSERT INTO invoice_entries (invoice_id, kind, amount_cents, stripe_id)"
            " SELECT id, 'refunded', -701, 're_nobody' FROM invoices",
        ),
    ),
    "an invoice that only Stripe has": ("stripe_invoices_agree", ("TRUNCATE invoices CASCADE",)),
    "an invoice that was paid more in Stripe": (
        "stripe_invoices_agree",
        ("UPDATE invoices SET paid_cents = 799",),
    ),
    "an invoice that is not paid in Stripe": (
        "stripe_invoices_agree",
        (
            "INSERT INTO invoices (id, customer_id, status, currency, total_cents, paid_cents, created_at)"
            " SELECT 'in_nobody', customer_id, 'paid', 'usd', 800, 800, created_at FROM invoices",
        ),
    ),
    "a refund of an invoice that Stripe has not made": (
        "stripe_invoices_agree",
        (
            "INSERT INTO invoice_entries (invoice_id, kind, amount_cents, stripe_id)"
            " SELECT id, 'refunded', -1, 're_nobody' FROM invoices",
        ),
    ),
    "overage that is another amount in Stripe": (
        "stripe_overage_agrees",
        (
            "INSERT INTO overage_entries (customer_id, period_start, invoice_item, fixes, amount_cents)"
            " SELECT customer_id, period_start, invoice_item, 1, 799 FROM overage_entries",
        ),
    ),
    "overage that only Stripe has": ("stripe_overage_agrees", ("TRUNCATE overage_entries",)),
    "overage that Stripe does not have": (
        "stripe_overage_agrees",
        (
            "INSERT INTO overage_entries (customer_id, period_start, invoice_item, fixes, amount_cents)"
            " SELECT customer_id, period_start, 'ii_nobody', 1, 800 FROM overage_entries",
        ),
    ),
}


@pytest.fixture(autouse=True)
def a_sound_system(web: FlaskClient, mailbox: Mailbox, configure: Callable[..., None]) -> None:
    """Jane is provisioned, Bob has a fix that is paid and one that was declined, Eve one over what Teams includes, paid
    by an invoice and given back in part; John's signup waits."""
    configure(TEAMS_INCLUDED_FIXES="1")
    sign_up(web)
    drain()
    bob, eve = money.customer("payg", "pm_card_visa"), money.teams()
    money.deploy(bob, 1)
    money.deploy(eve, 1)
    money.deploy(eve, 2)
    drain()
    sql("UPDATE customers SET default_payment_method = NULL WHERE id = %(id)s", id=bob.id)
    money.deploy(bob, 2)
    drain()
    give_back(eve)
    sign_up(web, email="john@example.com")


def give_back(of: money.Customer) -> None:
    """A dollar of an invoice of all that is pending."""
    api, card = client().v1, money.give_card(of, "pm_card_visa")
    made = api.invoices.create({"customer": of.stripe_id, "pending_invoice_items_behavior": "include"}).id
    api.invoices.pay(made, {"payment_method": card})
    [payment] = api.invoice_payments.list({"invoice": made}).to_dict()["data"]
    intent = payment["payment"]["payment_intent"]
    api.refunds.create({"payment_intent": intent, "amount": 100})
    with transaction() as db:
        enqueue(db, SyncInvoicePayment(customer_id=of.id, payment_intent=intent, occasion="test"))
    drain()


SUBJECTS = {"job", "signup", "key", "customer", "api_key", "fix", "phase_result", "charge", "invoice", "invoice_item"}


def report() -> dict[str, Any]:
    result = CliRunner().invoke(cli, ["audit", "--stripe", "--json"])
    found = json.loads(result.stdout)
    assert found.keys() == {"ok", "checked", "findings"}
    assert result.exit_code == (0 if found["ok"] else 1)
    return dict(found)


def test_a_sound_system_is_clean_and_every_rule_has_looked_at_something() -> None:
    found = report()
    assert (found["ok"], found["findings"]) == (True, [])
    assert all(count > 0 for count in found["checked"].values()), found["checked"]
    assert found["checked"].keys() == {rule for rule, _ in BREACHES.values()}
    result = CliRunner().invoke(cli, ["audit"])
    assert result.exit_code == 0
    assert "clean" in result.stdout


@pytest.mark.parametrize(("rule", "breach"), BREACHES.values(), ids=BREACHES)
def test_the_audit_finds(rule: str, breach: tuple[str, ...]) -> None:
    for statement in breach:
        sql(statement)
    found = report()
    assert not found["ok"]
    of_this_rule = [finding for finding in found["findings"] if finding["rule"] == rule]
    assert of_this_rule, found["findings"]
    for finding in of_this_rule:
        assert finding.keys() == {"rule", "subject", "detail"}
        assert finding["subject"].partition(":")[0] in SUBJECTS
        assert finding["detail"]
    assert "@" not in json.dumps(found)


@pytest.mark.parametrize(
    ("breach", "job"),
    [
        ("a customer without a Stripe customer, whose job is dead", "create_stripe_customer"),
        ("a failed charge that nobody will try again", "charge_fix"),
        ("overage that Stripe was not told of", "sync_overage"),
    ],
)
def test_a_finding_that_a_requeue_mends_says_which(breach: str, job: str) -> None:
    rule, statements = BREACHES[breach]
    for statement in statements:
        sql(statement)
    found = [finding["detail"] for finding in audit(with_stripe=False)["findings"] if finding["rule"] == rule]
    assert found
    for detail in found:
        [listing, requeue] = re.findall("`tallyhook ([^`]*)`", detail)
        assert requeue == "jobs requeue ID"
        assert listing.endswith(f" --name {job}")
        assert CliRunner().invoke(cli, listing.split()).exit_code == 0


def test_the_audit_finds_two_stripe_customers_of_one_of_ours() -> None:
    customer = one("SELECT id FROM customers WHERE email = 'jane@example.com'")
    client().v1.customers.create({"metadata": {"customer_id": str(customer)}})
    [finding] = report()["findings"]
    assert (finding["rule"], finding["subject"]) == ("stripe_customers_agree", f"customer:{customer}")
    assert "2" in finding["detail"]


def test_the_audit_finds_a_fix_that_was_charged_twice(stripe: StripeSandbox) -> None:
    [paid] = [i for i in stripe.objects("payment_intent") if i["amount_received"] and "fix" in i["metadata"]]
    again = {name: paid[name] for name in ("amount", "currency", "customer", "metadata", "payment_method")}
    client().v1.payment_intents.create({**again, "confirm": True, "off_session": True})
    [finding] = report()["findings"]
    assert (finding["rule"], finding["subject"]) == ("stripe_charges_agree", f"fix:{paid['metadata']['fix_id']}")
    assert "1500" in finding["detail"]


def test_what_others_have_in_the_same_stripe_account_is_none_of_our_business() -> None:
    theirs = client().v1.customers.create({"email": "somebody@example.com"})
    client().v1.customers.create({"metadata": {"order": "7"}})
    client().v1.payment_intents.create({"amount": 700, "currency": "usd", "customer": theirs.id})
    client().v1.invoice_items.create({"amount": 700, "currency": "usd", "customer": theirs.id})
    assert report()["findings"] == []


def test_a_paused_queue_and_a_job_for_later_are_reasons_to_wait() -> None:
    sql("UPDATE jobs SET run_at = clock_timestamp() + interval '1 day' WHERE name = 'create_customer'")
    assert report()["ok"]
    sql("UPDATE jobs SET run_at = clock_timestamp() - interval '1 day' WHERE name = 'create_customer'")
    sql("INSERT INTO queue_pauses (queue) VALUES ('provisioning')")
    assert report()["ok"]


def test_the_audit_without_stripe_asks_stripe_nothing(stripe: StripeSandbox) -> None:
    stripe.clear_requests()
    assert audit(with_stripe=False)["ok"]
    assert stripe.requests() == []
