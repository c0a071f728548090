"""Payment methods: cards that Stripe keeps, and whose they are."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.ledger.errors import Permanent
from app.stripe.calls import Call
from app.stripe.client import NotFound, Refused, asking, client, send


@dataclass(frozen=True)
class Card:
    """A card as Stripe shows it. `customer`: the Stripe customer that it is attached to. `created_at`: when it was
    entered."""

    id: str
    customer: str | None
    brand: str
    last4: str
    exp_month: int
    exp_year: int
    created_at: datetime


@dataclass(frozen=True)
class Wallet:
    """The cards of a customer in Stripe, the newest first, and the payment method that invoices are charged to, which
    may be none of them: `default_is_no_card` where somebody chose a bank debit in the dashboard, say."""

    cards: list[Card]
    default: str | None
    default_is_no_card: bool = False


def _read(method: dict[str, Any]) -> Card:
    if method["type"] != "card":
        raise Permanent(f"only cards are taken: payment method {method['id']} is {method['type']}")
    card = method["card"]
    expiry = (card["exp_month"], card["exp_year"])
    created_at = datetime.fromtimestamp(method["created"], UTC)
    return Card(method["id"], method["customer"], card["brand"], card["last4"], *expiry, created_at)


def retrieve(payment_method: str) -> Card:
    """The card as it is now.

    Raises:
        as `asking`; Permanent: it is no card.
    """
    with asking():
        found = client().v1.payment_methods.retrieve(payment_method)
    return _read(found.to_dict())


def is_newest(default: str | None, card: Card) -> bool:
    """Whether the customer's default, if any, was entered before their `card`. One that came later is the newer choice.

    Raises:
        as `asking`
    """
    if default is None:
        return True
    known = retrieve(default)
    return known.customer != card.customer or known.created_at <= card.created_at


def wallet(stripe_customer: str) -> Wallet | None:
    """The customer's cards as they are now; None: the customer was deleted. What is no card is not listed.

    Raises:
        as `app.stripe.client.asking`
    """
    with asking():
        customer = client().v1.customers.retrieve(stripe_customer).to_dict()
    if customer.get("deleted"):
        return None
    with asking():
        page = client().v1.payment_methods.list({"customer": stripe_customer, "type": "card", "limit": 100})
        cards = [_read(method.to_dict()) for method in page.auto_paging_iter()]
    default = customer["invoice_settings"]["default_payment_method"]
    unlisted = default is not None and default not in [card.id for card in cards]
    return Wallet(cards, default, unlisted and _is_no_card_of(stripe_customer, default))


def _is_no_card_of(stripe_customer: str, payment_method: str) -> bool:
    """Whether the payment method is the customer's and no card. A card was taken away just now."""
    try:
        with asking():
            found = client().v1.customers.payment_methods.retrieve(stripe_customer, payment_method)
    except NotFound:
        return False
    return found.type != "card"


def attach_parameters(*, stripe_customer: str, payment_method: str) -> dict[str, Any]:
    """What an attachment is frozen with: whose the payment method becomes."""
    return {"customer": stripe_customer, "payment_method": payment_method}


def attach(call: Call) -> Card:
    """The card, attached to the customer of `call`; one that is theirs already is left as it is.

    Raises:
        Permanent: it belongs to another customer, is no card, was detached before, or there is none.
        Declined: the bank refuses it.
        as `app.stripe.client.send`
    """
    customer, method = call.parameters["customer"], call.parameters["payment_method"]
    try:
        known = retrieve(method)
    except NotFound:
        known = None  # one of Stripe's test ids becomes a payment method when it is attached
    if known is not None and known.customer == customer:
        return known
    if known is not None and known.customer is not None:
        raise Permanent("the payment method belongs to another customer")
    try:
        return send(
            call,
            lambda _, options: _read(
                client().v1.payment_methods.attach(method, {"customer": customer}, options).to_dict()
            ),
            # It has just been looked at, and is not attached.
            lambda _: None,
        )
    except NotFound:
        raise Permanent("Stripe knows no such payment method") from None
    except Refused as error:
        raise Permanent(f"the payment method cannot be attached: was it detached before? {error}") from None


def set_default(stripe_customer: str, payment_method: str | None) -> None:
    """What invoices of the customer are charged to; None for nothing."""
    with asking():
        client().v1.customers.update(
            stripe_customer, {"invoice_settings": {"default_payment_method": payment_method or ""}}
        )


def detach(payment_method: str) -> None:
    """Take the payment method from its customer, for good; one that is nobody's, or gone, is left as it is."""
    try:
        if retrieve(payment_method).customer is None:
            return
    except NotFound:
        return
    with asking():
        client().v1.payment_methods.detach(payment_method)
