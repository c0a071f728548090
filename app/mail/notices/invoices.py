"""Notices of the invoices of Teams, and of those that somebody makes by hand."""

from app.mail.notices.base import Cents, Notice, Url
from app.money import dollars


class SubscriptionPastDue(Notice, kind="subscription_past_due"):
    """The money for Teams did not come."""

    amount_cents: Cents | None

    @property
    def subject(self) -> str:
        return "Your payment for Teams failed"

    def paragraphs(self) -> list[str]:
        owed = "what Teams costs" if self.amount_cents is None else f"{dollars(self.amount_cents)} for Teams"
        return [
            f"We could not charge {owed}. It is tried again in the next days, and Tallyhook stops if it stays open.",
            "Add another card: it is charged at once.",
        ]


class TeamsDeclined(Notice, kind="teams_declined"):
    """The bank refused the first month of Teams."""

    amount_cents: Cents

    @property
    def subject(self) -> str:
        return "Teams has not begun: your bank declined the payment"

    def paragraphs(self) -> list[str]:
        return [
            f"Your bank declined the {dollars(self.amount_cents)} for the first month of Teams. Nothing was charged,"
            " and Teams has not begun.",
            "Add a card that can be charged, and choose Teams again.",
        ]


class TeamsActionRequired(Notice, kind="teams_action_required"):
    """The bank wants to hear the customer before Teams begins."""

    amount_cents: Cents
    url: Url
    """Stripe's page that begins it."""

    @property
    def subject(self) -> str:
        return "Please confirm your payment for Teams"

    def paragraphs(self) -> list[str]:
        return [
            f"Your bank wants you to confirm the {dollars(self.amount_cents)} for the first month of Teams. Nothing was"
            " charged, and Teams begins when you have.",
            "The page is open for a day. After that, choose Teams again.",
        ]

    def action(self) -> tuple[str, str]:
        return "Confirm the payment", self.url


class InvoiceActionRequired(Notice, kind="invoice_action_required"):
    """The bank wants to hear the customer before it pays an invoice."""

    amount_cents: Cents
    url: Url
    """Stripe's page of the invoice, where the customer completes the payment."""
    of_teams: bool = True
    """False: somebody made it by hand, for something else."""

    @property
    def subject(self) -> str:
        return f"Please confirm a payment of {dollars(self.amount_cents)}"

    def paragraphs(self) -> list[str]:
        asked = f"Your bank wants you to confirm the {dollars(self.amount_cents)} of an invoice"
        if not self.of_teams:
            return [f"{asked}. It stays open until you have."]
        return [f"{asked} for Teams. It stays open until you have, and Tallyhook stops if it stays open for long."]

    def action(self) -> tuple[str, str]:
        return "Confirm the payment", self.url


class InvoiceFailed(Notice, kind="invoice_failed"):
    """The money for an invoice of its own did not come, such as that for the last fixes of a Teams that has ended."""

    amount_cents: Cents
    url: Url
    """Stripe's page of the invoice, where the customer can pay it."""
    of_teams: bool = True
    """False: somebody made it by hand, for something else."""

    @property
    def subject(self) -> str:
        return f"An invoice of {dollars(self.amount_cents)} could not be charged"

    def paragraphs(self) -> list[str]:
        which = "your last invoice for Teams" if self.of_teams else "an invoice"
        return [
            f"We could not charge the {dollars(self.amount_cents)} of {which}. It stays open until it is paid.",
            "Pay it on its page, with this card or another one.",
        ]

    def action(self) -> tuple[str, str]:
        return "Pay the invoice", self.url
