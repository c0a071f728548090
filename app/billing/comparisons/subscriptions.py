"""Subscriptions to Teams."""

from collections.abc import Iterator
from datetime import datetime
from functools import partial

from sqlalchemy import Connection, func, select

from app.billing.comparisons.comparison import NOTHING, Comparison, Difference, Repair, named, owners_of
from app.billing.tables import billing_periods, subscriptions
from app.contracts.billing import SyncSubscription
from app.stripe import history
from app.stripe import subscriptions as gateway
from app.stripe.history import Page


def _subscriptions_expected(db: Connection, _since: datetime) -> dict[str, Difference]:
    there = select(subscriptions.c.id, subscriptions.c.status).where(subscriptions.c.ended_at.is_(None))
    advice = "Stripe does not have it: is this the right Stripe account?"
    return {
        row.id: Difference("subscription_is_there", f"subscription:{row.id}", row.status, NOTHING, advice=advice)
        for row in db.execute(there)
    }


def _subscriptions_differ(db: Connection, page: Page) -> Iterator[Difference]:
    """One that ended, or was never paid, before we knew of it is none of ours any more."""
    ids = [seen["id"] for seen in page]
    newest = func.max(billing_periods.c.ends_at)
    period = select(billing_periods.c.subscription_id, newest.label("ends_at")).group_by(
        billing_periods.c.subscription_id
    )
    ends = period.where(billing_periods.c.subscription_id.in_(ids)).subquery()
    query = select(subscriptions, ends.c.ends_at).outerjoin(ends, ends.c.subscription_id == subscriptions.c.id)
    ours = {row.id: row for row in db.execute(query.where(subscriptions.c.id.in_(ids)))}
    owners = owners_of(db, (seen["customer"] for seen in page))
    beside = _open(db, [row.id for row in owners.values()])
    ended = {found["id"] for found in page if found["ended_at"] is not None}
    for found in page:
        row, owner = ours.get(found["id"]), owners.get(found["customer"])
        if row is None and owner is None and named(found) is None:
            continue  # somebody else's, of whatever shape
        seen = gateway.read(found)
        if row is None and (seen.incomplete or seen.ended_at is not None):
            continue
        theirs = _state_of(seen.status, cancels=seen.cancels, ends_at=None if seen.ended_at else seen.period_end)
        kept = NOTHING
        if row is not None:
            ends_at = None if row.ended_at else row.ends_at
            kept = _state_of(row.status, cancels=row.cancel_at_period_end, ends_at=ends_at)
        if kept == theirs:
            continue
        subject = f"subscription:{seen.id}"
        difference = partial(Difference, "subscription_agrees", subject, kept, theirs, stripe_id=seen.id)
        other = beside.get(owner.id) if owner is not None and row is None else None
        if other is not None and other not in ended:
            yield difference(advice=f"{other} is open as well: if both are in Stripe, end one and refund it")
        elif owner is not None and (row is not None or seen.owner == str(owner.id)):
            yield difference(Repair(SyncSubscription, {"customer_id": owner.id, "subscription_id": seen.id}))
        elif owner is not None:
            yield difference(advice=f"customer:{owner.id} did not get it from here: was it made in the dashboard?")
        else:
            yield difference(advice=f"it is of customer:{seen.owner}, who is not here: was a backup restored?")


def _open(db: Connection, customer_ids: list[int]) -> dict[int, str]:
    """The subscriptions that those customers have here and that have not ended, by customer."""
    theirs = subscriptions.c.customer_id.in_(customer_ids) & subscriptions.c.ended_at.is_(None)
    query = select(subscriptions.c.customer_id, subscriptions.c.id).where(theirs)
    return {row.customer_id: row.id for row in db.execute(query)}


def _state_of(status: str, *, cancels: bool, ends_at: datetime | None) -> str:
    """What the two must agree about."""
    period = "" if ends_at is None else f", period to {ends_at:%Y-%m-%d %H:%M:%S}"
    return f"{status}{', ends with its period' if cancels else ''}{period}"


SUBSCRIPTIONS = Comparison(
    _subscriptions_expected, lambda _: history.subscriptions(), _subscriptions_differ, "subscriptions"
)
