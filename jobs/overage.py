"""Fixes beyond those that Teams includes become one absolute item a period on the subscription's invoice."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row

from app.billing import overage
from app.billing.subscriptions import invoice_late_overage
from app.contracts.billing import SyncOverage
from app.customers import accounts
from app.ledger.errors import AlreadyDone, Busy
from app.ledger.run import Run, handles
from app.stripe import customers
from app.stripe import overage as items
from app.stripe.client import NotFound, Refused


@handles(SyncOverage)
def sync_overage(run: Run[SyncOverage]) -> None:
    """Nothing is asked of Stripe where a job before this one has told it all: a burst of fixes costs few requests."""
    customer_id, start = run.payload.customer_id, run.payload.period_start
    with run.transaction() as db:
        customer = accounts.get(db, customer_id)
    if customer.stripe_deleted_at is not None:
        raise AlreadyDone("the customer was deleted in Stripe: nobody is there to be billed")
    try:
        while _tell_overage(run, customer, start):
            pass
    except NotFound:
        if not customers.is_deleted(customer.stripe_customer_id):
            raise
        with run.finish({"deleted": True}) as db:
            accounts.mark_deleted_in_stripe(db, customer_id)


def _tell_overage(run: Run[SyncOverage], customer: Row[Any], start: datetime) -> bool:
    """Tell Stripe what it does not know of the period's overage; returns whether there was anything."""
    with run.transaction() as db:
        known = overage.read(db, customer.id, start)
    if known.untold == (0, 0):
        return False
    item = items.get_item(known.told[-1].item) if known.told else None
    with run.transaction() as db:
        if item is not None:
            known = overage.learn(db, customer.id, start, known, item)
        call = overage.freeze(db, customer, start, known, item)
    if call is None:
        return False
    if item is not None and item.open:
        try:
            told = items.set_item(call, item.id)
        except Refused as error:  # its invoice was finalized since we looked (failures.md 29)
            raise Busy(f"the item has just changed: it is looked at again ({error})", give_up_after=3600) from None
    else:
        told = items.create_item(call)
    with run.transaction() as db:
        overage.note(db, customer.id, start, told)
        invoice_late_overage(db, customer.id, start, told)
    return True
