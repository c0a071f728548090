"""Disputes of charges and invoices: what the bank has taken from us, and what it gave back (failures.md 32).

Stripe says for each dispute what it has moved of our balance; each movement becomes one entry, whenever it is seen.
So a dispute that was opened, lost and won late adds up to what is really there.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table, case, func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert

from app.billing.tables import disputes
from app.stripe.payments import Dispute

_CLOSED = ("won", "lost", "warning_closed", "prevented")


def keep(db: Connection, seen: Sequence[Dispute], entries: Table, **whose: Any) -> list[Dispute]:
    """Write what the disputes of a charge (`charge_id`) or an invoice (`invoice_id`) are now, and what they have moved
    among its `entries`. Returns those that are open: the customer is to be told, once."""
    for dispute in seen:
        _write(db, whose, dispute)
        known = select(entries.c.stripe_id).where(entries.c.dispute_id == dispute.id)
        noted = set(db.execute(known).scalars())
        for movement, cents in dispute.moved:
            if cents and movement not in noted:
                kind = "dispute_withdrawn" if cents < 0 else "dispute_reinstated"
                moved = {"kind": kind, "amount_cents": cents, "stripe_id": movement, "dispute_id": dispute.id}
                db.execute(insert(entries).values({**whose, **moved}))
    return [dispute for dispute in seen if dispute.status not in _CLOSED]


def _write(db: Connection, whose: dict[str, Any], seen: Dispute) -> None:
    new = upsert(disputes).values(
        **whose,
        id=seen.id,
        status=seen.status,
        amount_cents=seen.amount_cents,
        reason=seen.reason,
        opened_at=seen.opened_at,
        closed_at=func.clock_timestamp() if seen.status in _CLOSED else None,
    )
    first = func.coalesce(disputes.c.closed_at, new.excluded.closed_at)
    now = {
        "status": new.excluded.status,
        "amount_cents": new.excluded.amount_cents,
        "reason": new.excluded.reason,
        "closed_at": case((new.excluded.closed_at.is_not(None), first)),
    }
    db.execute(new.on_conflict_do_update(index_elements=[disputes.c.id], set_=now))
