"""What a customer may ask of their plan, and the command that it comes to."""

from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select

from app.billing.plans import is_on_marketplace
from app.billing.subscriptions import open_subscription
from app.contracts.billing import EndTeams, LeavePayg, ResumeTeams, StartPayg, StartTeams
from app.customers import accounts
from app.ledger.command import Command
from app.ledger.tables import job_keys


class NotPossible(Exception):
    """What was asked of the plan cannot be, as things stand; the message says why."""


def command_for(db: Connection, customer_id: int, plan: str, *, at_period_end: bool, request: str) -> Command:
    """What is to be done so that the customer has that plan.

    Args:
        at_period_end: Teams goes on until what was paid for is over.

    Raises:
        NotPossible: it can be seen already that it would fail, or change nothing.
    """
    customer = accounts.get(db, customer_id)
    subscription = open_subscription(db, customer_id)
    if is_on_marketplace(db, customer_id):
        raise NotPossible(f"Your plan, {customer.plan}, is paid on the GitHub Marketplace. Change or cancel it there.")
    if plan != "trial" and customer.default_payment_method is None:
        raise NotPossible("You have no payment method. Add one first, at /api/v1/payment-methods or /api/v1/checkout.")
    if subscription is None:
        if plan == customer.plan:
            raise NotPossible("There is nothing to cancel." if plan == "trial" else f"Your plan is {plan} already.")
        begin_with = {"teams": StartTeams, "payg": StartPayg, "trial": LeavePayg}
        return begin_with[plan](customer_id=customer_id, request=request)
    if plan == "teams":
        if not subscription.cancel_at_period_end:
            raise NotPossible("Your plan is teams already.")
        return ResumeTeams(customer_id=customer_id, request=request)
    if at_period_end and subscription.cancel_at_period_end and subscription.plan_after == plan:
        raise NotPossible("Teams ends with its period already.")
    after: Any = plan
    return EndTeams(customer_id=customer_id, at_period_end=at_period_end, plan_after=after, request=request)


def asked_before(db: Connection, customer_id: int, request: str) -> UUID | None:
    """The job that a request for a plan has made, if it came before."""
    kinds = (StartTeams, ResumeTeams, StartPayg, LeavePayg)
    asked: list[Command] = [kind(customer_id=customer_id, request=request) for kind in kinds]
    asked.append(EndTeams(customer_id=customer_id, request=request, at_period_end=False, plan_after="trial"))
    keys = [command.dedup_key for command in asked]
    return db.execute(select(job_keys.c.job_id).where(job_keys.c.key.in_(keys))).scalars().first()
