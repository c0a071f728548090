"""What a customer's plan allows, and how much of it is used (architecture.md, "The business rules")."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.engine import Connection

from app.billing.tables import usage_entries
from app.contracts.http import BillingStatus
from app.customers import accounts
from app.settings import get_settings


def fixes_used(db: Connection, customer_id: int, period_start: datetime) -> int:
    """Deployed fixes counted in the period: the sum of its entries."""
    used: int = db.execute(
        select(func.coalesce(func.sum(usage_entries.c.fixes), 0)).where(
            usage_entries.c.customer_id == customer_id, usage_entries.c.period_start == period_start
        )
    ).scalar_one()
    return used


def billing_status(db: Connection, customer_id: int) -> BillingStatus:
    """The customer's plan, allowance and use.

    A trial is one period without an end, from the customer's first day.

    Raises:
        NoSuchCustomer
    """
    customer: Row[Any] = accounts.get(db, customer_id)
    included = get_settings().trial_fixes
    used = fixes_used(db, customer_id, customer.created_at)
    return BillingStatus(
        customer_id=customer.id,
        plan=customer.plan,
        stripe_customer_id=customer.stripe_customer_id,
        subscription_status=customer.subscription_status,
        can_use_service=used < included,
        current_usage=used,
        included=included,
        remaining=max(0, included - used),
        overage=0,
        period_start=customer.created_at,
        period_end=None,
    )
