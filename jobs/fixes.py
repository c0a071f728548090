"""Deployed fixes become usage, each once."""

from datetime import UTC, datetime

from app.billing import charges, fixes, overage
from app.billing.periods import Period, last_end, period_at
from app.billing.plans import marketplace_from, plan_at
from app.billing.subscriptions import open_subscription
from app.contracts.billing import SendNotice, SyncSubscription, TrackFix
from app.ledger.enqueue import enqueue
from app.ledger.errors import Busy
from app.ledger.run import Run, handles
from app.settings import get_settings


@handles(TrackFix)
def track_fix(run: Run[TrackFix]) -> None:
    with run.transaction() as db:
        fix = fixes.deployed(db, run.payload.phase_result_id)
        plan = plan_at(db, fix.customer_id, fix.accepted_at)
        on_marketplace = marketplace_from(db, fix.customer_id, fix.accepted_at) is not None
        period = period_at(db, fix.customer_id, plan, fix.accepted_at)
        subscription = None if period else open_subscription(db, fix.customer_id)
        if subscription is not None:
            # However many fixes wait, and however often they look: one question a minute.
            occasion = f"fix:{last_end(db, fix.customer_id)}:{datetime.now(UTC):%Y-%m-%dT%H:%M}"
            enqueue(
                db,
                SyncSubscription(customer_id=fix.customer_id, subscription_id=subscription.id, occasion=occasion),
            )
    if period is None:
        raise Busy("Stripe is asked for the period that has begun")
    with run.finish({"plan": plan}) as db:
        known = fixes.find(db, fix)
        if known is not None:
            fixes.remember(db, fix, known)
            return
        verdict = fixes.judge(db, fix.customer_id, plan, period, on_marketplace=on_marketplace)
        fix_id = fixes.count(db, fix, plan, period, verdict)
        if verdict.outcome == "charge":
            charges.open_charge(db, fix_id, fix.customer_id, verdict.amount_cents)
        elif verdict.outcome == "overage":
            overage.tell_soon(db, fix.customer_id, period.start, fix_id)
        tell = _marketplace_notice if on_marketplace else _notice
        notice = tell(fix, fix_id, plan, period, verdict)
        if notice is not None:
            enqueue(db, notice)


def _notice(fix: fixes.Deployed, fix_id: int, plan: str, period: Period, verdict: fixes.Verdict) -> SendNotice | None:
    """What the customer is told of the place that this fix has taken, if anything."""
    ref, values = f"period:{period.start.isoformat()}", {"included": verdict.included}
    if verdict.outcome == "over_limit":
        about = {"repo": fix.repo, "issue_number": fix.issue_number}
        return SendNotice(
            customer_id=fix.customer_id, kind="over_limit", ref=f"fix:{fix_id}", values={**values, **about}
        )
    if plan == "trial" and verdict.used == verdict.included:
        ref = f"included:{verdict.included}"
        return SendNotice(customer_id=fix.customer_id, kind="last_free_fix", ref=ref, values=values)
    if plan == "teams" and verdict.used in (-(-verdict.included * 4 // 5), verdict.included):
        kind = "usage_100" if verdict.used == verdict.included else "usage_80"
        cents, end = get_settings().teams_overage_cents, period.end.isoformat() if period.end else None
        values = {**values, "used": verdict.used, "overage_cents": cents}
        return SendNotice(customer_id=fix.customer_id, kind=kind, ref=ref, values={**values, "period_end": end})
    return None


def _marketplace_notice(
    fix: fixes.Deployed, fix_id: int, plan: str, period: Period, verdict: fixes.Verdict
) -> SendNotice | None:
    """The same, where the plan is paid on the GitHub Marketplace: what Teams includes there is all there is."""
    if plan != "teams" or period.end is None:
        return None
    values = {"included": verdict.included, "period_end": period.end.isoformat()}
    if verdict.outcome == "over_limit":
        about = {"repo": fix.repo, "issue_number": fix.issue_number}
        ref, kind, values = f"fix:{fix_id}", "marketplace_over_limit", {**values, **about}
    elif verdict.used in (-(-verdict.included * 4 // 5), verdict.included):
        ref, kind = f"period:{period.start.isoformat()}:{verdict.used}", "marketplace_usage"
        values = {**values, "used": verdict.used}
    else:
        return None
    return SendNotice(customer_id=fix.customer_id, kind=kind, ref=ref, values=values)
