"""The audit finds every breach of an invariant, and none in a sound system: each rule broken by hand, in SQL."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from typer.testing import CliRunner

from app.ops.audit import audit
from app.ops.cli import cli
from app.sandbox.stripe import StripeSandbox
from tests.system.scene import Mailbox, drain, one, sign_up, sql

JOB = "SELECT id FROM jobs WHERE name = 'create_stripe_customer'"

# Each: the rule, and what breaks it in a database with one customer provisioned and one signup accepted.
BREACHES: dict[str, tuple[str, tuple[str, ...]]] = {
    "a job due for ever": (
        "job_has_outcome_or_reason",
        ("UPDATE jobs SET run_at = clock_timestamp() - interval '11 minutes' WHERE state = 'queued'",),
    ),
    "a job whose lease ran out for ever": (
        "job_has_outcome_or_reason",
        (
            "UPDATE jobs SET state = 'running', attempt = 1, started_at = clock_timestamp(), lease_owner = 'gone',"
            " lease_until = clock_timestamp() - interval '2 minutes' WHERE state = 'queued'",
        ),
    ),
    "a job that waits for its turn behind nobody": (
        "job_has_outcome_or_reason",
        (
            "UPDATE jobs SET run_at = clock_timestamp() - interval '11 minutes', blocked = true,"
            " serialize_by = 'customer:1' WHERE state = 'queued'",
        ),
    ),
    "a signup whose job was never there": (
        "signup_has_job",
        ("DELETE FROM jobs WHERE state = 'queued'", "DELETE FROM job_keys WHERE job_id NOT IN (SELECT id FROM jobs)"),
    ),
    "two jobs with one key": (
        "dedup_key_once",
        (
            "INSERT INTO jobs (id, name, queue, key, payload, max_attempts)"
            " SELECT gen_random_uuid(), name, queue, key, payload, max_attempts FROM jobs WHERE state = 'queued'",
        ),
    ),
    "a job whose key is not kept": (
        "dedup_key_once",
        ("DELETE FROM job_keys WHERE job_id IN (SELECT id FROM jobs WHERE state = 'queued')",),
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
        ("UPDATE customers SET stripe_customer_id = 'cus_nobody'",),
    ),
    "a customer that only Stripe has": ("stripe_customers_agree", ("TRUNCATE customers CASCADE",)),
}


@pytest.fixture(autouse=True)
def a_sound_system(web: FlaskClient, mailbox: Mailbox) -> None:
    sign_up(web)
    drain()
    sign_up(web, email="john@example.com")


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
        assert finding["subject"].partition(":")[0] in ("job", "signup", "key", "customer", "api_key")
        assert finding["detail"]
    assert "@" not in json.dumps(found)


def test_the_audit_finds_two_stripe_customers_of_one_of_ours(stripe: StripeSandbox) -> None:
    import stripe as sdk

    customer = one("SELECT id FROM customers")
    client = sdk.StripeClient("sk_test_x", base_addresses={"api": stripe.url})
    client.v1.customers.create({"metadata": {"customer_id": str(customer)}})
    [finding] = report()["findings"]
    assert (finding["rule"], finding["subject"]) == ("stripe_customers_agree", f"customer:{customer}")
    assert "2" in finding["detail"]


def test_customers_of_others_in_the_same_stripe_account_are_none_of_our_business(stripe: StripeSandbox) -> None:
    import stripe as sdk

    client = sdk.StripeClient("sk_test_x", base_addresses={"api": stripe.url})
    client.v1.customers.create({"email": "somebody@example.com"})
    client.v1.customers.create({"metadata": {"order": "7"}})
    assert report()["findings"] == []


def test_a_paused_queue_and_a_job_for_later_are_reasons_to_wait() -> None:
    sql("UPDATE jobs SET run_at = clock_timestamp() + interval '1 day' WHERE state = 'queued'")
    assert report()["ok"]
    sql("UPDATE jobs SET run_at = clock_timestamp() - interval '1 day' WHERE state = 'queued'")
    sql("INSERT INTO queue_pauses (queue) VALUES ('provisioning')")
    assert report()["ok"]


def test_the_audit_without_stripe_asks_stripe_nothing(stripe: StripeSandbox) -> None:
    stripe.clear_requests()
    assert audit(with_stripe=False)["ok"]
    assert stripe.requests() == []
