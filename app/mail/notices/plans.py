"""Notices of a plan that begins, or ends."""

from typing import Literal

from pydantic import AwareDatetime

from app.mail.notices.base import PLANS, Notice, terms, when
from app.settings import get_settings


class PlanChanged(Notice, kind="plan_changed"):
    """A plan begins."""

    plan: Literal["trial", "payg", "teams"]
    effective_at: AwareDatetime

    @property
    def subject(self) -> str:
        return f"Your plan: {PLANS[self.plan]}"

    def paragraphs(self) -> list[str]:
        return [f"From {when(self.effective_at)} on, your plan is {PLANS[self.plan]}. {terms(self.plan)}"]


class PlanEnds(Notice, kind="plan_ends"):
    """Teams was cancelled, to the end of what is paid."""

    plan_after: Literal["trial", "payg"]
    ends_at: AwareDatetime

    @property
    def subject(self) -> str:
        return f"Teams ends on {when(self.ends_at)}"

    def paragraphs(self) -> list[str]:
        return [
            f"Teams was cancelled. It goes on until {when(self.ends_at)}; fixes beyond those included are still"
            f" billed. After that your plan is {PLANS[self.plan_after]}. {terms(self.plan_after)}",
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
        return f"Your plan on the GitHub Marketplace: {PLANS[self.plan]}"

    def paragraphs(self) -> list[str]:
        included = get_settings().teams_included_fixes
        month = f" It includes {included} deployed fixes a month." if self.plan == "teams" else ""
        begins = f"From {when(self.effective_at)} on, your plan is {PLANS[self.plan]}.{month}"
        billed = "GitHub bills it: we charge nothing for it. Change or cancel it on the Marketplace."
        if not self.ends_own:
            return [begins, billed]
        ends = "Teams, which you paid with a card until now, ends for it, so that nothing is billed twice."
        return [begins, billed, f"{ends} What is left of its period is credited on its last invoice."]


class TrialEnding(Notice, kind="trial_ending"):
    """A trial month of Teams is nearly over."""

    ends_at: AwareDatetime

    @property
    def subject(self) -> str:
        return f"Your free time on Teams ends on {when(self.ends_at)}"

    def paragraphs(self) -> list[str]:
        return [
            f"Your free time on Teams ends on {when(self.ends_at)}. Then your card is charged. {terms('teams')}",
            "To go on you need do nothing. If you do not want to be charged, cancel before then.",
        ]
