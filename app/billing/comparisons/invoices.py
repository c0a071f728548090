"""Invoices of Teams."""

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import Connection, select

from app.billing.comparisons.comparison import NOTHING, Comparison, Difference, Repair, owners_of
from app.billing.tables import invoices
from app.contracts.webhooks import SyncInvoices
from app.stripe import history
from app.stripe.history import Page


def _invoices_expected(db: Connection, _since: datetime) -> dict[str, Difference]:
    """Those that we know as open: one that Stripe does not list among the new and the open ones has moved on."""
    there = select(invoices).where(invoices.c.status.in_(("draft", "open")))
    return {
        row.id: Difference(
            "invoice_agrees",
            f"invoice:{row.id}",
            row.status,
            "no longer open",
            Repair(SyncInvoices, {"customer_id": row.customer_id}),
        )
        for row in db.execute(there)
    }


def _invoices_differ(db: Connection, page: Page) -> Iterator[Difference]:
    owners = owners_of(db, (seen["customer"] for seen in page))
    query = select(invoices).where(invoices.c.id.in_([seen["id"] for seen in page]))
    known = {row.id: row for row in db.execute(query)}
    for seen in page:
        owner, row = owners.get(seen["customer"]), known.get(seen["id"])
        if owner is None:
            continue
        theirs = (seen["status"] or "draft", seen["total"], seen["amount_paid"])
        if row is None or (row.status, row.total_cents, row.paid_cents) != theirs:
            yield Difference(
                "invoice_agrees",
                f"invoice:{seen['id']}",
                NOTHING if row is None else _billed(row.status, row.total_cents, row.paid_cents),
                _billed(*theirs),
                Repair(SyncInvoices, {"customer_id": owner.id}),
            )


def _billed(status: str, total: int, paid: int) -> str:
    return f"{status}, {paid} of {total} cents paid"


INVOICES = Comparison(_invoices_expected, history.invoices, _invoices_differ, "invoices")
