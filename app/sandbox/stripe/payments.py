"""How a payment intent is paid, declined or sent to its holder for authentication: one attempt after another.

What follows a payment elsewhere (an invoice is paid by one) is registered by who wants to know.
"""

from collections.abc import Callable
from typing import Any

from app.sandbox.stripe.account import Account
from app.sandbox.stripe.cards import UNAUTHENTICATED, Decline, Verdict, authorize
from app.sandbox.stripe.errors import InvalidState
from app.sandbox.stripe.objects import Object, new_id, public, random_chars
from app.sandbox.stripe.resources.charges import make_charge

Follow = Callable[[Account, Object], None]

_when_paid: list[Follow] = []

CONFIRMABLE = ("requires_payment_method", "requires_confirmation", "requires_action")
CANCELABLE = (*CONFIRMABLE, "requires_capture", "processing")


def when_paid(follow: Follow) -> Follow:
    """`@when_paid` on what is to follow once an intent has succeeded."""
    _when_paid.append(follow)
    return follow


def new_intent(account: Account, customer: Object | None, amount: int, currency: str, **fields: Any) -> Object:
    """A payment intent of so many cents that nobody has confirmed yet; not kept by the store so far."""
    intent_id = new_id("pi")
    intent: Object = {
        "id": intent_id,
        "object": "payment_intent",
        "amount": amount,
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "application": None,
        "application_fee_amount": None,
        "automatic_payment_methods": None,
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": "automatic",
        "client_secret": f"{intent_id}_secret_{random_chars(25)}",
        "confirmation_method": "automatic",
        "created": account.now(customer),
        "currency": currency,
        "customer": customer["id"] if customer else None,
        "customer_account": None,
        "description": None,
        "excluded_payment_method_types": None,
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": account.livemode,
        "managed_payments": None,
        "metadata": {},
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_configuration_details": None,
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": ["card"],
        "processing": None,
        "receipt_email": None,
        "review": None,
        "setup_future_usage": None,
        "shipping": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": "requires_payment_method",
        "transfer_data": None,
        "transfer_group": None,
        "_clock": customer["_clock"] if customer else None,
    }
    return intent | fields


def unexpected_state(intent: Object, wish: str) -> InvalidState:
    """The error for an intent that is past what is wished of it, such as being confirmed twice."""
    return InvalidState(
        f"You cannot {wish} this PaymentIntent because it has a status of {intent['status']}.",
        code="payment_intent_unexpected_state",
        extra={"payment_intent": public(intent)},
    )


def attempt(
    account: Account,
    intent: Object,
    method: Object,
    *,
    off_session: bool,
    return_url: str | None = None,
    authenticated: bool = False,
) -> Object:
    """Charges a payment method for an intent. Answers with the intent, succeeded or waiting for its holder.

    Raises the 402 of a decline, with everything that it left behind. Off session there is no holder to ask,
    so wanting authentication is a decline like others.
    """
    moment = account.now(intent)
    verdict = authorize(method, moment, authenticated)
    if verdict is Verdict.AUTHENTICATE and not off_session:
        return _ask_holder(account, intent, method, return_url)
    if verdict is Verdict.APPROVED:
        return _succeed(account, intent, method, moment)
    _decline(account, intent, method, verdict if isinstance(verdict, Decline) else UNAUTHENTICATED, moment)
    return intent


def answer_for_holder(account: Account, intent: Object, consents: bool) -> Object:
    """What the holder of the card said when asked to authenticate. Raises as `attempt` does, and
    `InvalidState` where nobody was asked."""
    if intent["status"] != "requires_action":
        raise unexpected_state(intent, "authenticate")
    method = account.get("payment_method", intent["payment_method"])
    if consents:
        return attempt(account, intent, method, off_session=False, authenticated=True)
    refusal = Decline(
        "payment_intent_authentication_failure",
        "authentication_failure",
        "The provided PaymentMethod has failed authentication.",
    )
    _decline(account, intent, method, refusal, account.now(intent))
    return intent


def cancel(account: Account, intent: Object, reason: str | None) -> Object:
    """Ends an intent that was not paid. Raises `InvalidState` for one that is over."""
    if intent["status"] not in CANCELABLE:
        raise unexpected_state(intent, "cancel")
    intent |= {
        "status": "canceled",
        "canceled_at": account.now(intent),
        "cancellation_reason": reason,
        "next_action": None,
    }
    return account.save(intent, "payment_intent.canceled")


def _succeed(account: Account, intent: Object, method: Object, moment: int) -> Object:
    charge = make_charge(account, intent, method, None, moment)
    intent |= {
        "amount_received": intent["amount"],
        "last_payment_error": None,
        "latest_charge": charge["id"],
        "next_action": None,
        "payment_method": method["id"],
        "status": "succeeded",
    }
    account.save(intent, "payment_intent.succeeded")
    for follow in _when_paid:
        follow(account, intent)
    return intent


def _ask_holder(account: Account, intent: Object, method: Object, return_url: str | None) -> Object:
    url = f"{account.base_url}/authenticate/{intent['id']}"
    if return_url:
        action: Object = {"type": "redirect_to_url", "redirect_to_url": {"url": url, "return_url": return_url}}
    else:
        action = {
            "type": "use_stripe_sdk",
            "use_stripe_sdk": {"type": "three_d_secure_redirect", "stripe_js": url},
        }
    intent |= {"next_action": action, "payment_method": method["id"], "status": "requires_action"}
    return account.save(intent, "payment_intent.requires_action")


def _decline(account: Account, intent: Object, method: Object, decline: Decline, moment: int) -> None:
    charge = make_charge(account, intent, method, decline, moment)
    error = decline.error({"charge": charge["id"], "payment_method": public(method)})
    intent |= {
        "last_payment_error": error.details(),
        "latest_charge": charge["id"],
        "next_action": None,
        "payment_method": None,
        "status": "requires_payment_method",
    }
    account.save(intent, "payment_intent.payment_failed")
    error.extra["payment_intent"] = public(intent)
    raise error
