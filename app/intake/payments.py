"""Payment methods, Stripe Checkout and plans: accepted here, done by workers."""

import re
from uuid import UUID, uuid4

from flask import Blueprint, Response, g, url_for

from app.billing import payment_methods
from app.billing.plan_requests import NotPossible, asked_before, command_for
from app.contracts.billing import AttachPaymentMethod, DetachPaymentMethod, OpenCheckout
from app.contracts.http import (
    CardView,
    CheckoutBody,
    EndQuery,
    JobAccepted,
    PaymentMethodBody,
    PaymentMethods,
    SubscriptionBody,
)
from app.contracts.http import Problem as ProblemBody
from app.db import transaction
from app.intake.auth import require_api_key
from app.intake.bodies import idempotency_key, read_json, read_query, reply
from app.intake.limits import digest
from app.intake.openapi import describe
from app.intake.problems import Problem
from app.ledger.command import Command
from app.ledger.enqueue import enqueue

blueprint = Blueprint("payments", __name__, url_prefix="/api/v1")
blueprint.before_request(require_api_key)

_KEY = {"Idempotency-Key": "Sending the same request again under the same key answers with the same job."}
_METHOD_ID = re.compile(r"[A-Za-z0-9_]{1,255}")


def _request(*content: object) -> str:
    """What makes this request that request: its Idempotency-Key with what it asks for; one without is its own."""
    key = idempotency_key()
    return uuid4().hex if key is None else digest(" ".join(map(str, (key, *content))))


def _accepted(job_id: UUID) -> Response:
    url = url_for("account.show_job", job_id=job_id)
    return reply(JobAccepted(job_id=job_id, status_url=url), 202, {"Location": url})


def _accept(command: Command) -> Response:
    with transaction() as db:
        job = enqueue(db, command)
    return _accepted(job.job_id)


@blueprint.post("/payment-methods")
@describe(
    "Add a payment method, and charge it from now on",
    body=PaymentMethodBody,
    answers={202: JobAccepted},
    headers=_KEY,
    api_key=True,
)
def add_payment_method() -> Response:
    method = read_json(PaymentMethodBody).payment_method
    return _accept(AttachPaymentMethod(customer_id=g.customer_id, payment_method=method, request=_request()))


@blueprint.get("/payment-methods")
@describe("Your cards", answers={200: PaymentMethods}, api_key=True)
def list_payment_methods() -> Response:
    with transaction() as db:
        cards = payment_methods.listing(db, g.customer_id)
    return reply(PaymentMethods(payment_methods=[CardView.model_validate(dict(card._mapping)) for card in cards]))


@blueprint.delete("/payment-methods/<payment_method>")
@describe(
    "Remove a payment method",
    answers={202: JobAccepted, 400: ProblemBody, 404: ProblemBody},
    headers=_KEY,
    api_key=True,
)
def remove_payment_method(payment_method: str) -> Response:
    request = _request()
    with transaction() as db:
        if not _METHOD_ID.fullmatch(payment_method) or not any(
            payment_methods.has(db, g.customer_id, payment_method, ever=ever) for ever in (False, True)
        ):
            raise Problem(404, "You have no payment method with this id.")
        command = DetachPaymentMethod(customer_id=g.customer_id, payment_method=payment_method, request=request)
        job = enqueue(db, command)
    return _accepted(job.job_id)


@blueprint.post("/checkout")
@describe(
    "Have a page of Stripe Checkout made; the job's result has its address",
    body=CheckoutBody,
    answers={202: JobAccepted},
    headers=_KEY,
    api_key=True,
)
def open_checkout() -> Response:
    purpose = read_json(CheckoutBody).purpose
    return _accept(OpenCheckout(customer_id=g.customer_id, purpose=purpose, request=_request(purpose)))


@blueprint.post("/subscription")
@describe(
    "Choose a plan",
    body=SubscriptionBody,
    query=EndQuery,
    answers={202: JobAccepted, 409: ProblemBody},
    headers=_KEY,
    api_key=True,
)
def choose_plan() -> Response:
    ends = read_query(EndQuery)
    return _choose(read_json(SubscriptionBody).plan, at_period_end=ends.at_period_end)


@blueprint.delete("/subscription")
@describe(
    "Cancel the plan: nothing is charged after it without a new choice",
    query=EndQuery,
    answers={202: JobAccepted, 409: ProblemBody},
    headers=_KEY,
    api_key=True,
)
def cancel_plan() -> Response:
    return _choose("trial", at_period_end=read_query(EndQuery).at_period_end)


def _choose(plan: str, *, at_period_end: bool) -> Response:
    request = _request(plan, at_period_end)
    with transaction() as db:
        # First: what the same request has done already may be in the way of doing it.
        job_id = asked_before(db, g.customer_id, request)
        if job_id is None:
            try:
                command = command_for(db, g.customer_id, plan, at_period_end=at_period_end, request=request)
            except NotPossible as error:
                raise Problem(409, str(error)) from None
            job_id = enqueue(db, command).job_id
    return _accepted(job_id)
