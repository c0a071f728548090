"""What a customer was billed: the invoices of Teams and the charges of payg, from our own tables."""

from typing import Any

from sqlalchemy import Connection, text

from app.contracts.http import Bill

_BILLS = """
WITH bills AS (
    SELECT 'invoice' AS type, id, status, total_cents AS amount_cents, paid_cents, currency, created_at, hosted_url,
           number, NULL::bigint AS charge_id
    FROM invoices WHERE customer_id = :customer_id
    UNION ALL
    SELECT 'charge', 'charge_' || id, state, amount_cents, 0, currency, created_at, NULL, NULL, id
    FROM charges WHERE customer_id = :customer_id
)
"""

# What was paid of a charge and given back is looked up for the rows of the page alone.
_PAGE = f"""
{_BILLS}, page AS (
    SELECT * FROM bills
    WHERE CAST(:before AS text) IS NULL OR (created_at, id) < (SELECT created_at, id FROM bills WHERE id = :before)
    ORDER BY created_at DESC, id DESC LIMIT :limit
)
SELECT page.type, page.id, page.status, page.amount_cents, page.paid_cents + money.paid AS paid_cents,
       money.refunded AS refunded_cents, page.currency, page.created_at, page.hosted_url, page.number,
       result.repo, result.issue_number, result.commit_sha
FROM page
LEFT JOIN charges ON charges.id = page.charge_id
LEFT JOIN fixes ON fixes.id = charges.fix_id
LEFT JOIN phase_results AS result ON result.id = fixes.phase_result_id
CROSS JOIN LATERAL (
    SELECT coalesce(sum(amount_cents) FILTER (WHERE kind = 'succeeded'), 0) AS paid,
           coalesce(-sum(amount_cents) FILTER (WHERE kind IN ('refunded', 'refund_failed')), 0) AS refunded
    FROM (
        SELECT kind, amount_cents FROM charge_entries WHERE charge_entries.charge_id = page.charge_id
        UNION ALL
        SELECT kind, amount_cents FROM invoice_entries WHERE invoice_entries.invoice_id = page.id
    ) AS entries
) AS money
ORDER BY page.created_at DESC, page.id DESC
"""  # noqa: S608  (put together from constants)

_HAS = f"{_BILLS} SELECT EXISTS (SELECT FROM bills WHERE id = :before)"  # noqa: S608


class NoSuchBill(Exception):
    """The customer has no invoice or charge with that id."""

    def __init__(self, bill_id: str) -> None:
        self.bill_id = bill_id
        super().__init__(f"there is no invoice or charge {bill_id} of this customer")


def bills(db: Connection, customer_id: int, *, limit: int, before: str | None = None) -> list[Bill]:
    """The customer's invoices and charges, the newest first, `limit` at most.

    What was paid for a charge, and what was refunded of a charge or an invoice, is the sum of its entries.

    Args:
        before: the id of an invoice (`in_…`) or charge (`charge_…`): only older ones.

    Raises:
        NoSuchBill: `before` is not one of this customer's.
    """
    wanted = {"customer_id": customer_id, "before": before}
    if before is not None and not db.execute(text(_HAS), wanted).scalar_one():
        raise NoSuchBill(before)
    rows = db.execute(text(_PAGE), {**wanted, "limit": limit}).mappings()
    return [_bill(dict(row)) for row in rows]


def _bill(row: dict[str, Any]) -> Bill:
    if row["type"] == "charge":
        description = f"Fix of {row['repo']}#{row['issue_number']}"
        return Bill.model_validate({**row, "description": description, "fix": row})
    description = f"Invoice {row['number']}" if row["number"] else "Invoice, not numbered yet"
    return Bill.model_validate({**row, "description": description, "fix": None})
