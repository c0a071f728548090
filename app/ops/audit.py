"""The audit: what must be true of the whole database, and of Stripe, whatever crashed or came twice.

Each rule is one of the invariants of interface.md ("The audit"). A rule is a query that returns what
breaks it; an empty answer is a clean one.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from app.db import transaction
from app.stripe import customers


@dataclass(frozen=True)
class Finding:
    """Something that breaks a rule: what, and why."""

    rule: str
    subject: str
    detail: str


# Each: how many were looked at, and (subject, detail) of those that break the rule.
_RULES: dict[str, tuple[str, str]] = {
    "job_has_outcome_or_reason": (
        "SELECT count(*) FROM jobs",
        """
        SELECT 'job:' || id, CASE
            WHEN state = 'running' THEN 'its lease ran out a minute ago and nobody took it back: is a relay running?'
            ELSE 'due for over ten minutes in a queue that is not paused: is a worker running?' END
        FROM jobs WHERE (state = 'running' AND lease_until < clock_timestamp() - interval '1 minute')
            OR (state IN ('queued', 'retrying') AND run_at < clock_timestamp() - interval '10 minutes'
                AND queue NOT IN (SELECT queue FROM queue_pauses)
                AND NOT (blocked AND EXISTS (SELECT FROM jobs AS first WHERE first.serialize_by = jobs.serialize_by
                    AND first.state IN ('queued', 'retrying', 'running') AND NOT first.blocked)))
        """,
    ),
    "signup_has_job": (
        "SELECT count(*) FROM signups",
        """
        SELECT 'signup:' || id, 'accepted, but the job that begins it was never there' FROM signups
        WHERE NOT EXISTS (SELECT FROM job_keys WHERE key = 'signup:' || signups.id || ':create_customer')
            AND status <> 'provisioned'
        """,
    ),
    "dedup_key_once": (
        "SELECT count(*) FROM job_keys",
        """
        SELECT 'key:' || key, count(*) || ' jobs have it' FROM jobs GROUP BY key HAVING count(*) > 1
        UNION ALL
        SELECT 'job:' || id, 'its key is not kept' FROM jobs
        WHERE NOT EXISTS (SELECT FROM job_keys WHERE job_keys.key = jobs.key AND job_keys.job_id = jobs.id)
        """,
    ),
    "customer_has_stripe_customer": (
        "SELECT count(*) FROM customers",
        """
        SELECT 'customer:' || id, 'has no Stripe customer, and no job is open that would make one'
        FROM customers WHERE stripe_customer_id IS NULL AND NOT EXISTS (
            SELECT FROM jobs WHERE jobs.customer_id = customers.id AND name = 'create_stripe_customer'
                AND state NOT IN ('succeeded', 'dead', 'cancelled'))
        """,
    ),
    "customer_has_one_first_key": (
        "SELECT count(*) FROM customers",
        """
        SELECT 'customer:' || id, 'is welcomed and has no API key from provisioning' FROM customers
        WHERE welcomed_at IS NOT NULL
            AND NOT EXISTS (SELECT FROM api_keys WHERE api_keys.customer_id = customers.id AND first)
        """,
    ),
    "no_sealed_key_after_delivery": (
        "SELECT count(*) FROM api_keys",
        """
        SELECT 'api_key:' || api_keys.id, 'is still readable although its mail was handed over'
        FROM api_keys JOIN customers ON customers.id = api_keys.customer_id
        WHERE sealed IS NOT NULL AND (welcomed_at IS NOT NULL OR NOT first)
        """,
    ),
    "signup_provisioned_is_whole": (
        "SELECT count(*) FROM signups WHERE status = 'provisioned'",
        """
        SELECT 'signup:' || signups.id, 'is provisioned, but its customer is not whole'
        FROM signups LEFT JOIN customers ON customers.id = signups.customer_id
        WHERE status = 'provisioned' AND (customers.stripe_customer_id IS NULL OR welcomed_at IS NULL)
        """,
    ),
}


def _against_stripe(ours: dict[str, str | None]) -> Iterator[tuple[str, str]]:
    """What differs between our customers (id to Stripe's id) and those in Stripe that carry an id of ours."""
    theirs: dict[str, list[str]] = {}
    for stripe_id, customer_id in customers.all_customers():
        theirs.setdefault(customer_id, []).append(stripe_id)
    for customer_id, expected in ours.items():
        found = theirs.get(customer_id, [])
        if expected is not None and expected not in found:
            yield f"customer:{customer_id}", f"{expected} is not in Stripe with this customer's id"
        if len(found) > 1:
            yield f"customer:{customer_id}", f"has {len(found)} customers in Stripe: {', '.join(found)}"
    for customer_id in sorted(theirs.keys() - ours.keys()):
        yield f"customer:{customer_id}", f"{', '.join(theirs[customer_id])} in Stripe names it; it is not ours"


def audit(*, with_stripe: bool) -> dict[str, Any]:
    """Check every rule in one snapshot; the JSON shape of `audit` (interface.md)."""
    checked: dict[str, int] = {}
    findings: list[Finding] = []
    with transaction() as db:
        db.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        db.exec_driver_sql("SET LOCAL statement_timeout = 0")
        for rule, (count, query) in _RULES.items():
            checked[rule] = db.exec_driver_sql(count).scalar_one()
            findings += [Finding(rule, subject, detail) for subject, detail in db.exec_driver_sql(query)]
        rows = db.exec_driver_sql("SELECT id, stripe_customer_id FROM customers").all()
    if with_stripe:
        rule, ours = "stripe_customers_agree", {str(customer_id): stripe_id for customer_id, stripe_id in rows}
        checked[rule] = len(ours)
        findings += [Finding(rule, subject, detail) for subject, detail in _against_stripe(ours)]
    return {"ok": not findings, "checked": checked, "findings": [asdict(finding) for finding in findings]}
