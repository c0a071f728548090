"""Billing periods: days, weeks, months and years from an anchor, in UTC."""

import calendar
from datetime import UTC, datetime, timedelta

from app.sandbox.stripe.objects import Object


def period_end(anchor: int, after: int, recurring: Object) -> int:
    """The first boundary later than `after` of the periods that start at `anchor`, seconds since 1970.

    Months keep the anchor's day, or take the last one they have: 31 January, 28 February, 31 March.
    """
    start = datetime.fromtimestamp(anchor, UTC)
    step = 0
    while True:
        boundary = int(_shifted(start, recurring["interval"], step * recurring["interval_count"]).timestamp())
        if boundary > after:
            return boundary
        step += 1


def _shifted(start: datetime, interval: str, count: int) -> datetime:
    if interval in ("day", "week"):
        return start + timedelta(days=count * (7 if interval == "week" else 1))
    months = start.year * 12 + start.month - 1 + count * (12 if interval == "year" else 1)
    year, month = divmod(months, 12)
    last_day = calendar.monthrange(year, month + 1)[1]
    return start.replace(year=year, month=month + 1, day=min(start.day, last_day))
