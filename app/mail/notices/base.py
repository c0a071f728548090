"""What every notice is, and what several of them say."""

from abc import abstractmethod
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.money import dollars
from app.settings import get_settings

KINDS: dict[str, type["Notice"]] = {}
"""Every kind of notice, by name."""

_LINE_MAX = 140

PLANS = {"trial": "the trial", "payg": "pay as you go", "teams": "Teams"}


def _one_line(text: str) -> str:
    """`text` without anything that breaks a line, hides, or turns the writing around."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_LINE_MAX]


def when(at: datetime) -> str:
    at = at.astimezone(UTC)
    return f"{at.day} {at:%B %Y, %H:%M} UTC"


def terms(plan: str) -> str:
    settings = get_settings()
    if plan == "trial":
        return "On the trial nothing is charged."
    if plan == "payg":
        return f"Pay as you go costs {dollars(settings.payg_fix_cents)} a deployed fix, charged at once."
    return (
        f"Teams costs {dollars(settings.teams_month_cents)} a month with {settings.teams_included_fixes} deployed"
        f" fixes, and {dollars(settings.teams_overage_cents)} for each further one."
    )


Cents = Annotated[int, Field(strict=True, ge=0)]
Line = Annotated[str, AfterValidator(_one_line)]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_ ]{1,30}$")]
Url = Annotated[str, Field(pattern=r"^https?://[!-~]+$")]


class Notice(BaseModel):
    """One thing that a customer is told."""

    # A value that the next release added is ignored, as in a Command.
    model_config = ConfigDict(frozen=True, extra="ignore")

    def __init_subclass__(cls, *, kind: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if kind is not None:
            KINDS[kind] = cls

    @property
    @abstractmethod
    def subject(self) -> str:
        """A line of plain ASCII."""

    @abstractmethod
    def paragraphs(self) -> list[str]:
        """What happened, what it costs, what to do. Plain text: whoever shows it escapes it."""

    def action(self) -> tuple[str, str] | None:
        """The words and the address of a link of its own, in place of the one to the account page."""
        return None


class OfFix(Notice):
    repo: Line
    issue_number: int

    @property
    def fix(self) -> str:
        return f"the fix of {self.repo}#{self.issue_number}"


class OfCharge(OfFix):
    amount_cents: Cents

    @property
    def amount(self) -> str:
        return dollars(self.amount_cents)


class OfInvoice(Notice):
    amount_cents: Cents
    number: Line | None
    """As Stripe numbers its invoices."""

    @property
    def amount(self) -> str:
        return dollars(self.amount_cents)

    @property
    def invoice(self) -> str:
        return "an invoice for Teams" if self.number is None else f"invoice {self.number} for Teams"
