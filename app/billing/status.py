"""What a customer's plan allows, and how much of it is used (architecture.md, "The business rules")."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, exists, select

from app.billing.charges import OVER, RETRY_DAYS, is_ruled_out
from app.billing.fixes import included, used
from app.billing.periods import period_at
from app.billing.plans import marketplace_from, plan_at
from app.billing.subscriptions import open_subscription
from app.billing.tables import charges
from app.contracts.http import BillingStatus
from app.customers import accounts

GRACE = timedelta(days=RETRY_DAYS[-1])
"""How long after a first failure the service goes on: a week, in which the last retry comes unless billing was held."""


def billing_status(db: Connection, customer_id: int) -> BillingStatus:
    """The customer's plan, allowance and use, at this moment.

    Raises:
        NoSuchCustomer
    """
    now = datetime.now(UTC)
    customer = accounts.get(db, customer_id)
    plan = plan_at(db, customer_id, now)
    period = period_at(db, customer_id, plan, now)
    allowed = included(customer, plan)
    count = used(db, customer_id, plan, period.start) if period else 0
    if marketplace_from(db, customer_id, now) is not None:  # GitHub is paid, whatever has become of them in Stripe
        may_use = not _owes(db, customer) if plan == "payg" else count < allowed
    elif customer.stripe_deleted_at is not None:
        may_use = False
    else:
        may_use = (
            _subscribed(db, customer) if plan == "teams" else _pays(db, customer) if plan == "payg" else count < allowed
        )
    return BillingStatus(
        customer_id=customer.id,
        plan=plan,
        stripe_customer_id=customer.stripe_customer_id,
        subscription_status=customer.subscription_status,
        can_use_service=may_use,
        current_usage=count,
        included=allowed,
        remaining=max(0, allowed - count),
        overage=max(0, count - allowed) if plan == "teams" else 0,
        period_start=period.start if period else None,
        period_end=period.end if period else None,
    )


def _pays(db: Connection, customer: Row[Any]) -> bool:
    """Payg: a payment method that works, and no failed charge past its grace."""
    return customer.default_payment_method is not None and not _owes(db, customer)


def _owes(db: Connection, customer: Row[Any]) -> bool:
    unpaid = exists().where(
        charges.c.customer_id == customer.id,
        charges.c.state.not_in(OVER),
        (charges.c.state == "uncollectible")
        | (charges.c.failed_at < datetime.now(UTC) - GRACE)
        | is_ruled_out(charges.c.id, customer.default_payment_method or ""),
    )
    return bool(db.execute(select(unpaid)).scalar_one())


def _subscribed(db: Connection, customer: Row[Any]) -> bool:
    """Teams: a subscription that runs, or is past due within its grace."""
    row = open_subscription(db, customer.id)
    if row is None:
        return False
    late = row.status == "past_due" and row.past_due_since is not None
    return row.status in ("active", "trialing") or (late and row.past_due_since > datetime.now(UTC) - GRACE)
