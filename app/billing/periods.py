"""The billing period that a moment belongs to, by plan."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, select

from app.billing.tables import billing_periods
from app.customers import accounts


@dataclass(frozen=True)
class Period:
    """From `start` until `end`, which is no longer in it; a trial has no end."""

    start: datetime
    end: datetime | None


def period_at(db: Connection, customer_id: int, plan: str, at: datetime) -> Period | None:
    """The customer's period at that moment.

    A trial is one period from the customer's first day. Payg counts by calendar month (UTC). The periods of Teams
    are Stripe's; None says that Stripe has to be asked for the one that has begun since. What was accepted
    between two that we know (none was read in a whole month) belongs to the later one.
    """
    if plan == "trial":
        return Period(accounts.get(db, customer_id).created_at, None)
    if plan == "payg":
        start = at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return Period(start, start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1))
    row = db.execute(
        select(billing_periods.c.starts_at, billing_periods.c.ends_at)
        .where(billing_periods.c.customer_id == customer_id, billing_periods.c.ends_at > at)
        .order_by(billing_periods.c.ends_at)
        .limit(1)
    ).one_or_none()
    return None if row is None else Period(row.starts_at, row.ends_at)
