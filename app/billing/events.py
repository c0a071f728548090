"""Whose an event of Stripe's is, and which command reads what it is about: an event says that something changed, the
object itself says what (law 10). A new type of event is a line in `_TYPES`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import Connection, select

from app.billing.tables import charges, fixes, invoice_payments, invoices, payment_methods
from app.contracts.billing import CompleteCheckout, OfCustomer, SyncSubscription
from app.contracts.webhooks import SyncCharge, SyncCustomer, SyncInvoicePayment, SyncInvoices
from app.customers.tables import customers
from app.ledger.enqueue import enqueue
from app.ledger.errors import Permanent
from app.stripe import customers as stripe_customers
from app.stripe import invoices as bills
from app.stripe import payments, webhooks
from app.stripe.client import NotFound


class Ignored(Exception):
    """Nothing follows from the event; the message says why."""


class Unknown(Exception):
    """The event is about something that we do not know: `kind` is `customer` or `payment_intent`, `id` Stripe's."""

    def __init__(self, kind: str, stripe_id: str) -> None:
        self.kind, self.id = kind, stripe_id
        super().__init__(f"{kind} {stripe_id} of Stripe is not known here")


@dataclass(frozen=True)
class Seen:
    """The object of an event as it was then, what it was before where Stripe says so, and what to call the occasion
    that it is read again for."""

    object: dict[str, Any]
    previous: dict[str, Any]
    occasion: str

    def at(self, *path: str) -> str | None:
        """The text that stands in the object at `path`, or the id of the object that is expanded there. None where
        there is nothing, or something else (failures.md 21)."""
        found: Any = self.object
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        if isinstance(found, dict):
            found = found.get("id")
        return found if isinstance(found, str) else None


def _owner(db: Connection, stripe_customer: str | None) -> int:
    """Our customer.

    Raises:
        Ignored: Stripe names none.
        Unknown
    """
    if stripe_customer is None:
        raise Ignored("it names no customer")
    found = db.execute(select(customers.c.id).where(customers.c.stripe_customer_id == stripe_customer))
    customer_id: int | None = found.scalar_one_or_none()
    if customer_id is None:
        raise Unknown("customer", stripe_customer)
    return customer_id


def _object_id(seen: Seen) -> str:
    found = seen.at("id")
    if found is None:
        raise Ignored("its object has no id")
    return found


def _subscription(db: Connection, seen: Seen) -> OfCustomer:
    owner = _owner(db, seen.at("customer"))
    return SyncSubscription(customer_id=owner, subscription_id=_object_id(seen), occasion=seen.occasion)


def _invoice(db: Connection, seen: Seen) -> OfCustomer:
    owner = _owner(db, seen.at("customer"))
    subscription = seen.at("parent", "subscription_details", "subscription")
    if subscription is not None:
        return SyncSubscription(customer_id=owner, subscription_id=subscription, occasion=seen.occasion)
    return SyncInvoices(customer_id=owner, occasion=seen.occasion)


def _intent(db: Connection, seen: Seen) -> OfCustomer:
    """Known by the name that its fix has in Stripe, too: that was there before the intent was (failures.md 7)."""
    fix = seen.at("metadata", "fix")
    if fix is None:
        raise Ignored("it is not the payment of a fix")
    intent = _object_id(seen)
    query = select(charges.c.id, charges.c.customer_id).join(fixes, fixes.c.id == charges.c.fix_id)
    charge = db.execute(query.where(fixes.c.ref == fix)).one_or_none()
    if charge is None:
        raise Unknown("payment_intent", intent)
    return SyncCharge(customer_id=charge.customer_id, charge_id=charge.id, occasion=seen.occasion)


def _payment(db: Connection, seen: Seen) -> OfCustomer:
    """Of a charge, a refund or a dispute."""
    intent = seen.at("payment_intent")
    if intent is None:
        raise Ignored("it names no payment intent")
    query = select(charges.c.id, charges.c.customer_id).where(charges.c.payment_intent == intent)
    charge = db.execute(query).one_or_none()
    if charge is not None:
        return SyncCharge(customer_id=charge.customer_id, charge_id=charge.id, occasion=seen.occasion)
    paid = select(invoices.c.customer_id).join(invoice_payments, invoice_payments.c.invoice_id == invoices.c.id)
    owner = db.execute(paid.where(invoice_payments.c.payment_intent == intent)).scalar_one_or_none()
    if owner is None:
        raise Unknown("payment_intent", intent)
    return SyncInvoicePayment(customer_id=owner, payment_intent=intent, occasion=seen.occasion)


Find = Callable[[Connection, Seen], OfCustomer]


def of_invoice(unknown: Unknown) -> Find | None:
    """What finds the command for a payment that we do not know: Stripe is asked which invoice it paid, so have no
    transaction open. None: it paid none.

    Raises:
        as `app.stripe.client.asking`
    """
    paid = bills.paid_with(unknown.id) if unknown.kind == "payment_intent" else None
    if paid is None:
        return None

    def find(db: Connection, seen: Seen) -> OfCustomer:
        owner = _owner(db, paid[0])
        return SyncInvoicePayment(customer_id=owner, payment_intent=unknown.id, occasion=seen.occasion)

    return find


def is_ours(unknown: Unknown) -> bool:
    """Whether what we do not know is one that we have made, or that Stripe does not know either: Stripe is asked, so
    have no transaction open.

    Raises:
        as `app.stripe.client.asking`
    """
    try:
        if unknown.kind == "customer":
            return stripe_customers.owner(unknown.id) is not None
        return "fix" in (payments.get_intent(unknown.id)["metadata"] or {})
    except NotFound:
        return True


def _checkout(db: Connection, seen: Seen) -> OfCustomer:
    owner = _owner(db, seen.at("customer"))
    return CompleteCheckout(customer_id=owner, session_id=_object_id(seen), occasion=seen.occasion)


def _customer(db: Connection, seen: Seen) -> OfCustomer:
    return SyncCustomer(customer_id=_owner(db, _object_id(seen)), occasion=seen.occasion)


def _of_customer(db: Connection, seen: Seen) -> OfCustomer:
    return SyncCustomer(customer_id=_owner(db, seen.at("customer")), occasion=seen.occasion)


def _payment_method(db: Connection, seen: Seen) -> OfCustomer:
    """One that was detached has no customer any more."""
    before = seen.previous.get("customer")
    stripe_customer = seen.at("customer") or (before if isinstance(before, str) else None)
    if stripe_customer is not None:
        return SyncCustomer(customer_id=_owner(db, stripe_customer), occasion=seen.occasion)
    found = db.execute(select(payment_methods.c.customer_id).where(payment_methods.c.id == _object_id(seen)))
    owner = found.scalar_one_or_none()
    if owner is None:
        raise Ignored("it names no customer")
    return SyncCustomer(customer_id=owner, occasion=seen.occasion)


_TYPES: dict[str, Find] = {
    "charge.dispute.*": _payment,
    "charge.refund.*": _payment,
    "charge.refunded": _payment,
    "checkout.session.*": _checkout,
    "customer.deleted": _customer,
    "customer.subscription.*": _subscription,
    "customer.updated": _customer,
    "invoice.*": _invoice,
    "payment_intent.canceled": _intent,
    "payment_intent.payment_failed": _intent,
    "payment_intent.requires_action": _intent,
    "payment_intent.succeeded": _intent,
    "payment_method.*": _payment_method,
    "refund.*": _payment,
    "setup_intent.succeeded": _of_customer,
}
"""By type, or by its family. What is not here, Stripe may send as much as it likes."""


def finder(event_type: str) -> Find:
    """What finds the command that follows from events of that type; thin ones put the API's version before it.

    Raises:
        Ignored
    """
    name = event_type.removeprefix("v1.")
    found = _TYPES.get(name) or _TYPES.get(f"{name.rpartition('.')[0]}.*")
    if found is None:
        raise Ignored("unknown type")
    return found


def read(event: dict[str, Any], occasion: str) -> tuple[Find, Seen]:
    """What finds the command that follows from `event`, and what to find it by. A thin event's object is read in
    Stripe: have no transaction open.

    Raises:
        Ignored
        Permanent: it has no object.
        as `app.stripe.client.asking`
    """
    if not webhooks.fits_our_key(event):
        raise Ignored("its livemode does not fit our key")
    find = finder(event["type"])
    if webhooks.is_thin(event):
        return find, Seen(webhooks.related_object(event), {}, occasion)
    data = event.get("data")
    data = data if isinstance(data, dict) else {}
    thing, before = data.get("object"), data.get("previous_attributes")
    if not isinstance(thing, dict):
        raise Permanent("the event has no object")
    return find, Seen(thing, before if isinstance(before, dict) else {}, occasion)


# One that begins after now reads what is so after now. Not one that waits for a day of its own, or for a good while.
_UNDER_WAY = """
SELECT id FROM jobs
WHERE serialize_by = %(line)s AND state IN ('queued', 'retrying') AND name = %(name)s
    AND run_at < clock_timestamp() + interval '30 seconds'
    AND starts_with(payload ->> 'occasion', 'event:') AND payload - 'occasion' = %(wanted)s
LIMIT 1
"""


def follow(db: Connection, command: OfCustomer) -> dict[str, Any]:
    """Have `command` done, or leave it to one that will read the same object after now: a burst of events about one
    object costs few requests. Returns what the event's job says of it."""
    wanted = Jsonb(command.model_dump(mode="json", exclude={"occasion"}))
    parameters = {"line": command.serialize_by, "name": command.name, "wanted": wanted}
    waiting = db.exec_driver_sql(_UNDER_WAY, parameters).scalar_one_or_none()
    job_id = waiting or enqueue(db, command).job_id
    joined = {"joined": True} if waiting else {}
    return {"customer_id": command.customer_id, "command": command.name, "job_id": str(job_id), **joined}
