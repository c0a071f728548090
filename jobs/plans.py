"""Plans begin and end: payg with us, Teams with a subscription in Stripe."""

from typing import Any

from sqlalchemy import Connection, Row

from app.billing import invoices, plan_requests, plans, subscriptions
from app.contracts.billing import (
    EndTeams,
    InvoiceOverage,
    LeavePayg,
    ResumeTeams,
    SendNotice,
    StartPayg,
    StartTeams,
    SyncSubscription,
)
from app.customers import accounts
from app.ledger.enqueue import enqueue
from app.ledger.errors import AlreadyDone, Busy, Permanent
from app.ledger.gates import BILLING, closed_gates
from app.ledger.run import Run, handles
from app.settings import get_settings
from app.stripe import calls, catalog
from app.stripe import invoices as bills
from app.stripe import subscriptions as gateway
from app.stripe.client import Declined
from app.stripe.subscriptions import Subscription
from jobs import teams
from jobs.payment_methods import open_page, ready_customer

_WANTS_CUSTOMER = (
    "authentication_required",
    "invoice_payment_intent_requires_action",
    "subscription_payment_intent_requires_action",
)
_TOO_OLD = "it was asked for weeks ago, and what was chosen since may be forgotten: it has to be chosen again"
_MAY_RENEW_S = 60.0
"""Seconds that an end waits before Stripe is told that it comes: a month that begins meanwhile would be charged."""


def _only_the_newest(run: Run[Any], db: Connection) -> None:
    """Of a customer's choices the newest holds: one that had to wait may come after it.

    Raises:
        AlreadyDone: there is a newer one.
        Permanent: there may have been one.
    """
    if plan_requests.newest_choice(db, run.payload.customer_id, after=run.claim.created_at) is not None:
        raise AlreadyDone("the customer has chosen anew since")
    if plan_requests.is_too_old(run.claim.created_at):
        raise Permanent(_TOO_OLD)


@handles(StartPayg)
def start_payg(run: Run[StartPayg]) -> None:
    job = run.payload
    with run.finish({"plan": "payg"}) as db:
        _only_the_newest(run, db)
        plans.refuse_on_marketplace(db, job.customer_id)
        customer = accounts.get(db, job.customer_id)
        if customer.plan == "payg":
            raise AlreadyDone("the plan is payg")
        if customer.plan == "teams":
            raise Busy("Teams has to end first", give_up_after=3600)  # it began meanwhile, and ends: see start_teams
        if customer.default_payment_method is None:
            raise Permanent("there is no payment method")
        subscriptions.begin(db, customer.id, "payg", reason="the customer's choice", ref=job.request)


@handles(LeavePayg)
def leave_payg(run: Run[LeavePayg]) -> None:
    job = run.payload
    with run.finish({"plan": "trial"}) as db:
        _only_the_newest(run, db)
        plans.refuse_on_marketplace(db, job.customer_id)
        subscriptions.settle_wanted(db, job.customer_id)
        if accounts.get(db, job.customer_id).plan == "payg":
            subscriptions.begin(db, job.customer_id, "trial", reason="the customer's choice", ref=job.request)


@handles(StartTeams)
def start_teams(run: Run[StartTeams]) -> None:
    """It may have been held, or waited for Stripe, for days: what the customer has chosen since counts. Where Stripe
    had the request already, or the choice comes in this moment, Teams ends again at once."""
    job = run.payload
    customer = ready_customer(run, job.customer_id)
    with run.transaction() as db:
        plans.refuse_on_marketplace(db, customer.id)
        withdrawn = _withdrawn(run, db)
        too_old = plan_requests.is_too_old(run.claim.created_at)
        sent = calls.latest(db, _name(job))
    if withdrawn or too_old:
        seen = gateway.find(sent) if sent is not None else None
        if seen is None and withdrawn:
            raise AlreadyDone("the customer has chosen otherwise since")
        if seen is None:
            raise Permanent(_TOO_OLD)
    elif customer.default_payment_method is None:
        raise Permanent("there is no payment method")
    else:
        teams.hear_of_end(run, customer)
        seen = teams.find_open(customer)
        if seen is None and job.wanted_at_signup and gateway.had_one(customer.stripe_customer_id, customer.id):
            # A restored database has forgotten that it began, and ended (failures.md 40); or the end is heard of first.
            with run.finish() as db:
                subscriptions.settle_wanted(db, customer.id)
            return
        seen = seen or _subscribe(run, customer)
        if seen.ended_at is None:
            _follow_card(run, seen)
    its_invoices = bills.of_customer(customer.stripe_customer_id)
    with run.finish(_shown(seen)) as db:
        subscriptions.keep(db, customer.id, seen, its_invoices)
        plan = _withdrawn(run, db)  # after what locks the customer: see plan_requests.command_for
        if plan is not None:
            request = f"withdrawn:{job.request}"
            enqueue(db, EndTeams(customer_id=customer.id, at_period_end=False, plan_after=plan, request=request))


def _withdrawn(run: Run[StartTeams], db: Connection) -> Any:
    """The plan that the customer has chosen since, in place of Teams; None: none."""
    choice = plan_requests.newest_choice(db, run.payload.customer_id, after=run.claim.created_at)
    return None if choice is None or choice.plan == "teams" else choice.plan


def _name(job: StartTeams) -> str:
    return f"subscription:{job.customer_id}:{job.request}"


def _subscribe(run: Run[StartTeams], customer: Row[Any]) -> Subscription:
    request = run.payload.request
    price = catalog.teams_price()
    with run.transaction() as db:
        wanted = gateway.parameters(
            stripe_customer=customer.stripe_customer_id,
            customer_id=customer.id,
            price=price,
            payment_method=customer.default_payment_method,
            request=request,
        )
        call = calls.aged(calls.freeze(db, _name(run.payload), wanted), run.claim.created_at)
    if call.parameters["items"] != wanted["items"]:
        raise Permanent("the price has changed since Teams was asked for: it has to be chosen again")  # failures.md 31
    while True:
        try:
            return gateway.create(call)
        except Declined as declined:
            card_replaced = call.parameters != wanted  # while the job waited
            notice = None if card_replaced else _notice(run, customer, price, declined, call.number)
            with run.transaction() as db:
                # Stripe has stored the refusal: a requeue asks the bank anew (failures.md 4).
                last = calls.latest(db, call.operation) or call
                call = calls.freeze(db, call.operation, wanted, last.number + 1)
                if notice is not None:
                    enqueue(db, notice)
            if notice is not None:
                raise Permanent(str(declined)) from None


def _notice(run: Run[StartTeams], customer: Row[Any], price: str, declined: Declined, number: int) -> SendNotice:
    """What the customer is told of a first month that was refused. Where the bank only wants to hear them, they get a
    page on which they can confirm it: without them there, no subscription begins."""
    ref = f"subscription:{run.payload.request}:{number}"
    kind: str = "teams_declined"
    values: dict[str, Any] = {"amount_cents": get_settings().teams_month_cents}
    if declined.code in _WANTS_CUSTOMER or declined.decline_code in _WANTS_CUSTOMER:
        # One an attempt: each begins with closing the pages that are open.
        page = open_page(run, customer, f"{run.payload.request}:{run.claim.attempt}", price)
        kind, values = "teams_action_required", {**values, "url": page.url}
    return SendNotice(customer_id=customer.id, kind=kind, ref=ref, values=values)


def _follow_card(run: Run[StartTeams], seen: Subscription) -> None:
    """The subscription is charged to what is the customer's default now: the request may have waited with an older."""
    with run.transaction() as db:
        default = accounts.get(db, run.payload.customer_id).default_payment_method
    if default != seen.payment_method:
        gateway.set_payment_method(seen.id, default)


def _keep(run: Run[Any], customer: Row[Any], seen: Subscription) -> None:
    its_invoices = bills.of_customer(customer.stripe_customer_id)
    with run.finish(_shown(seen)) as db:
        subscriptions.keep(db, customer.id, seen, its_invoices)


def _shown(seen: Subscription) -> dict[str, Any]:
    return {
        "subscription": seen.id,
        "status": seen.status,
        "cancel_at_period_end": seen.cancels,
        "period_end": seen.period_end.isoformat(),
    }


@handles(EndTeams)
def end_teams(run: Run[EndTeams]) -> None:
    job = run.payload
    customer = ready_customer(run, job.customer_id)
    with run.transaction() as db:
        _only_the_newest(run, db)
        subscription = subscriptions.open_subscription(db, customer.id)
        if subscription is not None:
            subscriptions.set_plan_after(db, subscription.id, job.plan_after)
    if subscription is None:
        _follow_the_end(run)
        return
    if job.at_period_end or (BILLING in closed_gates() and not job.on_release):
        seen = gateway.set_cancels(subscription.id, True)
    else:
        seen = _end_at_once(run, subscription.id)
    its_invoices = bills.of_customer(customer.stripe_customer_id)
    with run.finish(_shown(seen)) as db:
        subscriptions.keep(db, customer.id, seen, its_invoices)
        if seen.ended_at is None:
            subscriptions.tell_of_end(db, customer.id, seen, job.plan_after, job.request)
            if not job.at_period_end:
                enqueue(db, job.model_copy(update={"on_release": True}))


def _end_at_once(run: Run[EndTeams], subscription_id: str) -> Subscription:
    try:
        _wait_for_overage(run, subscription_id)
    except Busy:
        if run.claim.busy_s > _MAY_RENEW_S:
            gateway.set_cancels(subscription_id, True)
        raise
    return gateway.cancel(subscription_id)


def _follow_the_end(run: Run[EndTeams]) -> None:
    """Teams has ended before this choice was heard, by an older one or in Stripe: what was chosen for then begins."""
    job = run.payload
    with run.finish({"plan": job.plan_after}) as db:
        customer = accounts.get(db, job.customer_id)
        if customer.plan == job.plan_after or plans.is_on_marketplace(db, customer.id):
            raise AlreadyDone("there is no subscription to Teams")
        if job.plan_after == "payg" and customer.default_payment_method is None:
            raise Permanent("there is no payment method")
        subscriptions.begin(db, customer.id, job.plan_after, reason="the customer's choice", ref=job.request)


def _wait_for_overage(run: Run[EndTeams] | Run[InvoiceOverage], subscription_id: str) -> None:
    """The last invoice has to have all of it.

    Raises:
        Busy: Stripe has not been told of it all.
    """
    with run.transaction() as db:
        told = subscriptions.overage_is_told(
            db,
            run.payload.customer_id,
            subscription_id,
            before=run.claim.created_at,
            occasion=f"end:{run.claim.job_id}",
        )
    if not told:
        raise Busy("Stripe is being told of the overage")


@handles(ResumeTeams)
def resume_teams(run: Run[ResumeTeams]) -> None:
    customer = ready_customer(run, run.payload.customer_id)
    with run.transaction() as db:
        _only_the_newest(run, db)
        subscription = subscriptions.open_subscription(db, customer.id)
    if subscription is None:
        raise Permanent("Teams has ended: it can be started again, not resumed")
    seen = gateway.set_cancels(subscription.id, False)
    its_invoices = bills.of_customer(customer.stripe_customer_id)
    with run.finish(_shown(seen)) as db:
        subscriptions.set_plan_after(db, subscription.id, "trial")
        subscriptions.keep(db, customer.id, seen, its_invoices)


@handles(SyncSubscription)
def sync_subscription(run: Run[SyncSubscription]) -> None:
    job = run.payload
    with run.transaction() as db:
        customer = accounts.get(db, job.customer_id)
    seen = gateway.retrieve(job.subscription_id)
    if seen.customer != customer.stripe_customer_id:
        raise Permanent(f"subscription {seen.id} is another customer's")
    if subscriptions.too_early(job.occasion, seen):
        raise Busy("Stripe has not begun the next period yet")
    teams.hear_of_end(run, customer, seen)
    _keep(run, customer, seen)


@handles(InvoiceOverage)
def invoice_overage(run: Run[InvoiceOverage]) -> None:
    """A subscription begun since takes what is pending on its next invoice."""
    job = run.payload
    customer = ready_customer(run, job.customer_id, deleted=AlreadyDone)
    _wait_for_overage(run, job.subscription_id)
    with run.transaction() as db:
        if subscriptions.open_subscription(db, customer.id) is not None:
            raise AlreadyDone("the next invoice of Teams takes it")
    if not bills.has_pending(customer.stripe_customer_id):
        raise AlreadyDone("every item has its invoice")
    with run.transaction() as db:
        wanted = bills.final_parameters(
            stripe_customer=customer.stripe_customer_id,
            currency=catalog.CURRENCY,
            ref=job.invoice_ref,
        )
        call = calls.freeze(db, f"final_invoice:{job.invoice_ref}", wanted)
    made = bills.create(call)
    with run.finish({"invoice": made.id, "amount_cents": made.total_cents}) as db:
        invoices.keep(db, customer.id, [made])
        subscriptions.look_at_invoice(db, customer.id, job.subscription_id, made)
