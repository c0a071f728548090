"""Subscriptions to Teams (stripe.md, "Teams" and "Shapes that moved")."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.ledger.errors import Permanent
from app.stripe.calls import Call
from app.stripe.client import asking, client, metadata, send, since

_ENDED = ("canceled", "incomplete_expired")


@dataclass(frozen=True)
class Subscription:
    """A subscription as Stripe shows it.

    `owner`: the customer of ours whose it is, by its metadata. `cancels`: it ends with its period; `cancelled_at`:
    when that was last asked for. `period_start`, `period_end`: the current period. `trial_end`: when free time that
    somebody gave the customer ends.
    """

    id: str
    customer: str
    owner: str | None
    status: str
    cancels: bool
    cancelled_at: datetime | None
    payment_method: str | None
    period_start: datetime
    period_end: datetime
    created_at: datetime
    ended_at: datetime | None
    trial_end: datetime | None

    @property
    def incomplete(self) -> bool:
        """Its first payment has not come: it gives no service, and Stripe throws it away by itself."""
        return self.status in ("incomplete", "incomplete_expired")

    @property
    def past_due(self) -> bool:
        return self.status in ("past_due", "unpaid")


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def read(found: dict[str, Any]) -> Subscription:
    """What Stripe shows of a subscription."""
    item = found["items"]["data"][0]
    ended = found["status"] in _ENDED
    # An end that was set for a later day in the dashboard is no end of this period.
    cancels = found["cancel_at_period_end"] or (found["cancel_at"] or math.inf) <= item["current_period_end"]
    return Subscription(
        id=found["id"],
        customer=found["customer"],
        owner=found["metadata"].get("customer_id"),
        status=found["status"],
        cancels=cancels and not ended,
        cancelled_at=_time(found["canceled_at"]) if found["canceled_at"] else None,
        payment_method=found["default_payment_method"],
        period_start=_time(item["current_period_start"]),
        period_end=_time(item["current_period_end"]),
        created_at=_time(found["start_date"]),
        ended_at=_time(found["ended_at"] or item["current_period_end"]) if ended else None,
        trial_end=_time(found["trial_end"]) if found["trial_end"] else None,
    )


def parameters(
    *, stripe_customer: str, customer_id: int, price: str, payment_method: str, request: str
) -> dict[str, Any]:
    """What a subscription is created with. It is created paid, or not at all; the metadata is how it is found again."""
    return {
        "customer": stripe_customer,
        "items": [{"price": price}],
        "default_payment_method": payment_method,
        "payment_behavior": "error_if_incomplete",
        "off_session": True,
        "metadata": {"customer_id": str(customer_id), "request": request},
    }


def create(call: Call) -> Subscription:
    """The subscription that `call` creates, or has created in an earlier attempt.

    Raises:
        Declined: the first month could not be charged; there is no subscription.
        as `app.stripe.client.send`
    """
    return send(call, lambda given, options: read(client().v1.subscriptions.create(given, options).to_dict()), find)


def find(call: Call) -> Subscription | None:
    """The subscription that `call` has created, if it has.

    Raises:
        as `app.stripe.client.asking`
    """
    wanted = call.parameters["metadata"]["request"]
    with asking():
        page = client().v1.subscriptions.list(
            {
                "customer": call.parameters["customer"],
                "status": "all",
                "created": {"gte": since(call)},
                "limit": 100,
            }
        )
        for found in page.auto_paging_iter():
            if metadata(found).get("request") == wanted:
                return read(found.to_dict())
    return None


def had_one(stripe_customer: str, customer_id: int) -> bool:
    """Whether the customer has, or has ever had, a subscription of ours.

    Raises:
        as `app.stripe.client.asking`
    """
    with asking():
        page = client().v1.subscriptions.list({"customer": stripe_customer, "status": "all", "limit": 100})
        found = [read(one.to_dict()) for one in page.auto_paging_iter()]
    return any(one.owner == str(customer_id) and not one.incomplete for one in found)


def find_open(stripe_customer: str, customer_id: int) -> Subscription | None:
    """The subscription that the customer has already, if any: nobody pays for Teams twice.

    Raises:
        Permanent: one that is not ours is in the way.
        as `app.stripe.client.asking`
    """
    with asking():
        page = client().v1.subscriptions.list({"customer": stripe_customer, "limit": 100})
        found = [read(one.to_dict()) for one in page.auto_paging_iter()]
    for subscription in found:
        if subscription.incomplete:
            continue
        if subscription.owner != str(customer_id):
            raise Permanent(f"the customer has a subscription in Stripe that is not ours: {subscription.id}")
        return subscription
    return None


def retrieve(subscription_id: str) -> Subscription:
    """The subscription as it is now.

    Raises:
        as `app.stripe.client.asking`
    """
    with asking():
        return read(client().v1.subscriptions.retrieve(subscription_id).to_dict())


def set_payment_method(subscription_id: str, payment_method: str | None) -> None:
    """What the subscription's invoices are charged to, also when a payment is retried; None for the customer's."""
    with asking():
        client().v1.subscriptions.update(subscription_id, {"default_payment_method": payment_method or ""})


def set_cancels(subscription_id: str, cancels: bool) -> Subscription:
    """Have it end with its current period, or take that back. One that has ended is left as it is."""
    found = retrieve(subscription_id)
    if found.ended_at is not None or found.cancels == cancels:
        return found
    with asking():
        changed = client().v1.subscriptions.update(subscription_id, {"cancel_at_period_end": cancels})
    return read(changed.to_dict())


def cancel(subscription_id: str) -> Subscription:
    """End it now: what is pending is invoiced, the rest of a period that was paid for given back. One that has ended is
    left as it is, so that a second time invoices nothing (Stripe keeps no idempotency keys of a DELETE)."""
    found = retrieve(subscription_id)
    if found.ended_at is not None:
        return found
    paid_for = not found.past_due  # Stripe would credit the rest of a month for which nobody has paid
    with asking():
        ended = client().v1.subscriptions.cancel(subscription_id, {"invoice_now": True, "prorate": paid_for})
    return read(ended.to_dict())
