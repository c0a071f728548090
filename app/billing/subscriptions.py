"""Plans as they begin and end, and subscriptions to Teams as Stripe shows them.

Every path ends in `keep`: whoever has seen a subscription in Stripe, for whatever reason, writes what it is now and
what follows from that (laws 4 and 10).
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, case, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from app.billing import invoices, overage, plans, standing
from app.billing.tables import billing_periods, plan_changes, subscriptions
from app.contracts.billing import EndTeams, InvoiceOverage, SendNotice, SyncOverage, SyncSubscription, TrackFix
from app.customers import accounts
from app.customers.tables import customers
from app.ledger.enqueue import enqueue
from app.ledger.errors import Permanent
from app.ledger.states import FINISHED, State
from app.ledger.tables import jobs
from app.logs import log
from app.stripe.invoices import Invoice
from app.stripe.overage import Item
from app.stripe.subscriptions import Subscription

_RENEWED_AFTER = timedelta(minutes=1)
_INVOICED_AFTER = timedelta(minutes=90)
"""Stripe finalizes a renewal's invoice, and charges it, about an hour after the period's end."""
_TRIAL_NOTICE = timedelta(days=3, hours=1)
"""Stripe tells three days before free time ends; its clock may be a little ahead of ours."""


def open_subscription(db: Connection, customer_id: int) -> Row[Any] | None:
    """The customer's subscription to Teams that has not ended, if any."""
    return db.execute(
        select(subscriptions).where(subscriptions.c.customer_id == customer_id, subscriptions.c.ended_at.is_(None))
    ).one_or_none()


def get(db: Connection, subscription_id: str) -> Row[Any] | None:
    """The subscription, if we have seen it."""
    return db.execute(select(subscriptions).where(subscriptions.c.id == subscription_id)).one_or_none()


def begin(
    db: Connection,
    customer_id: int,
    plan: str,
    *,
    reason: str,
    ref: str,
    effective_at: datetime | None = None,
    marketplace_from: datetime | None = None,
) -> None:
    """The customer has that plan from `effective_at` (now, if None) on, and is told. What they wanted at signup is
    settled by that: no later card begins it again.

    Args:
        reason: by whose choice.
        ref: what it came of, such as `subscription:sub_7`: one mail for each.
        marketplace_from: see `plans.change`.
    """
    # Stripe's times are whole seconds: none may come to stand before the change that it follows.
    last = db.execute(
        select(func.max(plan_changes.c.effective_at)).where(
            plan_changes.c.customer_id == customer_id, plan_changes.c.effective_at <= func.clock_timestamp()
        )
    ).scalar_one()
    at = max(filter(None, (effective_at or datetime.now(UTC), last)))
    plans.change(db, customer_id, plan, reason=reason, effective_at=at, marketplace_from=marketplace_from)
    settle_wanted(db, customer_id)
    kind = "plan_changed"
    told: dict[str, Any] = {"plan": plan, "effective_at": at.isoformat()}
    if marketplace_from is not None:
        kind, told["ends_own"] = "marketplace_plan", open_subscription(db, customer_id) is not None
    enqueue(db, SendNotice(customer_id=customer_id, kind=kind, ref=f"{plan}:{ref}", values=told))


def settle_wanted(db: Connection, customer_id: int) -> None:
    """The customer has chosen since what they wanted at signup: no later card begins that."""
    db.execute(update(customers).where(customers.c.id == customer_id).values(wanted_plan="trial"))


def end_for_marketplace(db: Connection, customer_id: int) -> None:
    """Who pays for a plan on the GitHub Marketplace does not pay for Teams with us: it ends at once, and the rest of
    its period is given back (failures.md 37)."""
    known = open_subscription(db, customer_id)
    if known is not None:
        request = f"marketplace:{known.id}"
        enqueue(db, EndTeams(customer_id=customer_id, at_period_end=False, plan_after="trial", request=request))


def set_plan_after(db: Connection, subscription_id: str, plan: str) -> None:
    """Which plan begins when the subscription ends."""
    db.execute(update(subscriptions).where(subscriptions.c.id == subscription_id).values(plan_after=plan))


def keep(db: Connection, customer_id: int, seen: Subscription, its_invoices: Sequence[Invoice]) -> None:
    """Write what Stripe shows: the subscription, its period and its invoices. Teams begins with a subscription that
    was not known, and the plan after it with the end of one that was.

    Raises:
        Permanent: the customer has another one that is open.
    """
    invoices.keep(db, customer_id, its_invoices)
    before = get(db, seen.id)
    if before is None and (seen.incomplete or seen.ended_at is not None or seen.owner != str(customer_id)):
        log.warning("subscription.ignored", subscription=seen.id, status=seen.status)
        return
    known = open_subscription(db, customer_id)
    if known is not None and known.id != seen.id and seen.ended_at is None:
        raise Permanent(f"the customer has two subscriptions in Stripe, {known.id} and {seen.id}: one must be refunded")
    _write(db, customer_id, seen)
    _write_period(db, customer_id, seen)
    if before is None and plans.is_on_marketplace(db, customer_id):
        end_for_marketplace(db, customer_id)  # a page of Stripe Checkout was opened before, and completed after
    elif before is None:
        reason, ref = "Teams was subscribed to", f"subscription:{seen.id}"
        begin(db, customer_id, "teams", reason=reason, ref=ref, effective_at=seen.created_at)
    if seen.ended_at is None:
        standing.settle(db, customer_id)
        _look_again(db, customer_id, seen)
        wants_customer = any(bill.wants_customer and bill.subscription == seen.id for bill in its_invoices)
        if seen.past_due and not wants_customer:  # who only has to confirm it is told that, by the invoice
            ref, owed = f"{seen.id}:{seen.period_start.isoformat()}", invoices.owed(its_invoices, seen.id)
            values = {"amount_cents": owed}
            enqueue(db, SendNotice(customer_id=customer_id, kind="subscription_past_due", ref=ref, values=values))
        _tell_of_trial(db, customer_id, seen)
        if seen.cancels and not (before is not None and before.cancel_at_period_end):
            _tell_of_cancellation(db, customer_id, seen, "trial" if before is None else before.plan_after)
    elif before is not None and before.ended_at is None:
        _end(db, customer_id, seen, before.plan_after)


def _tell_of_trial(db: Connection, customer_id: int, seen: Subscription) -> None:
    """That free time is nearly over; not who cancels with it."""
    if seen.status != "trialing" or seen.trial_end is None or seen.cancels:
        return
    if seen.trial_end - datetime.now(UTC) <= _TRIAL_NOTICE:
        ref, values = f"{seen.id}:{seen.trial_end.isoformat()}", {"ends_at": seen.trial_end.isoformat()}
        enqueue(db, SendNotice(customer_id=customer_id, kind="trial_ending", ref=ref, values=values))


def _tell_of_cancellation(db: Connection, customer_id: int, seen: Subscription, plan_after: str) -> None:
    """That Teams was cancelled in Stripe's dashboard. A choice of the customer's own is told of by its job."""
    chosen = select(jobs.c.id).where(
        jobs.c.customer_id == customer_id, jobs.c.name == EndTeams.name, jobs.c.state.not_in(FINISHED)
    )
    if db.execute(chosen).first() is None:
        tell_of_end(db, customer_id, seen, plan_after, f"cancelled:{seen.cancelled_at}")


def _write(db: Connection, customer_id: int, seen: Subscription) -> None:
    new = upsert(subscriptions).values(
        id=seen.id,
        customer_id=customer_id,
        status=seen.status,
        cancel_at_period_end=seen.cancels,
        past_due_since=func.clock_timestamp() if seen.past_due else None,
        created_at=seen.created_at,
        ended_at=seen.ended_at,
    )
    first = func.coalesce(subscriptions.c.past_due_since, new.excluded.past_due_since)
    now = {
        "status": new.excluded.status,
        "cancel_at_period_end": new.excluded.cancel_at_period_end,
        "past_due_since": case((new.excluded.past_due_since.is_not(None), first)),
        "ended_at": new.excluded.ended_at,
    }
    db.execute(new.on_conflict_do_update(index_elements=[subscriptions.c.id], set_=now))


def _write_period(db: Connection, customer_id: int, seen: Subscription) -> None:
    """One that ended early is cut, where free time was ended, say: what comes after it belongs to the next, or to no
    period of this subscription."""
    new = upsert(billing_periods).values(
        subscription_id=seen.id, customer_id=customer_id, starts_at=seen.period_start, ends_at=seen.period_end
    )
    key = [billing_periods.c.subscription_id, billing_periods.c.starts_at]
    db.execute(new.on_conflict_do_update(index_elements=key, set_={"ends_at": new.excluded.ends_at}))
    of_it = billing_periods.c.subscription_id == seen.id
    cut_by_it = (billing_periods.c.starts_at < seen.period_start) & (billing_periods.c.ends_at > seen.period_start)
    db.execute(update(billing_periods).where(of_it & cut_by_it).values(ends_at=seen.period_start))
    if seen.ended_at is not None:
        last = of_it & (billing_periods.c.ends_at > seen.ended_at)
        cut = func.greatest(seen.ended_at, billing_periods.c.starts_at + timedelta(microseconds=1))
        db.execute(update(billing_periods).where(last).values(ends_at=cut))


def _look_again(db: Connection, customer_id: int, seen: Subscription) -> None:
    """When the next period begins, and when its invoice has been charged; daily while one is not paid."""
    end = int(seen.period_end.timestamp())
    looks = [
        (f"period:{end}", seen.period_end + _RENEWED_AFTER),
        (f"invoice:{end}", seen.period_end + _INVOICED_AFTER),
    ]
    if seen.past_due:
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        looks.append((f"past_due:{tomorrow:%Y-%m-%d}", tomorrow))
    for occasion, at in looks:
        look = SyncSubscription(customer_id=customer_id, subscription_id=seen.id, occasion=occasion)
        enqueue(db, look, run_at=at)


def look_at_invoice(db: Connection, customer_id: int, subscription_id: str, made: Invoice) -> None:
    """Look again at the invoices when Stripe has charged this one."""
    look = SyncSubscription(customer_id=customer_id, subscription_id=subscription_id, occasion=f"final:{made.id}")
    enqueue(db, look, run_at=made.created_at + _INVOICED_AFTER)


def too_early(occasion: str, seen: Subscription) -> bool:
    """Whether a look at the next period came before Stripe has begun it."""
    return seen.ended_at is None and occasion == f"period:{int(seen.period_end.timestamp())}"


def _end(db: Connection, customer_id: int, seen: Subscription, plan_after: str) -> None:
    if accounts.get(db, customer_id).plan == "teams" and not plans.is_on_marketplace(db, customer_id):
        reason, ref = "Teams has ended", f"subscription:{seen.id}"
        begin(db, customer_id, plan_after, reason=reason, ref=ref, effective_at=seen.ended_at)
    standing.settle(db, customer_id)
    enqueue(db, InvoiceOverage(customer_id=customer_id, subscription_id=seen.id))


def invoice_late_overage(db: Connection, customer_id: int, period_start: datetime, told: Item) -> None:
    """Stripe has just been told of overage. Where the subscription that its period was of has ended, its last invoice
    may be made: a fix can be counted late, after a slow commit or by a job that was dead and requeued."""
    ended = (
        select(subscriptions.c.id)
        .join(billing_periods, billing_periods.c.subscription_id == subscriptions.c.id)
        .where(
            subscriptions.c.customer_id == customer_id,
            subscriptions.c.ended_at.is_not(None),
            billing_periods.c.starts_at == period_start,
        )
    )
    subscription_id = db.execute(ended).scalar()
    if subscription_id is not None and open_subscription(db, customer_id) is None:
        late = f"{told.id}:{told.fixes}"
        enqueue(db, InvoiceOverage(customer_id=customer_id, subscription_id=subscription_id, late=late))


def overage_is_told(db: Connection, customer_id: int, subscription_id: str, *, before: datetime, occasion: str) -> bool:
    """Whether all overage of fixes accepted before that moment is in Stripe. Where it is not, a job that tells it at
    once is enqueued: commit, and ask again. Fixes that go on arriving keep nobody waiting, and neither does what
    cannot be told: what is told of them later is invoiced later."""
    uncounted = select(jobs.c.id).where(
        jobs.c.customer_id == customer_id,
        jobs.c.name == TrackFix.name,
        jobs.c.state.not_in(FINISHED),
        jobs.c.created_at < before,
    )
    if db.execute(uncounted).first() is not None:
        return False
    starts = select(billing_periods.c.starts_at).where(billing_periods.c.subscription_id == subscription_id)
    told = True
    for start in db.execute(starts).scalars().all():
        known = overage.read(db, customer_id, start, accepted_before=before)
        if max(known.untold) > 0:
            telling = SyncOverage(customer_id=customer_id, period_start=start, occasion=f"{occasion}:{known.fixes}")
            told = _has_failed(db, enqueue(db, telling).job_id) and told
    return told


def _has_failed(db: Connection, job_id: UUID) -> bool:
    """Whether it is for ops to mend, who may take days: it is on record, and what it tells then is invoiced then."""
    state: str | None = db.execute(select(jobs.c.state).where(jobs.c.id == job_id)).scalar()
    return state in (State.DEAD, State.CANCELLED)


def tell_of_end(db: Connection, customer_id: int, seen: Subscription, plan_after: str, request: str) -> None:
    """Teams goes on until the end of what was paid for: the customer is told when that is, once a `request`;
    not who pays for the same plan on the GitHub Marketplace, for which it ends."""
    if plans.is_on_marketplace(db, customer_id):
        return
    told = {"plan_after": plan_after, "ends_at": seen.period_end.isoformat()}
    enqueue(db, SendNotice(customer_id=customer_id, kind="plan_ends", ref=f"{seen.id}:{request}", values=told))
