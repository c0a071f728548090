"""Customers in Stripe, and their default payment method."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from app.billing.comparisons.comparison import NOTHING, Comparison, Difference, Repair, named, owners_of
from app.contracts.webhooks import SyncCustomer
from app.customers.tables import customers
from app.stripe import history
from app.stripe.history import Page


def _customers_expected(db: Connection, _since: datetime) -> dict[str, Difference]:
    there = select(customers.c.id, customers.c.stripe_customer_id).where(
        customers.c.stripe_customer_id.is_not(None), customers.c.stripe_deleted_at.is_(None)
    )
    return {
        row.stripe_customer_id: Difference(
            "customer_is_there",
            f"customer:{row.id}",
            row.stripe_customer_id,
            "deleted",
            Repair(SyncCustomer, {"customer_id": row.id}),
        )
        for row in db.execute(there)
    }


def _customers_differ(db: Connection, page: Page) -> Iterator[Difference]:
    ours = owners_of(db, (seen["id"] for seen in page))
    names = {named(seen) for seen in page if seen["id"] not in ours} - {None}
    known = {row.id: row for row in db.execute(select(customers).where(customers.c.id.in_(names)))}
    for seen in page:
        row = ours.get(seen["id"])
        if row is None:
            yield from _nobody(seen, known)
            continue
        default = seen["invoice_settings"]["default_payment_method"]
        left = default is not None and default == row.default_elsewhere
        if row.stripe_deleted_at is None and default != row.default_payment_method and not left:
            yield Difference(
                "default_payment_method",
                f"customer:{row.id}",
                row.default_payment_method or NOTHING,
                default or NOTHING,
                Repair(SyncCustomer, {"customer_id": row.id}),
            )


def _nobody(seen: dict[str, Any], known: dict[int, Row[Any]]) -> Iterator[Difference]:
    """A customer in Stripe that is not the one of anybody here, though it may name somebody."""
    name = named(seen)
    if name is None:
        return
    row = known.get(name)
    if row is None:
        ours, advice = NOTHING, "it names a customer that is not here: was a backup restored? It is not invented"
    elif row.stripe_customer_id is None:
        ours = "no customer in Stripe yet"
        advice = "ours is being provisioned and will find it: delete nothing, and look again when its jobs are done"
    else:
        ours, advice = row.stripe_customer_id, "two customers in Stripe name this one: delete the one that has nothing"
    yield Difference("customer_is_known", f"customer:{name}", ours, seen["id"], advice=advice, stripe_id=seen["id"])


CUSTOMERS = Comparison(_customers_expected, lambda _: history.customers(), _customers_differ, "customers")
