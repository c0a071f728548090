"""Notices of the charge of a fix."""

from pydantic import AwareDatetime

from app.mail.notices.base import OfCharge, Url, when

_REASONS = {
    "authentication_required": "the bank wants you to confirm the payment",
    "card_not_supported": "the card does not support this kind of payment",
    "card_velocity_exceeded": "the card has reached its limit",
    "currency_not_supported": "the card does not support US dollars",
    "expired_card": "the card has expired",
    "incorrect_cvc": "the card's security code is wrong",
    "incorrect_number": "the card's number is wrong",
    "insufficient_funds": "the card has not enough funds",
    "invalid_cvc": "the card's security code is wrong",
    "invalid_expiry_month": "the card's expiry date is wrong",
    "invalid_expiry_year": "the card's expiry date is wrong",
    "invalid_number": "the card's number is wrong",
    "issuer_not_available": "the bank could not be reached",
    "no_payment_method": "you have no card with us",
    "payment_method_unavailable": "the card was removed",
    "processing_error": "the bank could not process it",
    "try_again_later": "the bank could not process it",
    "withdrawal_count_limit_exceeded": "the card has reached its limit",
}
"""What we pass on, by Stripe's decline code. Whoever holds the card must not learn that it is reported lost, stolen
or fraudulent, so any other code is the bank's secret."""

_UNSAID = "the bank declined it, and can tell you why"


class ChargeDeclined(OfCharge, kind="charge_declined"):
    """A charge failed."""

    reason: str | None
    """Stripe's decline code, or why there was nothing to try."""
    next_attempt_at: AwareDatetime | None
    """When the same card is tried again; None where only another card helps."""

    @property
    def subject(self) -> str:
        return f"A charge of {self.amount} failed"

    def paragraphs(self) -> list[str]:
        why = _REASONS.get(self.reason or "", _UNSAID)
        card = "a card" if self.reason == "no_payment_method" else "another card"
        if self.next_attempt_at is None:
            then = f"Add {card}: it is charged at once."
        else:
            then = f"We try again on {when(self.next_attempt_at)}. If you add {card}, it is charged at once."
        return [f"We could not charge {self.amount} for {self.fix}: {why}.", then]


class AuthenticationRequired(OfCharge, kind="authentication_required"):
    """The bank wants to hear the customer before it pays."""

    url: Url
    """Where the customer completes the payment."""

    @property
    def subject(self) -> str:
        return f"Please confirm a payment of {self.amount}"

    def paragraphs(self) -> list[str]:
        return [
            f"Your bank wants you to confirm the {self.amount} for {self.fix}. Nothing is charged until you have.",
        ]

    def action(self) -> tuple[str, str]:
        return "Confirm the payment", self.url


class ChargeUncollectible(OfCharge, kind="charge_uncollectible"):
    """All attempts at a charge have failed."""

    @property
    def subject(self) -> str:
        return f"A charge of {self.amount} is still open"

    def paragraphs(self) -> list[str]:
        return [
            f"We have tried several times to charge {self.amount} for {self.fix}, and do not try again by ourselves."
            " Your account is past due.",
            "Add another card: it is charged at once, together with whatever else is open.",
        ]


class ChargeWrittenOff(OfCharge, kind="charge_written_off"):
    """A charge that had failed is asked for no longer."""

    @property
    def subject(self) -> str:
        return f"You no longer owe {self.amount}"

    def paragraphs(self) -> list[str]:
        return [f"We no longer ask for {self.amount} for {self.fix}, which could not be charged. You need do nothing."]


class ChargeSucceeded(OfCharge, kind="charge_succeeded"):
    """A charge that had failed was paid."""

    @property
    def subject(self) -> str:
        return f"Your payment of {self.amount} went through"

    def paragraphs(self) -> list[str]:
        return [f"The {self.amount} for {self.fix}, which could not be charged before, are paid. You need do nothing."]
