"""Notices of a card."""

from app.mail.notices.base import Notice, Word


class CardExpiring(Notice, kind="card_expiring"):
    """The card that is charged is soon no longer good."""

    brand: Word
    last4: Word
    exp_month: int
    exp_year: int

    @property
    def subject(self) -> str:
        return f"Your card ending in {self.last4} expires soon"

    def paragraphs(self) -> list[str]:
        return [
            f"The card that we charge, {self.brand} ending in {self.last4}, is good until the end of"
            f" {self.exp_month:02}/{self.exp_year}.",
            "Add another card before then, so that no payment fails. Where the bank sends you a new one with the same"
            " number, we often learn of it by ourselves.",
        ]
