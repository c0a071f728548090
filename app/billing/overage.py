"""What a Teams period's overage is, and what Stripe has been told of it (stripe.md, "Teams")."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from app.billing.charges import CURRENCY
from app.billing.tables import fixes, overage_entries
from app.contracts.billing import SyncOverage
from app.ledger.enqueue import enqueue
from app.ledger.errors import Permanent
from app.ledger.states import FINISHED
from app.ledger.tables import jobs
from app.stripe import calls
from app.stripe.overage import Item, change_parameters, item_parameters

_AGAIN_AFTER = timedelta(seconds=15)
"""How long after Stripe was told of a period's overage it is told again: fixes that trickle in share one telling."""


@dataclass(frozen=True)
class Told:
    """What one invoice item in Stripe has, as we last set it, and when that was written down."""

    item: str
    fixes: int
    amount_cents: int
    at: datetime


@dataclass(frozen=True)
class Overage:
    """A period's fixes over the included ones, when the first of them was counted, and what each of its invoice items
    has of them, the newest last."""

    fixes: int
    amount_cents: int
    since: datetime | None
    told: list[Told]

    @property
    def untold(self) -> tuple[int, int]:
        """Fixes and cents that Stripe does not know yet."""
        return (
            self.fixes - sum(told.fixes for told in self.told),
            self.amount_cents - sum(told.amount_cents for told in self.told),
        )


def read(
    db: Connection, customer_id: int, period_start: datetime, *, accepted_before: datetime | None = None
) -> Overage:
    """The overage of the customer's period; of fixes that were accepted before that moment, if one is given."""
    query = select(func.count(), func.coalesce(func.sum(fixes.c.amount_cents), 0), func.min(fixes.c.created_at)).where(
        fixes.c.customer_id == customer_id, fixes.c.period_start == period_start, fixes.c.outcome == "overage"
    )
    if accepted_before is not None:
        query = query.where(fixes.c.accepted_at < accepted_before)
    counted, cents, since = db.execute(query).one()
    entries = db.execute(
        select(overage_entries)
        .where(overage_entries.c.customer_id == customer_id, overage_entries.c.period_start == period_start)
        .order_by(overage_entries.c.id)
    )
    told = {row.invoice_item: Told(row.invoice_item, row.fixes, row.amount_cents, row.at) for row in entries}
    return Overage(counted, int(cents), since, list(told.values()))


def tell_soon(db: Connection, customer_id: int, period_start: datetime, fix_id: int) -> None:
    """Enqueue a job that tells Stripe of the fix, which has just been counted: at once if Stripe was told nothing of
    this period lately, else together with what comes meanwhile. The key is what Stripe has been told so far, so that
    all fixes up to the next telling share its job; the customer's serialization keeps that job from running while a
    fix is counted."""
    entries, due, wait = db.execute(
        select(
            func.count(),
            func.max(overage_entries.c.at) + _AGAIN_AFTER,
            func.max(overage_entries.c.at) + _AGAIN_AFTER > func.clock_timestamp(),
        ).where(overage_entries.c.customer_id == customer_id, overage_entries.c.period_start == period_start)
    ).one()
    telling = SyncOverage(customer_id=customer_id, period_start=period_start, occasion=f"after:{entries}")
    told = enqueue(db, telling, run_at=due if wait else None)
    state = select(jobs.c.state).where(jobs.c.id == told.job_id)
    if told.duplicate and db.execute(state).scalar() in (*FINISHED, None):
        # It was cancelled, is dead, or had nothing to tell: this fix is not told by it.
        enqueue(db, telling.model_copy(update={"occasion": f"fix:{fix_id}"}))


def _name(customer_id: int, period_start: datetime) -> str:
    return f"overage:{customer_id}:{period_start:%Y%m%dT%H%M%S}"


def learn(db: Connection, customer_id: int, period_start: datetime, known: Overage, item: Item) -> Overage:
    """What is known once the newest item has been looked at: a call whose answer was lost may have set it.

    Raises:
        Permanent: the item is not what we ever set it to. Somebody changed it; nothing is set on top of that.
    """
    last = known.told[-1]
    if (item.fixes, item.amount_cents) == (last.fixes, last.amount_cents):
        return known
    sent = calls.latest(db, f"{_name(customer_id, period_start)}:{item.id}:{item.fixes}")
    if sent is None or sent.parameters["amount"] != item.amount_cents:
        raise Permanent(f"invoice item {item.id} is {item.amount_cents} cents in Stripe, not {last.amount_cents}")
    note(db, customer_id, period_start, item)
    return read(db, customer_id, period_start)


def freeze(
    db: Connection, customer: Row[Any], period_start: datetime, known: Overage, item: Item | None
) -> calls.Call | None:
    """The call that tells Stripe what it does not know yet, if anything: `item`, the newest, is set to the whole of it
    while it is open; else a new one is made of the rest, for the next invoice (failures.md 29)."""
    more, more_cents = known.untold
    if more <= 0:  # less than none: a restored database knows fewer fixes than Stripe, until they are sent again
        return None
    period, name = period_start.isoformat(), _name(customer.id, period_start)
    if item is not None and item.open:
        fixes_now, cents_now = known.told[-1].fixes + more, known.told[-1].amount_cents + more_cents
        changed = change_parameters(period=period, fixes=fixes_now, amount_cents=cents_now)
        call = calls.freeze(db, f"{name}:{item.id}:{fixes_now}", changed)
        # One from before the last telling has done what it does: Stripe would answer its key with what it stored, and
        # leave the item as a slower call to fewer fixes has set it since.
        return call if call.first_sent_at >= known.told[-1].at else calls.renew(db, call)
    number = len(known.told) + 1
    wanted = item_parameters(
        stripe_customer=customer.stripe_customer_id,
        period=period,
        number=number,
        fixes=more,
        amount_cents=more_cents,
        currency=CURRENCY,
    )
    call = calls.freeze(db, f"{name}:{number}", wanted)
    return call if known.since is None else calls.aged(call, known.since)


def note(db: Connection, customer_id: int, period_start: datetime, item: Item) -> None:
    """Stripe has been told."""
    db.execute(
        insert(overage_entries).values(
            customer_id=customer_id,
            period_start=period_start,
            invoice_item=item.id,
            fixes=item.fixes,
            amount_cents=item.amount_cents,
        )
    )
