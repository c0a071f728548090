"""What was given back of an invoice of Teams, or disputed: an append-only entry for whatever happens to its money after
it was paid (law 11, failures.md 32). It is done in Stripe's dashboard or by a bank; here it is read."""

from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from app.billing import disputes
from app.billing.tables import invoice_entries
from app.contracts.billing import SendNotice
from app.ledger.enqueue import enqueue
from app.stripe.invoices import Invoice
from app.stripe.payments import Payment


def keep(db: Connection, customer_id: int, invoice: Invoice, payment: Payment) -> None:
    """Write what has become of the payment of an invoice, which is known here. The customer is told of each refund, of
    one that failed, and of each dispute that is open, once. A refund that failed has given nothing back: the two
    entries add up to that."""
    for refund in payment.refunds:
        new = _note(db, invoice.id, "refunded", -refund.cents, refund.id)
        if refund.failed:
            new = _note(db, invoice.id, "refund_failed", refund.cents, refund.id)
        if new:
            kind = "invoice_refund_failed" if refund.failed else "invoice_refunded"
            about = {"amount_cents": refund.cents, "number": invoice.number}
            ref = f"invoice:{invoice.id}:refund:{refund.id}"
            enqueue(db, SendNotice(customer_id=customer_id, kind=kind, ref=ref, values=about))
    for dispute in disputes.keep(db, payment.disputes, invoice_entries, invoice_id=invoice.id):
        about = {"amount_cents": dispute.amount_cents, "number": invoice.number, "reason": dispute.reason}
        ref = f"invoice:{invoice.id}:dispute:{dispute.id}"
        enqueue(db, SendNotice(customer_id=customer_id, kind="invoice_disputed", ref=ref, values=about))


def _note(db: Connection, invoice_id: str, kind: str, amount_cents: int, stripe_id: str) -> bool:
    """An entry: what was given back is negative. Returns whether it was not known."""
    new = insert(invoice_entries).values(
        invoice_id=invoice_id, kind=kind, amount_cents=amount_cents, stripe_id=stripe_id
    )
    return db.execute(new.on_conflict_do_nothing().returning(invoice_entries.c.id)).first() is not None
