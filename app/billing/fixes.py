"""A deployed fix is counted once for ever, in its period and under its plan (architecture.md, "The business rules")."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, ScalarSelect, func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert

from app.billing.periods import Period
from app.billing.tables import fix_identities, fixes, usage_entries
from app.customers import accounts
from app.phases.tables import phase_results
from app.settings import get_settings


@dataclass(frozen=True)
class Deployed:
    """What the phase result of a deployed fix says of it."""

    phase_result_id: UUID
    customer_id: int
    repo: str
    issue_number: int
    commit_sha: str
    fix_id: str | None
    accepted_at: datetime


def deployed(db: Connection, phase_result_id: UUID | ScalarSelect[UUID]) -> Deployed:
    """The deployed fix of a phase result."""
    row = db.execute(select(phase_results).where(phase_results.c.id == phase_result_id)).one()
    return Deployed(
        phase_result_id=row.id,
        customer_id=row.customer_id,
        repo=row.repo,
        issue_number=row.issue_number,
        commit_sha=row.commit_sha,
        fix_id=row.fix_id,
        accepted_at=row.received_at,
    )


@dataclass(frozen=True)
class Verdict:
    """What a fix counts as. `used` counts it, too, where it takes a place in its period."""

    outcome: str
    amount_cents: int
    used: int
    included: int


def identities(fix: Deployed) -> list[str]:
    """What the fix is known by, the surest first: the sender's id for it, then the place it was made at.

    GitHub tells neither repositories nor commits apart by the case of letters.
    """
    place = f"at:{fix.repo.lower()}#{fix.issue_number}@{fix.commit_sha.lower()}"
    return [place] if fix.fix_id is None else [f"id:{fix.fix_id}", place]


def reference(fix: Deployed) -> str:
    """What the fix is called in Stripe: in the idempotency keys and the metadata of its charge."""
    return hashlib.sha256(f"{fix.customer_id}:{identities(fix)[0]}".encode()).hexdigest()[:32]


def find(db: Connection, fix: Deployed) -> int | None:
    """The id of the fix, if it has been counted: by any of its identities. Two with different ids of the sender's
    are two, also at one place."""
    known = {
        row.identity: row.fix_id
        for row in db.execute(
            select(fix_identities.c.identity, fix_identities.c.fix_id).where(
                fix_identities.c.customer_id == fix.customer_id, fix_identities.c.identity.in_(identities(fix))
            )
        )
    }
    *named, place = identities(fix)
    if named and named[0] in known:
        return int(known[named[0]])
    if not named or place not in known:
        return known.get(place)
    other = select(fix_identities.c.identity).where(
        fix_identities.c.fix_id == known[place], fix_identities.c.identity.startswith("id:")
    )
    return None if db.execute(other).first() else int(known[place])


def used(db: Connection, customer_id: int, plan: str, period_start: datetime) -> int:
    """Fixes counted in the period: the sum of its entries."""
    total: int = db.execute(
        select(func.coalesce(func.sum(usage_entries.c.fixes), 0)).where(
            usage_entries.c.customer_id == customer_id,
            usage_entries.c.plan == plan,
            usage_entries.c.period_start == period_start,
        )
    ).scalar_one()
    return total


def included(customer: Row[Any], plan: str) -> int:
    """Fixes of a period that cost nothing more: the trial's grow once, when a payment method is first added."""
    settings = get_settings()
    if plan == "trial":
        return settings.trial_fixes + (settings.trial_bonus_fixes if customer.bonus_at is not None else 0)
    return settings.teams_included_fixes if plan == "teams" else 0


def judge(db: Connection, customer_id: int, plan: str, period: Period, *, on_marketplace: bool = False) -> Verdict:
    """What the customer's next fix under `plan` in `period` counts as. Only one at a time may ask (law 7).

    Args:
        on_marketplace: the plan is paid on the GitHub Marketplace. Nothing is charged for a fix then: one of payg is
            billed there, and one over those that Teams includes there is not billed and not allowed.
    """
    settings = get_settings()
    before, allowed = used(db, customer_id, plan, period.start), included(accounts.get(db, customer_id), plan)
    if before < allowed:
        return Verdict("included", 0, before + 1, allowed)
    if plan == "trial" or (plan == "teams" and on_marketplace):
        return Verdict("over_limit", 0, before, allowed)
    if on_marketplace:
        return Verdict("included", 0, before + 1, allowed)
    outcome, cents = (
        ("charge", settings.payg_fix_cents) if plan == "payg" else ("overage", settings.teams_overage_cents)
    )
    return Verdict(outcome if cents else "included", cents, before + 1, allowed)


def count(db: Connection, fix: Deployed, plan: str, period: Period, verdict: Verdict) -> int:
    """Keep the fix, its identities and its usage; returns its id. A fix over the limit takes no place."""
    fix_id: int = db.execute(
        insert(fixes)
        .values(
            customer_id=fix.customer_id,
            phase_result_id=fix.phase_result_id,
            ref=reference(fix),
            plan=plan,
            period_start=period.start,
            outcome=verdict.outcome,
            amount_cents=verdict.amount_cents,
            accepted_at=fix.accepted_at,
        )
        .returning(fixes.c.id)
    ).scalar_one()
    remember(db, fix, fix_id)
    if verdict.outcome != "over_limit":
        db.execute(
            insert(usage_entries).values(
                customer_id=fix.customer_id,
                plan=plan,
                period_start=period.start,
                fixes=1,
                fix_id=fix_id,
                reason=verdict.outcome,
            )
        )
    return fix_id


def remember(db: Connection, fix: Deployed, fix_id: int) -> None:
    """Know the fix by all of its identities from now on; a place that is another's stays the other's."""
    rows = [{"customer_id": fix.customer_id, "identity": i, "fix_id": fix_id} for i in identities(fix)]
    db.execute(upsert(fix_identities).values(rows).on_conflict_do_nothing())
