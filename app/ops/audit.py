"""The audit: what must be true of the whole database, and of Stripe, whatever crashed or came twice.

Each rule is one of the invariants of interface.md ("The audit"). A rule is a query that returns what
breaks it; an empty answer is a clean one.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from app.db import transaction
from app.ledger.errors import JobError
from app.stripe import customers, overage, payments
from app.stripe import invoices as bills


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
            || ': `tallyhook jobs list --customer ' || id || ' --name create_stripe_customer`,'
            || ' then `tallyhook jobs requeue ID`'
        FROM customers WHERE stripe_customer_id IS NULL AND NOT EXISTS (
            SELECT FROM jobs WHERE jobs.customer_id = customers.id AND name = 'create_stripe_customer'
                AND state NOT IN ('succeeded', 'dead', 'cancelled'))
        """,
    ),
    "fix_counted_once": (
        "SELECT count(*) FROM fixes",
        """
        SELECT 'fix:' || fixes.id, 'has ' || count(e.id) || ' usage entries, not ' || (outcome <> 'over_limit')::int
        FROM fixes LEFT JOIN usage_entries AS e ON e.fix_id = fixes.id AND e.fixes = 1
        GROUP BY fixes.id HAVING count(e.id) <> (outcome <> 'over_limit')::int
        UNION ALL
        SELECT 'fix:' || fixes.id, 'is known by nothing: the same fix would be counted again' FROM fixes
        WHERE NOT EXISTS (SELECT FROM fix_identities AS i WHERE i.fix_id = fixes.id)
        """,
    ),
    "deployed_fix_is_tracked": (
        "SELECT count(*) FROM phase_results WHERE phase = 'mitigation' AND status = 'success'",
        """
        SELECT 'phase_result:' || id, 'a deployed fix was accepted, and no job was ever there to count it'
        FROM phase_results WHERE phase = 'mitigation' AND status = 'success'
            AND NOT EXISTS (SELECT FROM fixes WHERE phase_result_id = phase_results.id)
            AND NOT EXISTS (SELECT FROM job_keys WHERE key = 'track_fix:' || phase_results.id)
            AND received_at > clock_timestamp() - interval '80 days'
        """,
    ),
    "usage_is_the_sum_of_its_fixes": (
        "SELECT count(*) FROM (SELECT FROM usage_entries GROUP BY customer_id, plan, period_start) AS periods",
        """
        SELECT 'customer:' || customer_id, plan || ' from ' || period_start || ': ' || used || ' used, '
            || counted || ' fixes counted'
        FROM (SELECT customer_id, plan, period_start, sum(e.fixes) AS used,
                  count(*) FILTER (WHERE fix_id IS NOT NULL) AS counted
              FROM usage_entries AS e GROUP BY customer_id, plan, period_start) AS periods
        WHERE used <> counted
        """,
    ),
    "fix_of_payg_has_one_charge": (
        "SELECT count(*) FROM charges",
        """
        SELECT 'fix:' || fixes.id, CASE WHEN charges.id IS NULL THEN 'is to be charged, and has no charge'
            ELSE 'costs ' || fixes.amount_cents || ' cents, its charge is of ' || charges.amount_cents END
        FROM fixes LEFT JOIN charges ON charges.fix_id = fixes.id
        WHERE outcome = 'charge' AND charges.amount_cents IS DISTINCT FROM fixes.amount_cents
        UNION ALL
        SELECT 'charge:' || charges.id, 'is for a fix that costs nothing'
        FROM charges JOIN fixes ON fixes.id = charges.fix_id WHERE outcome <> 'charge'
        """,
    ),
    "charge_entries_add_up": (
        "SELECT count(*) FROM charge_entries",
        """
        SELECT 'charge:' || charges.id, 'is ' || state || ', its entries say ' || taken || ' cents taken, '
            || back || ' refunded and ' || disputed || ' withdrawn for disputes'
        FROM charges JOIN LATERAL (
            SELECT coalesce(sum(amount_cents) FILTER (WHERE kind = 'succeeded'), 0) AS taken,
                coalesce(-sum(amount_cents) FILTER (WHERE kind IN ('refunded', 'refund_failed')), 0) AS back,
                coalesce(-sum(amount_cents) FILTER (WHERE dispute_id IS NOT NULL), 0) AS disputed
            FROM charge_entries WHERE charge_id = charges.id
        ) AS entries ON true
        WHERE taken <> CASE WHEN state = 'succeeded' THEN charges.amount_cents ELSE 0 END
            OR back NOT BETWEEN 0 AND taken OR disputed NOT BETWEEN 0 AND taken
        """,
    ),
    "invoice_entries_add_up": (
        "SELECT count(*) FROM invoice_entries",
        """
        SELECT 'invoice:' || invoices.id, 'was paid ' || paid_cents || ' cents, its entries say ' || back
            || ' refunded and ' || disputed || ' withdrawn for disputes'
        FROM invoices JOIN LATERAL (
            SELECT coalesce(-sum(amount_cents) FILTER (WHERE dispute_id IS NULL), 0) AS back,
                coalesce(-sum(amount_cents) FILTER (WHERE dispute_id IS NOT NULL), 0) AS disputed
            FROM invoice_entries WHERE invoice_id = invoices.id
        ) AS entries ON true
        WHERE back NOT BETWEEN 0 AND paid_cents OR disputed NOT BETWEEN 0 AND paid_cents
        """,
    ),
    "charge_is_final_or_waits": (
        "SELECT count(*) FROM charges WHERE state NOT IN ('succeeded', 'uncollectible', 'written_off')",
        """
        SELECT 'charge:' || charges.id, 'is ' || state || ', and no job is open that would try it'
            || ': `tallyhook jobs list --customer ' || customer_id || ' --name charge_fix`,'
            || ' then `tallyhook jobs requeue ID`'
        FROM charges WHERE state NOT IN ('succeeded', 'uncollectible', 'written_off') AND NOT EXISTS (
            SELECT FROM jobs WHERE jobs.customer_id = charges.customer_id AND name = 'charge_fix'
                AND (payload ->> 'charge_id')::bigint = charges.id AND state NOT IN ('succeeded', 'cancelled'))
        """,
    ),
    "overage_is_told": (
        "SELECT count(*) FROM (SELECT FROM fixes WHERE outcome = 'overage' GROUP BY customer_id, period_start) AS p",
        """
        SELECT 'customer:' || customer_id, 'period from ' || period_start || ': ' || cents || ' cents of overage, '
            || coalesce(told, 0) || ' in Stripe, and no job is open that would tell it'
            || ': `tallyhook jobs list --customer ' || customer_id || ' --name sync_overage`,'
            || ' then `tallyhook jobs requeue ID`'
        FROM (SELECT customer_id, period_start, sum(amount_cents) AS cents FROM fixes WHERE outcome = 'overage'
              GROUP BY customer_id, period_start) AS periods
        LEFT JOIN (SELECT customer_id, period_start, sum(amount_cents) AS told FROM (
                SELECT DISTINCT ON (invoice_item) * FROM overage_entries ORDER BY invoice_item, id DESC) AS newest
            GROUP BY customer_id, period_start) AS items USING (customer_id, period_start)
        WHERE cents IS DISTINCT FROM told AND NOT EXISTS (
            SELECT FROM jobs WHERE jobs.customer_id = periods.customer_id AND name = 'sync_overage'
                AND state NOT IN ('succeeded', 'dead', 'cancelled'))
            AND NOT EXISTS (SELECT FROM customers WHERE id = periods.customer_id AND stripe_deleted_at IS NOT NULL)
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


Rows = Sequence[tuple[Any, ...]]

_CUSTOMERS = "SELECT id::text, stripe_customer_id, stripe_deleted_at FROM customers"
_CHARGES = """
SELECT payment_intent, charges.amount_cents, currency, state, ref,
    coalesce((SELECT -sum(amount_cents) FROM charge_entries WHERE charge_id = charges.id AND kind LIKE 'refund%%'), 0),
    coalesce((SELECT -sum(amount_cents) FROM charge_entries WHERE charge_id = charges.id AND dispute_id IS NOT NULL), 0)
FROM charges JOIN fixes ON fixes.id = charges.fix_id
"""
_INVOICES = """
SELECT invoices.id, paid_cents,
    coalesce(entries.refunded, 0), coalesce(entries.withdrawn, 0), stripe_customer_id
FROM customers
LEFT JOIN invoices ON customer_id = customers.id AND status = 'paid'
LEFT JOIN (
    SELECT invoice_id, -sum(amount_cents) FILTER (WHERE dispute_id IS NULL) AS refunded,
        -sum(amount_cents) FILTER (WHERE dispute_id IS NOT NULL) AS withdrawn
    FROM invoice_entries GROUP BY invoice_id
) AS entries ON entries.invoice_id = invoices.id
"""
_ITEMS = """
SELECT DISTINCT ON (invoice_item) invoice_item, amount_cents FROM overage_entries ORDER BY invoice_item, id DESC
"""


def _customers_agree(rows: Rows) -> Iterator[tuple[str, str]]:
    """What differs between our customers and those in Stripe that carry an id of ours."""
    ours = {customer_id: None if deleted else stripe_id for customer_id, stripe_id, deleted in rows}
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


def _charges_agree(rows: Rows) -> Iterator[tuple[str, str]]:
    """What differs between our charges and Stripe's payment intents, refunds and disputes, to the cent."""
    ours = {row[0]: row for row in rows if row[0] is not None}
    known = {row[4] for row in rows}
    back, disputed = _taken_back()
    seen = set()
    for intent in payments.all_intents():
        row = ours.get(intent["id"])
        seen.add(intent["id"])
        subject = f"fix:{intent['metadata']['fix_id']}"
        if row is None:
            if intent["amount_received"] or intent["metadata"]["fix"] not in known:
                yield subject, f"{intent['id']} in Stripe has taken {intent['amount_received']} cents; it is not ours"
            continue
        _, cents, currency, state, _, refunded, withdrawn = row
        if (intent["amount"], intent["currency"]) != (cents, currency):
            yield subject, f"{intent['id']} is of {intent['amount']} {intent['currency']}, its charge of {cents}"
        expected = cents if state == "succeeded" else 0
        if intent["amount_received"] != expected:
            yield subject, f"{intent['id']} has taken {intent['amount_received']} cents, its charge {expected}"
        if back[intent["id"]] != refunded:
            yield subject, f"{back[intent['id']]} cents of {intent['id']} are refunded in Stripe, {refunded} here"
        if disputed[intent["id"]] != withdrawn:
            was = disputed[intent["id"]]
            yield subject, f"{was} cents of {intent['id']} are withdrawn for disputes in Stripe, {withdrawn} here"
    for intent_id in sorted(ours.keys() - seen):
        yield f"fix:{ours[intent_id][4]}", f"{intent_id} is not in Stripe"


def _invoices_agree(rows: Rows) -> Iterator[tuple[str, str]]:
    """What differs between the paid invoices of our customers here and in Stripe, to the cent."""
    ours = {row[0]: row for row in rows if row[0] is not None}
    mine = {row[4] for row in rows}
    back, disputed = _taken_back()
    for stripe_customer, invoice in bills.all_of_customers():
        if stripe_customer not in mine:
            continue
        _, paid, refunded, withdrawn, _ = ours.pop(invoice.id, (invoice.id, 0, 0, 0, ""))
        found = invoice.paid_cents, *(sum(taken[intent] for intent in invoice.paid_by) for taken in (back, disputed))
        known = paid, refunded, withdrawn
        if found != known:
            yield f"invoice:{invoice.id}", f"{_invoice_of(*found)} in Stripe, {_invoice_of(*known)} here"
    for invoice_id, (_, paid, *_) in ours.items():
        yield f"invoice:{invoice_id}", f"of {paid} cents is not paid in Stripe"


def _invoice_of(paid: int, refunded: int, withdrawn: int) -> str:
    return f"{paid} cents paid, {refunded} refunded, {withdrawn} withdrawn for disputes"


def _taken_back() -> tuple[Counter[str | None], Counter[str | None]]:
    """Cents in Stripe by payment intent: refunded, and withdrawn for disputes."""
    back: Counter[str | None] = Counter()
    for refund in payments.all_refunds():
        if refund["status"] not in ("failed", "canceled"):
            back[refund["payment_intent"]] += refund["amount"]
    disputed: Counter[str | None] = Counter()
    for intent_id, dispute in payments.all_disputes():
        disputed[intent_id] -= sum(cents for _, cents in dispute.moved)
    return back, disputed


def _overage_agrees(rows: Rows) -> Iterator[tuple[str, str]]:
    """What differs between the overage that we have told and Stripe's invoice items."""
    ours = {row[0]: row[1] for row in rows}
    for item in overage.all_items():
        told = ours.pop(item["id"], None)
        if told != item["amount"]:
            yield f"invoice_item:{item['id']}", f"is {item['amount']} cents in Stripe, {told or 0} here"
    for item_id, cents in ours.items():
        yield f"invoice_item:{item_id}", f"of {cents} cents is not in Stripe"


_AGAINST_STRIPE: dict[str, tuple[str, Callable[[Rows], Iterator[tuple[str, str]]]]] = {
    "stripe_customers_agree": (_CUSTOMERS, _customers_agree),
    "stripe_charges_agree": (_CHARGES, _charges_agree),
    "stripe_invoices_agree": (_INVOICES, _invoices_agree),
    "stripe_overage_agrees": (_ITEMS, _overage_agrees),
}
"""Each: what we have, read before Stripe is asked, and what compares it. First, what it is called there."""


def audit(*, with_stripe: bool) -> dict[str, Any]:
    """Check every rule in one snapshot; the JSON shape of `audit` (interface.md).

    Where Stripe cannot be asked, `error` says why, and it is a finding that Stripe was not compared.
    """
    checked: dict[str, int] = {}
    findings: list[Finding] = []
    with transaction() as db:
        db.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        db.exec_driver_sql("SET LOCAL statement_timeout = 0")
        for rule, (count, query) in _RULES.items():
            checked[rule] = db.exec_driver_sql(count).scalar_one()
            findings += [Finding(rule, subject, detail) for subject, detail in db.exec_driver_sql(query)]
        ours = {rule: [tuple(row) for row in db.exec_driver_sql(query)] for rule, (query, _) in _AGAINST_STRIPE.items()}
    without: dict[str, str] = {}
    for rule, rows in ours.items() if with_stripe else ():
        try:
            findings += [Finding(rule, subject, detail) for subject, detail in _AGAINST_STRIPE[rule][1](rows)]
        except JobError as error:  # Stripe is away, or refuses our key: what was found here is told all the same
            findings.append(Finding(rule, "stripe", f"not compared, nor what comes after it: {error}"))
            without = {"error": str(error)}
            break
        checked[rule] = sum(row[0] is not None for row in rows)
    return {"ok": not findings, "checked": checked, "findings": [asdict(finding) for finding in findings], **without}
