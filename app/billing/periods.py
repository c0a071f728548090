"""The billing period that a moment belongs to, by plan."""

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, func, select

from app.billing.plans import marketplace_from
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
    between two that we know (none was read in a whole month) belongs to the later one. Where Teams is paid on the
    GitHub Marketplace they are months from the day on that GitHub bills, also where it bills by the year.
    """
    if plan == "trial":
        return Period(accounts.get(db, customer_id).created_at, None)
    if plan == "payg":
        start = at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return Period(start, _later(start, 1))
    paid_from = marketplace_from(db, customer_id, at)
    if paid_from is not None:
        return _month(paid_from.astimezone(UTC), at.astimezone(UTC))
    row = db.execute(
        select(billing_periods.c.starts_at, billing_periods.c.ends_at)
        .where(billing_periods.c.customer_id == customer_id, billing_periods.c.ends_at > at)
        .order_by(billing_periods.c.ends_at)
        .limit(1)
    ).one_or_none()
    return None if row is None else Period(row.starts_at, row.ends_at)


def last_end(db: Connection, customer_id: int) -> datetime | None:
    """When the last of the customer's periods of Teams ends that Stripe has told us of."""
    mine = billing_periods.c.customer_id == customer_id
    end: datetime | None = db.execute(select(func.max(billing_periods.c.ends_at)).where(mine)).scalar_one()
    return end


def _later(start: datetime, months: int) -> datetime:
    """So many months later, on the same day or the last one of a shorter month."""
    years, month = divmod(start.month - 1 + months, 12)
    year, month = start.year + years, month + 1
    return start.replace(year=year, month=month, day=min(start.day, monthrange(year, month)[1]))


def _month(start: datetime, at: datetime) -> Period:
    """Of the months that are counted from `start`, before it and after, the one that `at` is in."""
    months = (at.year - start.year) * 12 + at.month - start.month
    if _later(start, months) > at:
        months -= 1
    return Period(_later(start, months), _later(start, months + 1))
