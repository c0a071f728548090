"""Stripe's test cards, by the names in `pm_card_…` and `tok_…`, and what a bank says to each."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from app.sandbox.stripe.errors import ApiError, Extra, InvalidState
from app.sandbox.stripe.objects import Object


@dataclass(frozen=True)
class Decline:
    """A bank's refusal, in Stripe's codes; `advice` is what Stripe says of trying again."""

    code: str
    decline_code: str
    message: str
    advice: str | None = None

    def error(self, extra: Extra) -> ApiError:
        """The 402 that is answered for it. What the attempt left behind is kept, and remembered by the key."""
        named = {"decline_code": self.decline_code} | ({"advice_code": self.advice} if self.advice else {})
        return ApiError(402, self.message, kind="card_error", code=self.code, commits=True, extra=named | extra)


GENERIC = Decline("card_declined", "generic_decline", "Your card was declined.", "try_again_later")
INSUFFICIENT_FUNDS = Decline(
    "card_declined", "insufficient_funds", "Your card has insufficient funds.", "try_again_later"
)
LOST = Decline("card_declined", "lost_card", "Your card was declined.", "do_not_try_again")
STOLEN = Decline("card_declined", "stolen_card", "Your card was declined.", "do_not_try_again")
EXPIRED = Decline("expired_card", "expired_card", "Your card has expired.", "confirm_card_data")
WRONG_CVC = Decline("incorrect_cvc", "incorrect_cvc", "Your card's security code is incorrect.", "confirm_card_data")
PROCESSING = Decline(
    "processing_error",
    "processing_error",
    "An error occurred while processing your card. Try again in a little bit.",
    "try_again_later",
)
TOO_OFTEN = Decline(
    "card_declined",
    "card_velocity_exceeded",
    "Your card was declined for making repeated attempts too frequently or exceeding its amount limit.",
)
UNAUTHENTICATED = Decline(
    "authentication_required",
    "authentication_required",
    "Your card was declined. This transaction requires authentication.",
)


class Authentication(Enum):
    """When a card wants its holder to confirm: never, for every payment, or until it was set up once."""

    NEVER = "never"
    ALWAYS = "always"
    UNTIL_SET_UP = "until set up"


@dataclass(frozen=True)
class Card:
    """A test card. `attaches` is false for one that the bank refuses before it is ever charged."""

    number: str
    decline: Decline | None = None
    attaches: bool = True
    authentication: Authentication = Authentication.NEVER
    brand: str = "visa"
    refund_fails: bool = False
    disputed_as: str | None = None


def _refused(number: str, decline: Decline) -> Card:
    return Card(number, decline, attaches=False)


CARDS: dict[str, Card] = {
    "visa": Card("4242424242424242"),
    "mastercard": Card("5555555555554444", brand="mastercard"),
    "amex": Card("378282246310005", brand="amex"),
    "chargeDeclined": _refused("4000000000000002", GENERIC),
    "chargeDeclinedInsufficientFunds": _refused("4000000000009995", INSUFFICIENT_FUNDS),
    "chargeDeclinedLostCard": _refused("4000000000009987", LOST),
    "chargeDeclinedStolenCard": _refused("4000000000009979", STOLEN),
    "chargeDeclinedExpiredCard": _refused("4000000000000069", EXPIRED),
    "chargeDeclinedIncorrectCvc": _refused("4000000000000127", WRONG_CVC),
    "chargeDeclinedProcessingError": _refused("4000000000000119", PROCESSING),
    "chargeDeclinedVelocityLimitExceeded": _refused("4000000000006975", TOO_OFTEN),
    "chargeCustomerFail": Card("4000000000000341", GENERIC),
    "authenticationRequired": Card("4000002760003184", authentication=Authentication.ALWAYS),
    "authenticationRequiredOnSetup": Card("4000002500003155", authentication=Authentication.UNTIL_SET_UP),
    "authenticationRequiredChargeDeclinedInsufficientFunds": Card(
        "4000008260003178", INSUFFICIENT_FUNDS, authentication=Authentication.ALWAYS
    ),
    "threeDSecure2Required": Card("4000000000003220", authentication=Authentication.ALWAYS),
    "refundFail": Card("4000000000005126", refund_fails=True),
    "createDispute": Card("4000000000000259", disputed_as="fraudulent"),
}

_BY_NUMBER = {card.number: name for name, card in CARDS.items()}


def by_test_id(test_id: str) -> str | None:
    """The card that a test id names, such as `pm_card_visa_chargeDeclined` or `tok_threeDSecure2Required`."""
    for prefix in ("pm_card_", "tok_"):
        if test_id.startswith(prefix):
            name = test_id.removeprefix(prefix)
            return name if name in CARDS else _without_brand(name)
    return None


def _without_brand(name: str) -> str | None:
    short = name.removeprefix("visa_")
    return short if short in CARDS else None


def by_number(number: str) -> str | None:
    return _BY_NUMBER.get(number.replace(" ", ""))


class Verdict(Enum):
    APPROVED = "approved"
    AUTHENTICATE = "authenticate"


def card_of(method: Object) -> Card:
    """The test card behind a payment method. Raises `InvalidState` where it is no card: only cards are charged here."""
    if method["type"] != "card":
        raise InvalidState(f"This sandbox charges cards only, and the payment method is {method['type']}.")
    return CARDS[method["_card"]]


def authorize(method: Object, moment: int, authenticated: bool) -> Verdict | Decline:
    """What the bank says to a charge on a payment method at a time, seconds since 1970."""
    card = card_of(method)
    if expired(method, moment):
        return EXPIRED
    if not (authenticated or method.get("_holder_consents")) and _wants_authentication(card, method):
        return Verdict.AUTHENTICATE
    return card.decline or Verdict.APPROVED


def _wants_authentication(card: Card, method: Object) -> bool:
    if card.authentication is Authentication.UNTIL_SET_UP:
        return not method.get("_set_up")
    return card.authentication is Authentication.ALWAYS


def authorize_setup(method: Object, moment: int, authenticated: bool) -> Verdict | Decline:
    """What the bank says to keeping a payment method for later."""
    card = card_of(method)
    if expired(method, moment):
        return EXPIRED
    if card.decline and not card.attaches:
        return card.decline
    if not authenticated and card.authentication is not Authentication.NEVER:
        return Verdict.AUTHENTICATE
    return Verdict.APPROVED


def expired(method: Object, moment: int) -> bool:
    """Whether the month that a card is good until is over."""
    today = datetime.fromtimestamp(moment, UTC)
    return (method["card"]["exp_year"], method["card"]["exp_month"]) < (today.year, today.month)
