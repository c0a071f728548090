"""Refunds and disputes, of charges and of invoices."""

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import Connection, and_, select

from app.billing.comparisons.comparison import NOTHING, Comparison, Difference, Repair
from app.billing.tables import charge_entries, charges, disputes, invoice_entries, invoice_payments, invoices
from app.contracts.webhooks import SyncCharge, SyncInvoicePayment
from app.stripe import history
from app.stripe.history import Page


def _none_expected(_db: Connection, _since: datetime) -> dict[str, Difference]:
    return {}


def _paid_by(db: Connection, page: Page) -> dict[str, tuple[str, Repair]]:
    """What each payment intent of the page paid here, a charge or an invoice, and what would read it again."""
    intents = [seen["payment_intent"] for seen in page if seen["payment_intent"]]
    found: dict[str, tuple[str, Repair]] = {}
    for row in db.execute(select(charges).where(charges.c.payment_intent.in_(intents))):
        about = {"customer_id": row.customer_id, "charge_id": row.id}
        found[row.payment_intent] = f"charge:{row.id}", Repair(SyncCharge, about)
    of_invoices = select(invoice_payments, invoices.c.customer_id).join(
        invoices, invoices.c.id == invoice_payments.c.invoice_id
    )
    for row in db.execute(of_invoices.where(invoice_payments.c.payment_intent.in_(intents))):
        about = {"customer_id": row.customer_id, "payment_intent": row.payment_intent}
        found[row.payment_intent] = f"invoice:{row.invoice_id}", Repair(SyncInvoicePayment, about)
    return found


def _refunds_differ(db: Connection, page: Page) -> Iterator[Difference]:
    paid = _paid_by(db, page)
    counted: dict[str, set[str]] = {}
    for entries in (charge_entries, invoice_entries):
        of_page = and_(
            entries.c.kind.in_(("refunded", "refund_failed")), entries.c.stripe_id.in_([seen["id"] for seen in page])
        )
        for entry in db.execute(select(entries.c.stripe_id, entries.c.kind).where(of_page)):
            counted.setdefault(entry.stripe_id, set()).add(entry.kind)
    for seen in page:
        subject, repair = paid.get(seen["payment_intent"], ("", None))
        kinds, failed = counted.get(seen["id"], set()), seen["status"] in ("failed", "canceled")
        if repair is not None and (("refund_failed" in kinds) != failed if kinds else not failed):
            yield Difference(
                "refund_agrees",
                subject,
                ", ".join(sorted(kinds)) or NOTHING,
                f"{seen['id']}: {seen['status']}, {seen['amount']} cents",
                repair,
            )


def _disputes_differ(db: Connection, page: Page) -> Iterator[Difference]:
    paid = _paid_by(db, page)
    query = select(disputes.c.id, disputes.c.status).where(disputes.c.id.in_([seen["id"] for seen in page]))
    known = {row.id: row.status for row in db.execute(query)}
    for seen in page:
        subject, repair = paid.get(seen["payment_intent"], ("", None))
        if repair is not None and known.get(seen["id"]) != seen["status"]:
            yield Difference(
                "dispute_agrees",
                subject,
                known.get(seen["id"], NOTHING),
                f"{seen['id']}: {seen['status']}, {seen['amount']} cents",
                repair,
            )


REFUNDS = Comparison(_none_expected, history.refunds, _refunds_differ, "refunds")
DISPUTES = Comparison(_none_expected, lambda _: history.disputes(), _disputes_differ, "disputes")
