"""Which plan an account has bought at a moment, by all that GitHub has told, in whatever order it came.

A purchase is never taken over from a delivery: it is read anew from all deliveries that are kept, so that a repeated
one changes nothing and a late one falls into its place (failures.md 36).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

_APART = timedelta(days=1)


@dataclass(frozen=True)
class Told:
    """One delivery: from `effective_at` on, the account has `plan` (one of ours; `trial` where it pays for none).

    `plan_before`: what it had until then, where GitHub says so. `made_at`: when GitHub made the delivery, if that is
    known. `received_at`: when it came. `months_from`: a moment at which a month that is paid for begins.
    """

    delivery: str
    action: str
    effective_at: datetime
    plan: str
    plan_before: str | None
    made_at: datetime | None
    received_at: datetime
    months_from: datetime

    @property
    def heard_at(self) -> datetime:
        return self.made_at or self.received_at

    def surely_after(self, other: "Told") -> bool:
        """Whether it was made after `other`. Of deliveries that do not tell, when they arrived says so little that
        a day has to lie between."""
        if self.made_at is not None and other.made_at is not None:
            return self.made_at > other.made_at
        return self.received_at - other.received_at > _APART


@dataclass(frozen=True)
class Standing:
    """What an account has: `plan`, since when, by which delivery, and from when its months count."""

    plan: str
    since: datetime
    delivery: str
    months_from: datetime


def standing_at(told: Sequence[Told], at: datetime) -> Standing | None:
    """What the account of these deliveries has at that moment; None: nothing is known of then.

    The newest effective date decides, and of one date what GitHub said last. A pending change counts from its day
    on, unless it was taken back, or what it would change was changed at once or cancelled since.
    """
    if not told:
        return None
    in_order = sorted(told, key=lambda one: (one.effective_at, one.heard_at, one.delivery))
    last: Told | None = None
    for one in in_order:
        if one.effective_at > at:
            break
        if one.action != "pending_change" or not _void(one, last, in_order):
            last = one
    # A pending change says what there is until its day: it makes good for a delivery that was lost. Where it is the
    # last word; or the only one.
    newest = max(in_order, key=lambda one: one.heard_at)
    said_last = newest.made_at is not None and newest.effective_at > at
    pending = newest if said_last else in_order[0] if last is None else None
    if pending is not None and pending.action == "pending_change" and pending.plan_before is not None:
        return Standing(pending.plan_before, pending.heard_at, pending.delivery, pending.months_from)
    return None if last is None else Standing(last.plan, last.effective_at, last.delivery, last.months_from)


def _void(pending: Told, before: Told | None, told: Sequence[Told]) -> bool:
    """Whether nothing comes of a pending change, `before` being what stands on its day without it.

    Where it cannot be known which of the two was made first, a change that was taken back does not come: if it does
    after all, GitHub says so on its day.
    """
    for other in told:
        if other.effective_at > pending.effective_at or pending.surely_after(other):
            continue
        if other.action == "pending_change_cancelled":
            return True
        if other.action == "cancelled" and (other is before or other.surely_after(pending)):
            return True
        if other.action == "changed" and other.surely_after(pending) and other.effective_at < pending.effective_at:
            return True
    return False
