"""Invoices: those that Stripe makes of subscriptions, and the one that we ask for after the last of them."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.stripe.calls import Call
from app.stripe.client import asking, client, metadata, send, since


@dataclass(frozen=True)
class Invoice:
    """An invoice as Stripe shows it. Money in cents."""

    id: str
    number: str | None
    status: str
    currency: str
    total_cents: int
    paid_cents: int
    hosted_url: str | None
    created_at: datetime


def _read(found: dict[str, Any]) -> Invoice:
    return Invoice(
        id=found["id"],
        number=found["number"],
        status=found["status"] or "draft",
        currency=found["currency"],
        total_cents=found["total"],
        paid_cents=found["amount_paid"],
        hosted_url=found["hosted_invoice_url"],
        created_at=datetime.fromtimestamp(found["created"], UTC),
    )


def of_customer(stripe_customer: str) -> list[Invoice]:
    """All invoices of a Stripe customer.

    Raises:
        as `app.stripe.client.asking`
    """
    with asking():
        page = client().v1.invoices.list({"customer": stripe_customer, "limit": 100})
        return [_read(found.to_dict()) for found in page.auto_paging_iter()]


def has_pending(stripe_customer: str) -> bool:
    """Whether anything of the customer waits for an invoice."""
    with asking():
        page = client().v1.invoice_items.list({"customer": stripe_customer, "pending": True, "limit": 1})
    return bool(page.data)


def final_parameters(*, stripe_customer: str, currency: str, subscription_id: str) -> dict[str, Any]:
    """What the invoice after a subscription's end is created with: all that is pending. Stripe finalizes and charges
    it by itself within about an hour. The metadata is how it is found again."""
    return {
        "customer": stripe_customer,
        "currency": currency,
        "pending_invoice_items_behavior": "include",
        "auto_advance": True,
        "collection_method": "charge_automatically",
        "metadata": {"final_of": subscription_id},
    }


def create(call: Call) -> Invoice:
    """The invoice that `call` creates, or has created in an earlier attempt.

    Raises:
        as `app.stripe.client.send`
    """
    return send(call, lambda given, options: _read(client().v1.invoices.create(given, options).to_dict()), _find)


def _find(call: Call) -> Invoice | None:
    wanted = call.parameters["metadata"]["final_of"]
    with asking():
        page = client().v1.invoices.list(
            {"customer": call.parameters["customer"], "created": {"gte": since(call)}, "limit": 100}
        )
        for found in page.auto_paging_iter():
            if metadata(found).get("final_of") == wanted:
                return _read(found.to_dict())
    return None
