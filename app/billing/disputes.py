"""Disputes of charges: what the bank has taken from us, and what it gave back (failures.md 32).

Stripe says for each dispute what it has moved of our balance; each movement becomes one entry, whenever it is seen.
So a dispute that was opened, lost and won late adds up to what is really there.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, case, func, select
from sqlalchemy.dialects.postgresql import insert as upsert

from app.billing.charges import note, tell
from app.billing.tables import charge_entries, disputes
from app.stripe.payments import Dispute

_CLOSED = ("won", "lost", "warning_closed", "prevented")


def keep(db: Connection, charge: Row[Any], seen: Sequence[Dispute]) -> None:
    """Write what the charge's disputes are now. Of one that is still open the customer is told, once."""
    for dispute in seen:
        _write(db, charge.id, dispute)
        known = select(charge_entries.c.stripe_id).where(charge_entries.c.dispute_id == dispute.id)
        noted = set(db.execute(known).scalars())
        for movement, cents in dispute.moved:
            if cents and movement not in noted:
                kind = "dispute_withdrawn" if cents < 0 else "dispute_reinstated"
                note(db, charge.id, kind, cents, stripe_id=movement, dispute_id=dispute.id)
        if dispute.status not in _CLOSED:
            about = {"amount_cents": dispute.amount_cents, "reason": dispute.reason}
            tell(db, charge, "dispute_opened", f"dispute:{dispute.id}", **about)


def _write(db: Connection, charge_id: int, seen: Dispute) -> None:
    new = upsert(disputes).values(
        id=seen.id,
        charge_id=charge_id,
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
