"""What a comparison of Stripe's objects with ours is made of."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from app.contracts.billing import OfCustomer
from app.customers.tables import customers
from app.stripe.history import Page

NOTHING = "nothing"


@dataclass(frozen=True)
class Repair:
    """A command, but for its `occasion`."""

    command: type[OfCustomer]
    about: dict[str, Any]

    def on(self, occasion: str) -> OfCustomer:
        """The command, made for that occasion."""
        return self.command.model_validate({**self.about, "occasion": occasion})


@dataclass(frozen=True)
class Difference:
    """Something that is not the same here and in Stripe.

    Args:
        advice: what an operator has to look at or to do, where there is no repair, or where it is not enough.
        stripe_id: of the object in Stripe, to be read again where there is no repair.
    """

    rule: str
    subject: str
    ours: str
    stripe: str
    repair: Repair | None = None
    advice: str = ""
    stripe_id: str = ""


@dataclass(frozen=True)
class Comparison:
    """A kind of object.

    Args:
        expected: ours that Stripe must show, read before it is asked: by Stripe's id, what it is if it does not.
        pages: Stripe's list, of what was created since then and of what is still open.
        differences: what of a page is not the same here.
        collection: what Stripe calls the list, as in a path.
    """

    expected: Callable[[Connection, datetime], dict[str, Difference]]
    pages: Callable[[datetime], Iterator[Page]]
    differences: Callable[[Connection, Page], Iterator[Difference]]
    collection: str


def owners_of(db: Connection, stripe_ids: Iterable[str | None]) -> dict[str, Row[Any]]:
    """Our customers, by their ids in Stripe."""
    found = select(customers).where(customers.c.stripe_customer_id.in_({i for i in stripe_ids if i}))
    return {row.stripe_customer_id: row for row in db.execute(found)}


def named(thing: dict[str, Any], what: str = "customer_id") -> int | None:
    """Our customer (or `what`) that an object in Stripe names, if that can be one."""
    name = (thing["metadata"] or {}).get(what, "")
    return int(name) if name.isascii() and name.isdigit() and len(name) < 19 else None
