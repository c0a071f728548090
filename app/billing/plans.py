"""Which plan a customer has, and had: a fix is billed under the plan of the moment that it was accepted in."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Function, Row, func, insert, select, update

from app.billing.tables import plan_changes
from app.customers.tables import customers
from app.ledger.errors import Permanent


def _change_at(db: Connection, customer_id: int, at: datetime | Function[datetime]) -> Row[Any] | None:
    return db.execute(
        select(plan_changes)
        .where(plan_changes.c.customer_id == customer_id, plan_changes.c.effective_at <= at)
        .order_by(plan_changes.c.effective_at.desc(), plan_changes.c.id.desc())
        .limit(1)
    ).one_or_none()


def plan_at(db: Connection, customer_id: int, at: datetime) -> str:
    """The customer's plan at that moment: `trial` until the first change."""
    found = _change_at(db, customer_id, at)
    return "trial" if found is None else str(found.plan)


def marketplace_from(db: Connection, customer_id: int, at: datetime) -> datetime | None:
    """Of a plan that is paid on the GitHub Marketplace at that moment, one at which a month of it begins. None: it is
    not paid there, we bill it."""
    found = _change_at(db, customer_id, at)
    return None if found is None else found.marketplace_from


def is_on_marketplace(db: Connection, customer_id: int) -> bool:
    """Whether the customer pays for their plan on the GitHub Marketplace: then we do not (failures.md 37)."""
    found = _change_at(db, customer_id, func.clock_timestamp())
    return found is not None and found.marketplace_from is not None


def refuse_on_marketplace(db: Connection, customer_id: int) -> None:
    """Stop a job that would change a plan, or sell one, beside the one that the customer pays elsewhere.

    Raises:
        Permanent: the plan is paid on the GitHub Marketplace.
    """
    if is_on_marketplace(db, customer_id):
        raise Permanent("the plan is paid on the GitHub Marketplace: it is changed there")


def change(
    db: Connection,
    customer_id: int,
    plan: str,
    *,
    reason: str,
    effective_at: datetime | None = None,
    marketplace_from: datetime | None = None,
) -> None:
    """Give the customer that plan from `effective_at` (now, if None) on; `reason` says by whose choice.

    Args:
        marketplace_from: it is paid on the GitHub Marketplace; a moment at which a month of it begins.
    """
    db.execute(
        insert(plan_changes).values(
            customer_id=customer_id,
            plan=plan,
            reason=reason,
            effective_at=func.clock_timestamp() if effective_at is None else effective_at,
            marketplace_from=marketplace_from,
        )
    )
    db.execute(update(customers).where(customers.c.id == customer_id).values(plan=plan))
