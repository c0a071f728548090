"""Customers themselves: made once for an address, found again by any address they have had."""

from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from app.customers.addresses import fold
from app.customers.tables import customer_addresses, customers


class NoSuchCustomer(Exception):
    """There is no customer with that id or address."""

    def __init__(self, wanted: object) -> None:
        self.wanted = wanted
        super().__init__(f"there is no customer {wanted}")


def get(db: Connection, customer_id: int) -> Row[Any]:
    """The customer.

    Raises:
        NoSuchCustomer
    """
    row = db.execute(select(customers).where(customers.c.id == customer_id)).one_or_none()
    if row is None:
        raise NoSuchCustomer(customer_id)
    return row


def find(db: Connection, email: str) -> int | None:
    """The id of the customer who has, or once had, this address."""
    return db.execute(
        select(customer_addresses.c.customer_id).where(customer_addresses.c.address == fold(email))
    ).scalar_one_or_none()


def create(db: Connection, *, email: str, name: str, wanted_plan: str, source: str) -> int:
    """The customer of this address: a new one on trial, or the one who has it already.

    Two at the same instant make one: the second waits for the first's address to commit. Its own row is
    then removed again in the same transaction, before anyone could see it.
    """
    known = find(db, email)
    if known is not None:
        return known
    customer_id = db.execute(
        insert(customers)
        .values(email=email, name=name, wanted_plan=wanted_plan, source=source)
        .returning(customers.c.id)
    ).scalar_one()
    claimed = db.execute(
        upsert(customer_addresses)
        .values(address=fold(email), customer_id=customer_id)
        .on_conflict_do_nothing()
        .returning(customer_addresses.c.customer_id)
    ).scalar_one_or_none()
    if claimed is not None:
        return int(claimed)
    db.execute(customers.delete().where(customers.c.id == customer_id))
    known = find(db, email)
    assert known is not None  # the address that we conflicted with has committed
    return known


def set_stripe_customer(db: Connection, customer_id: int, stripe_customer_id: str) -> None:
    """Keep the id of the customer's counterpart in Stripe."""
    db.execute(update(customers).where(customers.c.id == customer_id).values(stripe_customer_id=stripe_customer_id))


def mark_welcomed(db: Connection, customer_id: int) -> None:
    """A mail has told the customer of the account; the first time counts."""
    first_time = func.coalesce(customers.c.welcomed_at, func.clock_timestamp())
    db.execute(update(customers).where(customers.c.id == customer_id).values(welcomed_at=first_time))


def set_subscription_status(db: Connection, customer_id: int, status: str) -> None:
    """How the customer stands: `trial`, `active`, `past_due`, or what Stripe calls their subscription."""
    db.execute(update(customers).where(customers.c.id == customer_id).values(subscription_status=status))


def mark_deleted_in_stripe(db: Connection, customer_id: int) -> None:
    """Somebody deleted the customer's counterpart in Stripe: nothing is charged any more (failures.md 22)."""
    deleted = func.coalesce(customers.c.stripe_deleted_at, func.clock_timestamp())
    db.execute(update(customers).where(customers.c.id == customer_id).values(stripe_deleted_at=deleted))
