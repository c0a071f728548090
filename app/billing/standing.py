"""How a customer stands: written in one place, from what is open, so that it does not matter what came last."""

from sqlalchemy import Connection, exists, select

from app.billing.tables import charges, subscriptions
from app.customers import accounts


def settle(db: Connection, customer_id: int) -> None:
    """The customer's `subscription_status`: of an open subscription to Teams what Stripe calls it, whatever charges of
    payg are left from before; else past due while one of those is uncollectible; else active for who has a plan or a
    card."""
    of_teams = select(subscriptions.c.status).where(
        subscriptions.c.customer_id == customer_id, subscriptions.c.ended_at.is_(None)
    )
    status = db.execute(of_teams).scalar_one_or_none()
    if status is None:
        lost = exists().where(charges.c.customer_id == customer_id, charges.c.state == "uncollectible")
        customer = accounts.get(db, customer_id)
        if db.execute(select(lost)).scalar_one():
            status = "past_due"
        elif customer.default_payment_method is not None or customer.plan != "trial":
            status = "active"
        else:
            status = "trial"
    accounts.set_subscription_status(db, customer_id, status)
