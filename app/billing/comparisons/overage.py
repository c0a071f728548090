"""Overage of Teams, which is invoice items in Stripe."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, select
from sqlalchemy.dialects.postgresql import distinct_on

from app.billing.comparisons.comparison import NOTHING, Comparison, Difference, Repair, named, owners_of
from app.billing.tables import overage_entries
from app.contracts.webhooks import LearnOverage
from app.customers.tables import customers
from app.settings import get_settings
from app.stripe import history
from app.stripe.history import Page


def _overage_told(db: Connection, items: Iterable[str] | None = None) -> dict[str, Row[Any]]:
    """What we last told Stripe of each invoice item (None: of all that a customer in Stripe still has)."""
    newest = select(overage_entries).ext(distinct_on(overage_entries.c.invoice_item))
    newest = newest.order_by(overage_entries.c.invoice_item, overage_entries.c.id.desc())
    if items is None:
        newest = newest.join(customers, customers.c.id == overage_entries.c.customer_id)
        newest = newest.where(customers.c.stripe_deleted_at.is_(None))
    else:
        newest = newest.where(overage_entries.c.invoice_item.in_(items))
    return {row.invoice_item: row for row in db.execute(newest)}


def _overage_expected(db: Connection, _since: datetime) -> dict[str, Difference]:
    advice = "Stripe does not have it: was it deleted there? Its overage is not billed"
    return {
        item: Difference(
            "overage_agrees", f"invoice_item:{item}", _for_fixes(told.fixes, told.amount_cents), NOTHING, advice=advice
        )
        for item, told in _overage_told(db).items()
    }


def _overage_differs(db: Connection, page: Page) -> Iterator[Difference]:
    """An item that is more than we know of, each fix at its price, was set by us and a restored database has forgotten
    it (failures.md 40). Any other sum is somebody else's: it is not set over, and not believed."""
    told = _overage_told(db, [seen["id"] for seen in page])
    owners = owners_of(db, (seen["customer"] for seen in page))
    for seen in page:
        row, owner, count = told.get(seen["id"]), owners.get(seen["customer"]), named(seen, "fixes") or 0
        known, cents = (0, 0) if row is None else (row.fixes, row.amount_cents)
        if (count, seen["amount"]) == (known, cents):
            continue
        kept = NOTHING if row is None else _for_fixes(known, cents)
        theirs = _for_fixes(count, seen["amount"])
        subject = f"invoice_item:{seen['id']}"
        difference = partial(Difference, "overage_agrees", subject, kept, theirs, stripe_id=seen["id"])
        more = (count - known) * get_settings().teams_overage_cents
        start = _period_of(seen) if row is None else row.period_start
        if owner is None:
            yield difference(advice="it is of a customer who is not here: was a backup restored?")
        elif start is not None and count > known and seen["amount"] == cents + more:
            about = {"customer_id": owner.id, "period_start": start, "invoice_item": seen["id"]}
            yield difference(Repair(LearnOverage, about))
        else:
            yield difference(advice="it is not what we last set it to: was it changed in Stripe? Set it back there")


def _period_of(item: dict[str, Any]) -> datetime | None:
    """The start of the period that an item names, if that can be one."""
    try:
        start = datetime.fromisoformat(item["metadata"]["overage_of"])
    except ValueError:
        return None
    return start if start.tzinfo is not None else None


def _for_fixes(count: int, cents: int) -> str:
    return f"{cents} cents for {count} fix{'' if count == 1 else 'es'}"


OVERAGE = Comparison(_overage_expected, lambda _: history.overage_items(), _overage_differs, "invoiceitems")
