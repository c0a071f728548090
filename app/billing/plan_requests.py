"""What a customer may ask of their plan, and the command that it comes to."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, case, select

from app.billing.plans import is_on_marketplace
from app.billing.subscriptions import open_subscription
from app.contracts.billing import EndTeams, LeavePayg, ResumeTeams, StartPayg, StartTeams
from app.customers import accounts
from app.customers.tables import customers
from app.ledger.command import Command
from app.ledger.retention import JOBS_KEPT
from app.ledger.states import FINISHED, State
from app.ledger.tables import job_keys, jobs

GOOD_FOR = JOBS_KEPT - timedelta(days=1)
"""How long a choice can be carried out: after that, the ledger may have forgotten what was chosen since."""


class NotPossible(Exception):
    """What was asked of the plan cannot be, as things stand; the message says why."""


def command_for(db: Connection, customer_id: int, plan: str, *, at_period_end: bool, request: str) -> Command:
    """What is to be done so that the customer has that plan.

    Args:
        at_period_end: Teams goes on until what was paid for is over.

    Raises:
        NotPossible: it can be seen already that it would fail, or change nothing.
    """
    # A job that begins Teams holds the same lock when it commits: it sees this choice, or is seen by it.
    db.execute(select(customers.c.id).where(customers.c.id == customer_id).with_for_update(key_share=True))
    customer = accounts.get(db, customer_id)
    subscription = open_subscription(db, customer_id)
    if is_on_marketplace(db, customer_id):
        raise NotPossible(f"Your plan, {customer.plan}, is paid on the GitHub Marketplace. Change or cancel it there.")
    if plan != "trial" and customer.default_payment_method is None:
        raise NotPossible("You have no payment method. Add one first, at /api/v1/payment-methods or /api/v1/checkout.")
    waiting = _waiting(db, customer_id)
    if subscription is None:
        if plan == customer.plan and waiting in (None, plan) and customer.wanted_plan == "trial":
            raise NotPossible("There is nothing to cancel." if plan == "trial" else f"Your plan is {plan} already.")
        begin_with: dict[str, type[StartTeams | StartPayg | LeavePayg]]
        begin_with = {"teams": StartTeams, "payg": StartPayg, "trial": LeavePayg}
        return begin_with[plan](customer_id=customer_id, request=request)
    if plan == "teams":
        if waiting in (None, "teams") and not subscription.cancel_at_period_end:
            raise NotPossible("Your plan is teams already.")
        return ResumeTeams(customer_id=customer_id, request=request)
    if at_period_end and subscription.cancel_at_period_end and subscription.plan_after == plan and waiting is None:
        raise NotPossible("Teams ends with its period already.")
    after: Any = plan
    return EndTeams(customer_id=customer_id, at_period_end=at_period_end, plan_after=after, request=request)


def newest_choice(db: Connection, customer_id: int, *, after: datetime | None = None) -> Row[Any] | None:
    """The newest choice of a plan that was accepted, after that moment if one is given: its `plan`, and the `state` of
    its job."""
    of_kind = {StartTeams.name: "teams", ResumeTeams.name: "teams", StartPayg.name: "payg", LeavePayg.name: "trial"}
    plan: ColumnElement[str] = case(of_kind, value=jobs.c.name, else_=jobs.c.payload["plan_after"].astext)
    query = select(plan.label("plan"), jobs.c.state).where(
        jobs.c.customer_id == customer_id,
        jobs.c.name.in_([*of_kind, EndTeams.name]),
        jobs.c.state != State.CANCELLED,
    )
    if after is not None:
        query = query.where(jobs.c.created_at > after)
    newest: Row[Any] | None = db.execute(query.order_by(jobs.c.created_at.desc()).limit(1)).one_or_none()
    return newest


def is_too_old(asked_at: datetime) -> bool:
    """Whether a newer choice may be forgotten: a job that was dead for a month can still be requeued."""
    return asked_at < datetime.now(UTC) - GOOD_FOR


def _waiting(db: Connection, customer_id: int) -> str | None:
    """The plan of the customer's newest choice while its job waits: it can be taken back."""
    choice = newest_choice(db, customer_id)
    return str(choice.plan) if choice is not None and choice.state not in FINISHED else None


def asked_before(db: Connection, customer_id: int, request: str) -> UUID | None:
    """The job that a request for a plan has made, if it came before."""
    kinds = (StartTeams, ResumeTeams, StartPayg, LeavePayg)
    asked: list[Command] = [kind(customer_id=customer_id, request=request) for kind in kinds]
    asked.append(EndTeams(customer_id=customer_id, request=request, at_period_end=False, plan_after="trial"))
    keys = [command.dedup_key for command in asked]
    return db.execute(select(job_keys.c.job_id).where(job_keys.c.key.in_(keys))).scalars().first()
