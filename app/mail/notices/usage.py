"""Notices of fixes that are counted, and of what is left."""

from pydantic import AwareDatetime

from app.mail.notices.base import Cents, Notice, OfFix, terms, when
from app.money import dollars
from app.settings import get_settings


def _offers(included: int) -> list[str]:
    """What somebody can do whose trial is used up."""
    settings = get_settings()
    bonus = settings.trial_bonus_fixes if included <= settings.trial_fixes else 0
    more = [f"Add a card and the trial includes {bonus} more."] if bonus else []
    return [*more, f"Choose a plan to go on. {terms('payg')} {terms('teams')}"]


class LastFreeFix(Notice, kind="last_free_fix"):
    """The trial is used up, to the last fix."""

    included: int

    @property
    def subject(self) -> str:
        return "That was the last free fix of your trial"

    def paragraphs(self) -> list[str]:
        happened = f"The free fixes of your trial ({self.included} in all) are used. Nothing was charged."
        return [happened, *_offers(self.included)]


class OverLimit(OfFix, kind="over_limit"):
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
            f" {when(self.period_end)}.",
            f"After the last of them each further one costs {dollars(self.overage_cents)}, on your next invoice."
            " You need do nothing.",
        ]


class Usage100(_TeamsUsage, kind="usage_100"):
    """All that a Teams period includes is used."""

    def paragraphs(self) -> list[str]:
        return [
            f"All {self.included} deployed fixes that Teams includes until {when(self.period_end)} are used.",
            f"From now until then each further one costs {dollars(self.overage_cents)}, on your next invoice."
            " You need do nothing.",
        ]


class MarketplaceUsage(Notice, kind="marketplace_usage"):
    """Most of a month of Teams on the Marketplace is used, or all of it."""

    used: int
    included: int
    period_end: AwareDatetime

    @property
    def subject(self) -> str:
        return f"{self.used} of {self.included} fixes of this month are used"

    def paragraphs(self) -> list[str]:
        until = when(self.period_end)
        return [
            f"You have used {self.used} of the {self.included} deployed fixes that Teams on the GitHub Marketplace"
            f" includes until {until}.",
            "There are no further ones before then: GitHub bills the month alone, and we charge nothing on top.",
        ]


class MarketplaceOverLimit(OfFix, kind="marketplace_over_limit"):
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
            f"The next month begins on {when(self.period_end)}. To go on before then, write to us.",
        ]
