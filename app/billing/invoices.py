"""The customer's invoices, as Stripe last showed them; nothing is remembered that Stripe knows better (law 10)."""

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import Connection, delete
from sqlalchemy.dialects.postgresql import insert as upsert

from app.billing.tables import invoice_payments, invoices
from app.contracts.billing import SendNotice
from app.ledger.enqueue import enqueue
from app.stripe.invoices import Invoice


def keep(db: Connection, customer_id: int, seen: Sequence[Invoice]) -> None:
    """Write what the customer's invoices are now. Where a bank wants to hear the customer, they get a link, once; so
    they do where one failed that no subscription is past due for."""
    if not seen:
        return
    rows = [{"customer_id": customer_id, **asdict(invoice)} for invoice in seen]
    paid = [{"payment_intent": intent, "invoice_id": row["id"]} for row in rows for intent in row.pop("paid_by")]
    for row in rows:
        wants_customer, failed_alone = row.pop("wants_customer"), row.pop("failed_alone")
        if (wants_customer or failed_alone) and row["hosted_url"]:
            values = {"amount_cents": row["total_cents"] - row["paid_cents"], "url": row["hosted_url"]}
            kind, ref = "invoice_action_required" if wants_customer else "invoice_failed", f"invoice:{row['id']}"
            enqueue(db, SendNotice(customer_id=customer_id, kind=kind, ref=ref, values=values))
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


def owed(seen: Sequence[Invoice]) -> int | None:
    """Cents that open invoices ask for; None if none is open."""
    still_open = [invoice.total_cents - invoice.paid_cents for invoice in seen if invoice.status == "open"]
    return sum(still_open) if still_open else None
