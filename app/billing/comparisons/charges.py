"""Charges, which are payment intents in Stripe."""

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, or_, select

from app.billing.charges import OVER
from app.billing.comparisons.comparison import NOTHING, Comparison, Difference, Repair, named, owners_of
from app.billing.tables import charges, fixes
from app.contracts.webhooks import RememberIntent, SyncCharge
from app.stripe import calls, history
from app.stripe.history import Page


def _charges_expected(db: Connection, since: datetime) -> dict[str, Difference]:
    """An old one that is open still: its customer may have paid by a link."""
    compared = or_(charges.c.created_at >= since, charges.c.state.not_in(OVER))
    there = select(charges).where(charges.c.payment_intent.is_not(None), compared)
    advice = "Stripe does not have it: is this the right Stripe account?"
    return {
        row.payment_intent: Difference("charge_is_there", f"charge:{row.id}", row.state, NOTHING, advice=advice)
        for row in db.execute(there)
    }


def _charges_differ(db: Connection, page: Page) -> Iterator[Difference]:
    ours = [seen for seen in page if "fix" in (seen["metadata"] or {})]
    query = select(charges, fixes.c.ref).join(charges, charges.c.fix_id == fixes.c.id)
    rows = db.execute(query.where(fixes.c.ref.in_([seen["metadata"]["fix"] for seen in ours])))
    known = {row.ref: row for row in rows}
    owners = owners_of(db, (seen["customer"] for seen in ours if seen["metadata"]["fix"] not in known))
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
    if owner is None or named(seen, "fix_id") is None:
        advice = "it is of a customer who is not here, or not made by us: no fix that is sent again finds it"
        yield difference(NOTHING, theirs, advice=advice)
    elif calls.latest(db, f"fix:{seen['metadata']['fix']}:pi") is None:
        repair = Repair(RememberIntent, {"customer_id": owner.id, "payment_intent": seen["id"]})
        yield difference(NOTHING, theirs, repair, advice=again)
    elif seen["amount_received"]:
        yield difference("remembered, without its fix", theirs, advice=again)


def _moved_on(charge: Row[Any], status: str) -> bool:
    """Whether Stripe knows of an outcome that we do not. A payment that waits for a card is where we left it."""
    if status == "succeeded":
        return bool(charge.state != "succeeded")
    if status == "canceled":
        return bool(charge.state != "written_off")
    return status == "requires_action" and charge.state in ("pending", "declined")


CHARGES = Comparison(_charges_expected, history.intents, _charges_differ, "payment_intents")
