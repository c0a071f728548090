"""Notices: what a customer is told of fixes, charges and plans. A class a kind, which says what values it takes and
what is written from them.

The values stand in the job and in its listings: no address, no secret. Amounts are integer cents, times have a
zone. Repositories are whatever a sender called them.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from app.ledger.errors import Permanent
from app.money import dollars
from app.settings import get_settings

KINDS: dict[str, type["Notice"]] = {}
"""Every kind of notice, by name."""

_LINE_MAX = 140

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

_PLANS = {"trial": "the trial", "payg": "pay as you go", "teams": "Teams"}


def _one_line(text: str) -> str:
    """`text` without anything that breaks a line, hides, or turns the writing around."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_LINE_MAX]


def _when(at: datetime) -> str:
    at = at.astimezone(UTC)
    return f"{at.day} {at:%B %Y, %H:%M} UTC"


def _terms(plan: str) -> str:
    settings = get_settings()
    if plan == "trial":
        return "On the trial nothing is charged."
    if plan == "payg":
        return f"Pay as you go costs {dollars(settings.payg_fix_cents)} a deployed fix, charged at once."
    return (
        f"Teams costs {dollars(settings.teams_month_cents)} a month with {settings.teams_included_fixes} deployed"
        f" fixes, and {dollars(settings.teams_overage_cents)} for each further one."
    )


def _offers(included: int) -> list[str]:
    """What somebody can do whose trial is used up."""
    settings = get_settings()
    bonus = settings.trial_bonus_fixes if included <= settings.trial_fixes else 0
    more = [f"Add a card and the trial includes {bonus} more."] if bonus else []
    return [*more, f"Choose a plan to go on. {_terms('payg')} {_terms('teams')}"]


def _sent_back(amount: str, what: str) -> str:
    return f"We have sent {amount} for {what} back to your card. Banks take five to ten days to show it."


def _disputed(amount: str, what: str, reason: str | None) -> list[str]:
    said = _DISPUTED.get(reason or "")
    why = f" They say that {said}." if said else ""
    return [
        f"The holder of your card has disputed our charge of {amount} for {what} with their bank.{why}",
        "If that is right, you need do nothing: the bank decides. If it is a mistake, ask the bank to take the"
        " dispute back, and write to us: we can refund a charge without the bank.",
    ]


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
    def subject(self) -> str:
        """A line of plain ASCII."""
        raise NotImplementedError

    def paragraphs(self) -> list[str]:
        """What happened, what it costs, what to do. Plain text: whoever shows it escapes it."""
        raise NotImplementedError

    def action(self) -> tuple[str, str] | None:
        """The words and the address of a link of its own, in place of the one to the account page."""
        return None


class _OfFix(Notice):
    repo: Line
    issue_number: int

    @property
    def fix(self) -> str:
        return f"the fix of {self.repo}#{self.issue_number}"


class _OfCharge(_OfFix):
    amount_cents: Cents

    @property
    def amount(self) -> str:
        return dollars(self.amount_cents)


class _OfInvoice(Notice):
    amount_cents: Cents
    number: Line | None
    """As Stripe numbers its invoices."""

    @property
    def amount(self) -> str:
        return dollars(self.amount_cents)

    @property
    def invoice(self) -> str:
        return "an invoice for Teams" if self.number is None else f"invoice {self.number} for Teams"


class LastFreeFix(Notice, kind="last_free_fix"):
    """The trial is used up, to the last fix."""

    included: int

    @property
    def subject(self) -> str:
        return "That was the last free fix of your trial"

    def paragraphs(self) -> list[str]:
        happened = f"The free fixes of your trial ({self.included} in all) are used. Nothing was charged."
        return [happened, *_offers(self.included)]


class OverLimit(_OfFix, kind="over_limit"):
    """A fix came after the trial was used up."""

    included: int

    @property
    def subject(self) -> str:
        return "A fix was deployed over your trial's limit"

    def paragraphs(self) -> list[str]:
        happened = f"The free fixes of your trial ({self.included} in all) were used before {self.fix} was deployed."
        return [f"{happened} It is not charged.", *_offers(self.included)]


class _TeamsUsage(Notice):
    used: int
    included: int
    overage_cents: Cents
    """What each fix beyond those included costs."""
    period_end: AwareDatetime

    @property
    def subject(self) -> str:
        return f"{self.used} of {self.included} fixes of this period are used"


class Usage80(_TeamsUsage, kind="usage_80"):
    """Four fifths of a Teams period are used."""

    def paragraphs(self) -> list[str]:
        return [
            f"You have used {self.used} of the {self.included} deployed fixes that Teams includes until"
            f" {_when(self.period_end)}.",
            f"After the last of them each further one costs {dollars(self.overage_cents)}, on your next invoice."
            " You need do nothing.",
        ]


class Usage100(_TeamsUsage, kind="usage_100"):
    """All that a Teams period includes is used."""

    def paragraphs(self) -> list[str]:
        return [
            f"All {self.included} deployed fixes that Teams includes until {_when(self.period_end)} are used.",
            f"From now until then each further one costs {dollars(self.overage_cents)}, on your next invoice."
            " You need do nothing.",
        ]


class ChargeDeclined(_OfCharge, kind="charge_declined"):
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
            then = f"We try again on {_when(self.next_attempt_at)}. If you add {card}, it is charged at once."
        return [f"We could not charge {self.amount} for {self.fix}: {why}.", then]


class AuthenticationRequired(_OfCharge, kind="authentication_required"):
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


class ChargeUncollectible(_OfCharge, kind="charge_uncollectible"):
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


class ChargeWrittenOff(_OfCharge, kind="charge_written_off"):
    """A charge that had failed is asked for no longer."""

    @property
    def subject(self) -> str:
        return f"You no longer owe {self.amount}"

    def paragraphs(self) -> list[str]:
        return [f"We no longer ask for {self.amount} for {self.fix}, which could not be charged. You need do nothing."]


class ChargeSucceeded(_OfCharge, kind="charge_succeeded"):
    """A charge that had failed was paid."""

    @property
    def subject(self) -> str:
        return f"Your payment of {self.amount} went through"

    def paragraphs(self) -> list[str]:
        return [f"The {self.amount} for {self.fix}, which could not be charged before, are paid. You need do nothing."]


class Refunded(_OfCharge, kind="refunded"):
    """A charge was given back, or a part of it."""

    @property
    def subject(self) -> str:
        return f"We have refunded {self.amount}"

    def paragraphs(self) -> list[str]:
        return [_sent_back(self.amount, self.fix)]


class InvoiceRefunded(_OfInvoice, kind="invoice_refunded"):
    """What was paid for Teams was given back, or a part of it."""

    @property
    def subject(self) -> str:
        return f"We have refunded {self.amount}"

    def paragraphs(self) -> list[str]:
        return [_sent_back(self.amount, self.invoice)]


class PlanChanged(Notice, kind="plan_changed"):
    """A plan begins."""

    plan: Literal["trial", "payg", "teams"]
    effective_at: AwareDatetime

    @property
    def subject(self) -> str:
        return f"Your plan: {_PLANS[self.plan]}"

    def paragraphs(self) -> list[str]:
        return [f"From {_when(self.effective_at)} on, your plan is {_PLANS[self.plan]}. {_terms(self.plan)}"]


class PlanEnds(Notice, kind="plan_ends"):
    """Teams was cancelled, to the end of what is paid."""

    plan_after: Literal["trial", "payg"]
    ends_at: AwareDatetime

    @property
    def subject(self) -> str:
        return f"Teams ends on {_when(self.ends_at)}"

    def paragraphs(self) -> list[str]:
        return [
            f"You have cancelled Teams. It goes on until {_when(self.ends_at)}; fixes beyond those included are still"
            f" billed. After that your plan is {_PLANS[self.plan_after]}. {_terms(self.plan_after)}",
            "To keep Teams, choose it again before then.",
        ]


class MarketplacePlan(Notice, kind="marketplace_plan"):
    """A plan begins that was bought on the GitHub Marketplace."""

    plan: Literal["payg", "teams"]
    effective_at: AwareDatetime
    ends_own: bool
    """Teams was subscribed to with us, and ends for it."""

    @property
    def subject(self) -> str:
        return f"Your plan on the GitHub Marketplace: {_PLANS[self.plan]}"

    def paragraphs(self) -> list[str]:
        included = get_settings().teams_included_fixes
        month = f" It includes {included} deployed fixes a month." if self.plan == "teams" else ""
        begins = f"From {_when(self.effective_at)} on, your plan is {_PLANS[self.plan]}.{month}"
        billed = "GitHub bills it: we charge nothing for it. Change or cancel it on the Marketplace."
        if not self.ends_own:
            return [begins, billed]
        ends = "Teams, which you paid with a card until now, ends for it, so that nothing is billed twice."
        return [begins, billed, f"{ends} What is left of its period is credited on its last invoice."]


class MarketplaceUsage(Notice, kind="marketplace_usage"):
    """Most of a month of Teams on the Marketplace is used, or all of it."""

    used: int
    included: int
    period_end: AwareDatetime

    @property
    def subject(self) -> str:
        return f"{self.used} of {self.included} fixes of this month are used"

    def paragraphs(self) -> list[str]:
        until = _when(self.period_end)
        return [
            f"You have used {self.used} of the {self.included} deployed fixes that Teams on the GitHub Marketplace"
            f" includes until {until}.",
            "There are no further ones before then: GitHub bills the month alone, and we charge nothing on top.",
        ]


class MarketplaceOverLimit(_OfFix, kind="marketplace_over_limit"):
    """A fix came after a month of Teams on the Marketplace was used up."""

    included: int
    period_end: AwareDatetime

    @property
    def subject(self) -> str:
        return "A fix was deployed over what your plan includes"

    def paragraphs(self) -> list[str]:
        return [
            f"The {self.included} deployed fixes that Teams on the GitHub Marketplace includes were used before"
            f" {self.fix} was deployed. It is not charged.",
            f"The next month begins on {_when(self.period_end)}. To go on before then, write to us.",
        ]


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
            "Add another card so that the next attempt succeeds.",
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


class TrialEnding(Notice, kind="trial_ending"):
    """A trial month of Teams is nearly over."""

    ends_at: AwareDatetime

    @property
    def subject(self) -> str:
        return f"Your free time on Teams ends on {_when(self.ends_at)}"

    def paragraphs(self) -> list[str]:
        return [
            f"Your free time on Teams ends on {_when(self.ends_at)}. Then your card is charged. {_terms('teams')}",
            "To go on you need do nothing. If you do not want to be charged, cancel before then.",
        ]


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


class DisputeOpened(_OfCharge, kind="dispute_opened"):
    """The holder of a card has told the bank that a charge is not right."""

    reason: str | None
    """Stripe's word for what the holder says."""

    @property
    def subject(self) -> str:
        return f"A charge of {self.amount} is disputed"

    def paragraphs(self) -> list[str]:
        return _disputed(self.amount, self.fix, self.reason)


class InvoiceDisputed(_OfInvoice, kind="invoice_disputed"):
    """The holder of a card has told the bank that a payment for Teams is not right."""

    reason: str | None
    """Stripe's word for what the holder says."""

    @property
    def subject(self) -> str:
        return f"A payment of {self.amount} is disputed"

    def paragraphs(self) -> list[str]:
        return _disputed(self.amount, self.invoice, self.reason)


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


def read(kind: str, values: dict[str, Any]) -> Notice:
    """The notice of that kind with those values.

    Raises:
        Permanent: there is no such kind, or it takes other values. What they were is not repeated.
    """
    if kind not in KINDS:
        raise Permanent(f"there is no notice of the kind {kind!r}")
    try:
        return KINDS[kind].model_validate(values)
    except ValidationError as error:
        wrong = sorted({str(item["loc"][0]) for item in error.errors()})
        raise Permanent(f"not what a notice of the kind {kind} takes: {', '.join(wrong)}") from None
