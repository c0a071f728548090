"""What a customer's fixes came to, day by day."""

from datetime import datetime

from sqlalchemy import Connection, Date, cast, func, select

from app.billing.tables import fixes
from app.contracts.http import Usage, UsageDay, UsageTotals


def usage(db: Connection, customer_id: int, start: datetime, end: datetime) -> Usage:
    """The customer's fixes that were accepted from `start` on and before `end`, by day (UTC), and their sums.

    A fix stands on the day that it was accepted on, with what it cost then (cents).
    """
    day = cast(func.timezone("UTC", fixes.c.accepted_at), Date).label("day")
    outcome = fixes.c.outcome
    rows = db.execute(
        select(
            day,
            func.count().label("fixes"),
            func.count().filter(outcome == "included").label("included"),
            func.count().filter(outcome == "over_limit").label("over_limit"),
            func.count().filter(outcome == "charge").label("charged"),
            func.count().filter(outcome == "overage").label("overage"),
            func.sum(fixes.c.amount_cents).label("amount_cents"),
        )
        .where(fixes.c.customer_id == customer_id, fixes.c.accepted_at >= start, fixes.c.accepted_at < end)
        .group_by(day)
        .order_by(day)
    )
    days = [UsageDay.model_validate(dict(row)) for row in rows.mappings()]
    totals = {name: sum(getattr(each, name) for each in days) for name in UsageTotals.model_fields}
    return Usage(start=start, end=end, days=days, totals=UsageTotals(**totals))
