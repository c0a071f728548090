"""What is compared between Stripe's objects and ours, a kind at a time, and which command mends what differs.

A repair is a command that reads the object and keeps what it is now, the same that webhooks end in: none of them moves
money. Where only a charge, or a person's judgement, could make the two agree, an operator is asked for.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, and_, func, or_, select
from sqlalchemy.dialects.postgresql import distinct_on

from app.billing.tables import (
    billing_periods,
    charge_entries,
    charges,
    disputes,
    fixes,
    invoices,
    overage_entries,
    subscriptions,
)
from app.contracts.billing import OfCustomer, SyncSubscription
from app.contracts.webhooks import LearnOverage, RememberIntent, SyncCharge, SyncCustomer, SyncInvoices
from app.customers.tables import customers
from app.settings import get_settings
from app.stripe import calls, history
from app.stripe import subscriptions as gateway
from app.stripe.history import Page

_NOTHING = "nothing"


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


def _owners(db: Connection, stripe_ids: Iterable[str | None]) -> dict[str, Row[Any]]:
    """Our customers, by their ids in Stripe."""
    found = select(customers).where(customers.c.stripe_customer_id.in_({i for i in stripe_ids if i}))
    return {row.stripe_customer_id: row for row in db.execute(found)}


def _named(thing: dict[str, Any], what: str = "customer_id") -> int | None:
    """Our customer (or `what`) that an object in Stripe names, if that can be one."""
    name = (thing["metadata"] or {}).get(what, "")
    return int(name) if name.isascii() and name.isdigit() and len(name) < 19 else None


# Customers


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
    ours = _owners(db, (seen["id"] for seen in page))
    names = {_named(seen) for seen in page if seen["id"] not in ours} - {None}
    known = {row.id: row for row in db.execute(select(customers).where(customers.c.id.in_(names)))}
    for seen in page:
        row = ours.get(seen["id"])
        if row is None:
            yield from _nobody(seen, known)
            continue
        default = seen["invoice_settings"]["default_payment_method"]
        if row.stripe_deleted_at is None and default != row.default_payment_method:
            yield Difference(
                "default_payment_method",
                f"customer:{row.id}",
                row.default_payment_method or _NOTHING,
                default or _NOTHING,
                Repair(SyncCustomer, {"customer_id": row.id}),
            )


def _nobody(seen: dict[str, Any], known: dict[int, Row[Any]]) -> Iterator[Difference]:
    """A customer in Stripe that is not the one of anybody here, though it may name somebody."""
    name = _named(seen)
    if name is None:
        return
    row = known.get(name)
    if row is None:
        ours, advice = _NOTHING, "it names a customer that is not here: was a backup restored? It is not invented"
    elif row.stripe_customer_id is None:
        ours = "no customer in Stripe yet"
        advice = "ours is being provisioned and will find it: delete nothing, and look again when its jobs are done"
    else:
        ours, advice = row.stripe_customer_id, "two customers in Stripe name this one: delete the one that has nothing"
    yield Difference("customer_is_known", f"customer:{name}", ours, seen["id"], advice=advice, stripe_id=seen["id"])


# Subscriptions


def _subscriptions_expected(db: Connection, _since: datetime) -> dict[str, Difference]:
    there = select(subscriptions.c.id, subscriptions.c.status).where(subscriptions.c.ended_at.is_(None))
    advice = "Stripe does not have it: is this the right Stripe account?"
    return {
        row.id: Difference("subscription_is_there", f"subscription:{row.id}", row.status, _NOTHING, advice=advice)
        for row in db.execute(there)
    }


def _subscriptions_differ(db: Connection, page: Page) -> Iterator[Difference]:
    """One that ended, or was never paid, before we knew of it is none of ours any more."""
    ids = [seen["id"] for seen in page]
    newest = func.max(billing_periods.c.ends_at)
    period = select(billing_periods.c.subscription_id, newest.label("ends_at")).group_by(
        billing_periods.c.subscription_id
    )
    ends = period.where(billing_periods.c.subscription_id.in_(ids)).subquery()
    query = select(subscriptions, ends.c.ends_at).outerjoin(ends, ends.c.subscription_id == subscriptions.c.id)
    ours = {row.id: row for row in db.execute(query.where(subscriptions.c.id.in_(ids)))}
    owners = _owners(db, (seen["customer"] for seen in page))
    for found in page:
        seen, row = gateway.read(found), ours.get(found["id"])
        if row is None and (seen.incomplete or seen.ended_at is not None):
            continue
        theirs = _state_of(seen.status, cancels=seen.cancels, ends_at=None if seen.ended_at else seen.period_end)
        kept = _NOTHING
        if row is not None:
            ends_at = None if row.ended_at else row.ends_at
            kept = _state_of(row.status, cancels=row.cancel_at_period_end, ends_at=ends_at)
        if kept == theirs:
            continue
        owner = owners.get(seen.customer)
        subject = f"subscription:{seen.id}"
        difference = partial(Difference, "subscription_agrees", subject, kept, theirs, stripe_id=seen.id)
        if owner is not None and (row is not None or seen.owner == str(owner.id)):
            yield difference(Repair(SyncSubscription, {"customer_id": owner.id, "subscription_id": seen.id}))
        elif owner is not None:
            yield difference(advice=f"customer:{owner.id} did not get it from here: was it made in the dashboard?")
        elif _named(found) is not None:
            yield difference(advice=f"it is of customer:{seen.owner}, who is not here: was a backup restored?")


def _state_of(status: str, *, cancels: bool, ends_at: datetime | None) -> str:
    """What the two must agree about."""
    period = "" if ends_at is None else f", period to {ends_at:%Y-%m-%d %H:%M:%S}"
    return f"{status}{', ends with its period' if cancels else ''}{period}"


# Charges


def _charges_expected(db: Connection, since: datetime) -> dict[str, Difference]:
    """An old one that is open still: its customer may have paid by a link."""
    compared = or_(charges.c.created_at >= since, charges.c.state != "succeeded")
    there = select(charges).where(charges.c.payment_intent.is_not(None), compared)
    advice = "Stripe does not have it: is this the right Stripe account?"
    return {
        row.payment_intent: Difference("charge_is_there", f"charge:{row.id}", row.state, _NOTHING, advice=advice)
        for row in db.execute(there)
    }


def _charges_differ(db: Connection, page: Page) -> Iterator[Difference]:
    ours = [seen for seen in page if "fix" in (seen["metadata"] or {})]
    query = select(charges, fixes.c.ref).join(charges, charges.c.fix_id == fixes.c.id)
    rows = db.execute(query.where(fixes.c.ref.in_([seen["metadata"]["fix"] for seen in ours])))
    known = {row.ref: row for row in rows}
    owners = _owners(db, (seen["customer"] for seen in ours if seen["metadata"]["fix"] not in known))
    for seen in ours:
        row = known.get(seen["metadata"]["fix"])
        theirs = f"{seen['id']}: {seen['status']}, {seen['amount_received']} cents taken"
        if row is None:
            yield from _no_charge_of_ours(db, seen, theirs, owners.get(seen["customer"]))
            continue
        kept = row.state if row.payment_intent is None else f"{row.payment_intent}: {row.state}"
        difference = partial(Difference, "charge_agrees", f"charge:{row.id}", kept, theirs, stripe_id=seen["id"])
        if row.payment_intent not in (None, seen["id"]):
            if seen["amount_received"]:
                yield difference(advice="the fix was paid by another payment intent as well: refund one in Stripe")
        elif (seen["amount"], seen["currency"]) != (row.amount_cents, row.currency):
            yield difference(advice=f"the charge is of {row.amount_cents} {row.currency}, the intent of another sum")
        elif row.state == "succeeded" and seen["status"] != "succeeded":
            yield difference(advice="nothing was taken: try it again by hand, or write it off")
        elif _moved_on(row, seen["status"]):
            yield difference(Repair(SyncCharge, {"customer_id": row.customer_id, "charge_id": row.id}))


def _no_charge_of_ours(
    db: Connection, seen: dict[str, Any], theirs: str, owner: Row[Any] | None
) -> Iterator[Difference]:
    """An intent for a fix that a restored database has forgotten. Its idempotency key is forgotten in a day, so that
    the fix, sent again, would be charged again, were the call not remembered (failures.md 40)."""
    difference = partial(Difference, "charge_is_known", f"payment_intent:{seen['id']}", stripe_id=seen["id"])
    again = "have the sender send the fix again: its charge finds this payment, and takes nothing"
    if owner is None or _named(seen, "fix_id") is None:
        advice = "it is of a customer who is not here, or not made by us: no fix that is sent again finds it"
        yield difference(_NOTHING, theirs, advice=advice)
    elif calls.latest(db, f"fix:{seen['metadata']['fix']}:pi") is None:
        repair = Repair(RememberIntent, {"customer_id": owner.id, "payment_intent": seen["id"]})
        yield difference(_NOTHING, theirs, repair, advice=again)
    elif seen["amount_received"]:
        yield difference("remembered, without its fix", theirs, advice=again)


def _moved_on(charge: Row[Any], status: str) -> bool:
    """Whether Stripe knows of an outcome that we do not. A payment that waits for a card is where we left it."""
    if status == "succeeded":
        return bool(charge.state != "succeeded")
    if status == "canceled":
        return bool(charge.state != "uncollectible")
    return status == "requires_action" and charge.state in ("pending", "declined")


# Refunds and disputes


def _none_expected(_db: Connection, _since: datetime) -> dict[str, Difference]:
    return {}


def _paid_by(db: Connection, page: Page) -> dict[str, Row[Any]]:
    """Our charges, by their payment intents."""
    intents = [seen["payment_intent"] for seen in page if seen["payment_intent"]]
    return {row.payment_intent: row for row in db.execute(select(charges).where(charges.c.payment_intent.in_(intents)))}


def _refunds_differ(db: Connection, page: Page) -> Iterator[Difference]:
    paid = _paid_by(db, page)
    counted: dict[str, set[str]] = {}
    of_page = and_(
        charge_entries.c.kind.in_(("refunded", "refund_failed")),
        charge_entries.c.stripe_id.in_([seen["id"] for seen in page]),
    )
    for entry in db.execute(select(charge_entries.c.stripe_id, charge_entries.c.kind).where(of_page)):
        counted.setdefault(entry.stripe_id, set()).add(entry.kind)
    for seen in page:
        charge, kinds = paid.get(seen["payment_intent"]), counted.get(seen["id"], set())
        if charge is None:
            continue
        failed = seen["status"] in ("failed", "canceled")
        if ("refund_failed" in kinds) != failed if kinds else not failed:
            yield Difference(
                "refund_agrees",
                f"charge:{charge.id}",
                ", ".join(sorted(kinds)) or _NOTHING,
                f"{seen['id']}: {seen['status']}, {seen['amount']} cents",
                Repair(SyncCharge, {"customer_id": charge.customer_id, "charge_id": charge.id}),
            )


def _disputes_differ(db: Connection, page: Page) -> Iterator[Difference]:
    paid = _paid_by(db, page)
    query = select(disputes.c.id, disputes.c.status).where(disputes.c.id.in_([seen["id"] for seen in page]))
    known = {row.id: row.status for row in db.execute(query)}
    for seen in page:
        charge = paid.get(seen["payment_intent"])
        if charge is not None and known.get(seen["id"]) != seen["status"]:
            yield Difference(
                "dispute_agrees",
                f"charge:{charge.id}",
                known.get(seen["id"], _NOTHING),
                f"{seen['id']}: {seen['status']}, {seen['amount']} cents",
                Repair(SyncCharge, {"customer_id": charge.customer_id, "charge_id": charge.id}),
            )


# Overage


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
            "overage_agrees", f"invoice_item:{item}", _for_fixes(told.fixes, told.amount_cents), _NOTHING, advice=advice
        )
        for item, told in _overage_told(db).items()
    }


def _overage_differs(db: Connection, page: Page) -> Iterator[Difference]:
    """An item that is more than we know of, each fix at its price, was set by us and a restored database has forgotten
    it (failures.md 40). Any other sum is somebody else's: it is not set over, and not believed."""
    told = _overage_told(db, [seen["id"] for seen in page])
    owners = _owners(db, (seen["customer"] for seen in page))
    for seen in page:
        row, owner, count = told.get(seen["id"]), owners.get(seen["customer"]), _named(seen, "fixes") or 0
        known, cents = (0, 0) if row is None else (row.fixes, row.amount_cents)
        if (count, seen["amount"]) == (known, cents):
            continue
        kept = _NOTHING if row is None else _for_fixes(known, cents)
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


# Invoices


def _invoices_expected(db: Connection, _since: datetime) -> dict[str, Difference]:
    """Those that we know as open: one that Stripe does not list among the new and the open ones has moved on."""
    there = select(invoices).where(invoices.c.status.in_(("draft", "open")))
    return {
        row.id: Difference(
            "invoice_agrees",
            f"invoice:{row.id}",
            row.status,
            "no longer open",
            Repair(SyncInvoices, {"customer_id": row.customer_id}),
        )
        for row in db.execute(there)
    }


def _invoices_differ(db: Connection, page: Page) -> Iterator[Difference]:
    owners = _owners(db, (seen["customer"] for seen in page))
    query = select(invoices).where(invoices.c.id.in_([seen["id"] for seen in page]))
    known = {row.id: row for row in db.execute(query)}
    for seen in page:
        owner, row = owners.get(seen["customer"]), known.get(seen["id"])
        if owner is None:
            continue
        theirs = (seen["status"] or "draft", seen["total"], seen["amount_paid"])
        if row is None or (row.status, row.total_cents, row.paid_cents) != theirs:
            yield Difference(
                "invoice_agrees",
                f"invoice:{seen['id']}",
                _NOTHING if row is None else _billed(row.status, row.total_cents, row.paid_cents),
                _billed(*theirs),
                Repair(SyncInvoices, {"customer_id": owner.id}),
            )


def _billed(status: str, total: int, paid: int) -> str:
    return f"{status}, {paid} of {total} cents paid"


COMPARISONS: dict[str, Comparison] = {
    "customers": Comparison(_customers_expected, lambda _: history.customers(), _customers_differ, "customers"),
    "subscriptions": Comparison(
        _subscriptions_expected, lambda _: history.subscriptions(), _subscriptions_differ, "subscriptions"
    ),
    "charges": Comparison(_charges_expected, history.intents, _charges_differ, "payment_intents"),
    "refunds": Comparison(_none_expected, history.refunds, _refunds_differ, "refunds"),
    "disputes": Comparison(_none_expected, lambda _: history.disputes(), _disputes_differ, "disputes"),
    "overage": Comparison(_overage_expected, lambda _: history.overage_items(), _overage_differs, "invoiceitems"),
    "invoices": Comparison(_invoices_expected, history.invoices, _invoices_differ, "invoices"),
}
"""By kind of object, in the order of what depends on what."""
