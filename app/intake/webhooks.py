"""Webhooks: whoever signed them is known, what they say is committed as it came, and the worker finds out what it
means (laws 1, 9 and 10)."""

import time

import orjson
from flask import Blueprint, Response, request

from app.contracts.http import Problem as ProblemBody
from app.contracts.http import WebhookReceived
from app.contracts.webhooks import StripeEvent
from app.intake.bodies import read_body, reply
from app.intake.commits import GroupCommit
from app.intake.limits import Budget, spend
from app.intake.openapi import describe
from app.intake.problems import Problem
from app.ledger.command import Command
from app.ledger.enqueue import insert, prepare
from app.settings import get_settings
from app.stripe import webhooks

blueprint = Blueprint("webhooks", __name__, url_prefix="/webhooks")
_keep = GroupCommit(insert)

_RETRY_S = 60


@blueprint.before_request
def within_limit() -> None:
    """Spend of WEBHOOK_RATE_LIMIT, where there is one."""
    limit = get_settings().webhook_rate_limit
    if limit is not None:
        spend(Budget(limit, "webhook", request.remote_addr or ""))


def not_configured(setting: str) -> Problem:
    """The answer while no secret is set that could verify a webhook: the sender keeps it and tries again."""
    return Problem(503, f"{setting} is not set here.", headers={"Retry-After": str(_RETRY_S)})


def take(command: Command, status: int) -> Response:
    """Commit what was sent as a job, and answer with `status`.

    Raises:
        Problem: 400 it is nested more deeply than the database takes.
    """
    try:
        job = prepare(command)
        orjson.dumps([job.row])  # as `insert` will write it
    except (ValueError, TypeError):
        raise Problem(400, "The body is nested too deeply.") from None
    return reply(WebhookReceived(duplicate=_keep.commit(job).duplicate), status)


@blueprint.post("/stripe")
@describe(
    "An event of Stripe's, signed",
    answers={200: WebhookReceived, 400: ProblemBody, 408: ProblemBody, 413: ProblemBody},
    headers={"Stripe-Signature": "t=…,v1=…: by a secret of STRIPE_WEBHOOK_SECRETS, within 300 seconds."},
)
def from_stripe() -> Response:
    secrets = get_settings().stripe_webhook_secrets
    if not secrets:
        raise not_configured("STRIPE_WEBHOOK_SECRETS")
    body = read_body()
    try:
        webhooks.verify(body, request.headers.get("Stripe-Signature"), secrets, time.time())
        event = webhooks.read_event(body)
    except (webhooks.NotSigned, webhooks.NotAnEvent) as error:
        raise Problem(400, str(error)) from None
    return take(StripeEvent(event=event), 200)
