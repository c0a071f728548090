"""Notices of money that goes back, or that a bank is asked to take back."""

from app.mail.notices.base import OfCharge, OfInvoice

_DISPUTED = {
    "credit_not_processed": "a refund has not come",
    "duplicate": "it was charged twice",
    "fraudulent": "they did not make it",
    "product_not_received": "they have not received what it is for",
    "product_unacceptable": "what it is for is not as described",
    "subscription_canceled": "it was cancelled",
    "unrecognized": "they do not recognize it",
}
"""What the holder of a card says, by Stripe's reason of a dispute."""


def _sent_back(amount: str, what: str) -> str:
    return f"We have sent {amount} for {what} back to your card. Banks take five to ten days to show it."


def _came_back(amount: str, what: str) -> list[str]:
    return [
        f"We sent {amount} for {what} back to your card, but your bank could not book it and returned it to us.",
        "Please write to us, so that we find another way to give it back to you.",
    ]


def _disputed(amount: str, what: str, reason: str | None) -> list[str]:
    said = _DISPUTED.get(reason or "")
    why = f" They say that {said}." if said else ""
    return [
        f"The holder of your card has disputed our charge of {amount} for {what} with their bank.{why}",
        "If that is right, you need do nothing: the bank decides. If it is a mistake, ask the bank to take the"
        " dispute back, and write to us: we can refund a charge without the bank.",
    ]


class Refunded(OfCharge, kind="refunded"):
    """A charge was given back, or a part of it."""

    @property
    def subject(self) -> str:
        return f"We have refunded {self.amount}"

    def paragraphs(self) -> list[str]:
        return [_sent_back(self.amount, self.fix)]


class InvoiceRefunded(OfInvoice, kind="invoice_refunded"):
    """What was paid for Teams was given back, or a part of it."""

    @property
    def subject(self) -> str:
        return f"We have refunded {self.amount}"

    def paragraphs(self) -> list[str]:
        return [_sent_back(self.amount, self.invoice)]


class RefundFailed(OfCharge, kind="refund_failed"):
    """What was given back of a charge did not arrive."""

    @property
    def subject(self) -> str:
        return f"Our refund of {self.amount} did not arrive"

    def paragraphs(self) -> list[str]:
        return _came_back(self.amount, self.fix)


class InvoiceRefundFailed(OfInvoice, kind="invoice_refund_failed"):
    """What was given back of a payment for Teams did not arrive."""

    @property
    def subject(self) -> str:
        return f"Our refund of {self.amount} did not arrive"

    def paragraphs(self) -> list[str]:
        return _came_back(self.amount, self.invoice)


class DisputeOpened(OfCharge, kind="dispute_opened"):
    """The holder of a card has told the bank that a charge is not right."""

    reason: str | None
    """Stripe's word for what the holder says."""

    @property
    def subject(self) -> str:
        return f"A charge of {self.amount} is disputed"

    def paragraphs(self) -> list[str]:
        return _disputed(self.amount, self.fix, self.reason)


class InvoiceDisputed(OfInvoice, kind="invoice_disputed"):
    """The holder of a card has told the bank that a payment for Teams is not right."""

    reason: str | None
    """Stripe's word for what the holder says."""

    @property
    def subject(self) -> str:
        return f"A payment of {self.amount} is disputed"

    def paragraphs(self) -> list[str]:
        return _disputed(self.amount, self.invoice, self.reason)
