"""The customer's invoices, as Stripe last showed them; nothing is remembered that Stripe knows better (law 10)."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.postgresql import insert as upsert

from app.billing.tables import invoice_payments, invoices
from app.contracts.billing import SendNotice
from app.ledger.enqueue import enqueue
from app.stripe.invoices import Invoice

_COLUMNS = ("id", "number", "status", "currency", "total_cents", "paid_cents", "hosted_url", "created_at")
"""What is kept of an invoice. The rest says what to do now, and is asked for anew each time."""


def keep(db: Connection, customer_id: int, seen: Sequence[Invoice]) -> None:
    """Write what the customer's invoices are now. Where a bank wants to hear the customer, they get a link, once; so
    they do where one failed that no subscription is past due for."""
    if not seen:
        return
    seen = list({invoice.id: invoice for invoice in seen}.values())  # a list that shifts has one on two pages
    rows = [{"customer_id": customer_id, **{name: getattr(invoice, name) for name in _COLUMNS}} for invoice in seen]
    paid = [{"payment_intent": intent, "invoice_id": invoice.id} for invoice in seen for intent in invoice.paid_by]
    for invoice in seen:
        if (invoice.wants_customer or invoice.failed_alone) and invoice.hosted_url:
            kind = "invoice_action_required" if invoice.wants_customer else "invoice_failed"
            values = {"amount_cents": invoice.due_cents, "url": invoice.hosted_url, "of_teams": invoice.of_teams}
            enqueue(db, SendNotice(customer_id=customer_id, kind=kind, ref=f"invoice:{invoice.id}", values=values))
    new = upsert(invoices).values(rows)
    now = {name: new.excluded[name] for name in ("number", "status", "total_cents", "paid_cents", "hosted_url")}
    db.execute(new.on_conflict_do_update(index_elements=[invoices.c.id], set_=now))
    if paid:
        db.execute(upsert(invoice_payments).values(paid).on_conflict_do_nothing())


def forget_deleted(db: Connection, customer_id: int, seen: Sequence[Invoice]) -> None:
    """Forget the customer's drafts that are not among `seen`, all that Stripe has of theirs: only a draft can be
    deleted there, and then nobody is asked to pay it."""
    listed = [invoice.id for invoice in seen]
    ours = (invoices.c.customer_id == customer_id, invoices.c.status == "draft", invoices.c.id.not_in(listed))
    db.execute(delete(invoices).where(*ours))


def any_open(db: Connection, customer_id: int) -> bool:
    """Whether an invoice of the customer's was not paid when Stripe last showed it."""
    unpaid = select(invoices.c.id).where(invoices.c.customer_id == customer_id, invoices.c.status == "open")
    return db.execute(unpaid.limit(1)).first() is not None


def owed(seen: Sequence[Invoice], subscription_id: str) -> int | None:
    """Cents that open invoices of the subscription still ask for; None if none is open."""
    of_it = [invoice for invoice in seen if invoice.subscription == subscription_id]
    still_open = [invoice.due_cents for invoice in of_it if invoice.status == "open"]
    return sum(still_open) if still_open else None
