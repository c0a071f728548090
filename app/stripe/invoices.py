"""Invoices: those that Stripe makes of subscriptions, and the one that we ask for after the last of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.stripe.calls import Call
from app.stripe.client import asking, client, metadata, send, since


@dataclass(frozen=True)
class Invoice:
    """An invoice as Stripe shows it. Money in cents. `due_cents`: what is still asked for, which is less than the total
    where a credit has paid a part. `subscription`: that which it bills, if any. `of_teams`: it bills one, or what was
    left when one had ended. `wants_customer`: the bank wants to hear them before it pays. `failed_alone`: it was tried
    and is not paid, and belongs to no subscription that would be past due for it. `payable`: it is of Teams, and was
    tried in vain on a card: another can pay it. `paid_by`: the payment intents that paid it, as far as they were looked
    at."""

    id: str
    number: str | None
    status: str
    currency: str
    total_cents: int
    paid_cents: int
    due_cents: int
    hosted_url: str | None
    created_at: datetime
    subscription: str | None = None
    of_teams: bool = False
    wants_customer: bool = False
    failed_alone: bool = False
    payable: bool = False
    paid_by: tuple[str, ...] = ()


def _read(found: dict[str, Any], *, wants_customer: bool = False) -> Invoice:
    subscription = _subscription(found["parent"])
    failed = found["status"] == "open" and found["attempted"]
    of_teams = subscription is not None or "final_of" in (found["metadata"] or {})
    return Invoice(
        id=found["id"],
        number=found["number"],
        status=found["status"] or "draft",
        currency=found["currency"],
        total_cents=found["total"],
        paid_cents=found["amount_paid"],
        due_cents=found["amount_remaining"],
        hosted_url=found["hosted_invoice_url"],
        created_at=datetime.fromtimestamp(found["created"], UTC),
        subscription=subscription,
        of_teams=of_teams,
        wants_customer=wants_customer,
        failed_alone=failed and subscription is None,
        payable=failed and of_teams and found["collection_method"] == "charge_automatically",
        paid_by=tuple(_paid_by(found.get("payments"))),
    )


def _subscription(parent: dict[str, Any] | None) -> str | None:
    """The subscription that an invoice bills. One made by hand has no parent, one of a quote has another kind of it."""
    details = (parent or {}).get("subscription_details") or {}
    found: str | None = details.get("subscription")
    return found


def _paid_by(payments: dict[str, Any] | None) -> Iterator[str]:
    """The intents of an invoice's payments. One that was paid out of band has none."""
    for made in payments["data"] if payments else ():
        intent = made["payment"].get("payment_intent")
        if made["status"] == "paid" and intent is not None:
            yield intent


def of_customer(stripe_customer: str) -> list[Invoice]:
    """All invoices of a Stripe customer.

    Raises:
        as `app.stripe.client.asking`
    """
    with asking():
        page = client().v1.invoices.list({"customer": stripe_customer, "expand": ["data.payments"], "limit": 100})
        found = [invoice.to_dict() for invoice in page.auto_paging_iter()]
    return [_read(invoice, wants_customer=_wants_customer(invoice)) for invoice in found]


def paid_with(payment_intent: str) -> tuple[str, Invoice] | None:
    """The invoice that the intent is a payment of, and its Stripe customer; None: it is of no invoice.

    Raises:
        as `app.stripe.client.asking`
    """
    paid: Any = {"type": "payment_intent", "payment_intent": payment_intent}
    with asking():
        page = client().v1.invoice_payments.list({"payment": paid, "expand": ["data.invoice.payments"], "limit": 1})
    if not page.data:
        return None
    found = page.data[0].to_dict()["invoice"]
    return found["customer"], _read(found)


def all_of_customers() -> Iterator[tuple[str, Invoice]]:
    """Every invoice in Stripe that a payment was made of, with its Stripe customer."""
    with asking():
        page = client().v1.invoices.list({"status": "paid", "expand": ["data.payments"], "limit": 100})
    for invoice in page.auto_paging_iter():
        found = invoice.to_dict()
        yield found["customer"], _read(found)


def _wants_customer(found: dict[str, Any]) -> bool:
    """Only of an open invoice that was tried: it costs a request."""
    if found["status"] != "open" or not found["attempted"]:
        return False
    wanted = {"invoice": found["id"], "status": "open", "expand": ["data.payment.payment_intent"], "limit": 100}
    with asking():
        page = client().v1.invoice_payments.list(wanted)  # type: ignore[arg-type]  # a plain dict, not the SDK's type
        payments = [payment.to_dict()["payment"] for payment in page.auto_paging_iter()]
    intents = [payment.get("payment_intent") or {} for payment in payments]
    return any(intent.get("status") == "requires_action" for intent in intents)


def has_pending(stripe_customer: str) -> bool:
    """Whether anything of the customer waits for an invoice."""
    with asking():
        page = client().v1.invoice_items.list({"customer": stripe_customer, "pending": True, "limit": 1})
    return bool(page.data)


def final_parameters(*, stripe_customer: str, currency: str, ref: str) -> dict[str, Any]:
    """What an invoice after a subscription's end is created with: all that is pending. Stripe finalizes and charges
    it by itself within about an hour. `ref`, in the metadata, is how it is found again."""
    return {
        "customer": stripe_customer,
        "currency": currency,
        "pending_invoice_items_behavior": "include",
        "auto_advance": True,
        "collection_method": "charge_automatically",
        "metadata": {"final_of": ref},
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


def pay(invoice_id: str, call: Call) -> Invoice:
    """Charge an open invoice, now, to the payment method in the call's parameters. An invoice is paid once at most.

    Raises:
        Declined: the bank refused; the invoice stays open.
        as `app.stripe.client.send`
    """

    def do(given: Any, options: Any) -> Invoice:
        return _read(client().v1.invoices.pay(invoice_id, given, options).to_dict())

    def find(_: Call) -> Invoice | None:
        with asking():
            found = _read(client().v1.invoices.retrieve(invoice_id).to_dict())
        return found if found.status == "paid" else None

    return send(call, do, find)
