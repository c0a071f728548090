"""Which plan a customer has, and had: a fix is billed under the plan of the moment that it was accepted in."""

from datetime import datetime

from sqlalchemy import Connection, func, insert, select, update

from app.billing.tables import plan_changes
from app.customers.tables import customers


def plan_at(db: Connection, customer_id: int, at: datetime) -> str:
    """The customer's plan at that moment: `trial` until the first change."""
    found: str | None = db.execute(
        select(plan_changes.c.plan)
        .where(plan_changes.c.customer_id == customer_id, plan_changes.c.effective_at <= at)
        .order_by(plan_changes.c.effective_at.desc(), plan_changes.c.id.desc())
        .limit(1)
    ).scalar_one_or_none()
    return found or "trial"


def change(db: Connection, customer_id: int, plan: str, *, reason: str, effective_at: datetime | None = None) -> None:
    """Give the customer that plan from `effective_at` (now, if None) on; `reason` says by whose choice."""
    db.execute(
        insert(plan_changes).values(
            customer_id=customer_id,
            plan=plan,
            reason=reason,
            effective_at=func.clock_timestamp() if effective_at is None else effective_at,
        )
    )
    db.execute(update(customers).where(customers.c.id == customer_id).values(plan=plan))
