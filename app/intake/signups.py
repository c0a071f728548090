"""Signups: accepted here, provisioned by workers."""

from collections.abc import Callable
from functools import partial
from uuid import UUID

from flask import Blueprint, Response, request, url_for

from app.contracts.http import Problem as ProblemBody
from app.contracts.http import SignupAccepted, SignupBody, SignupProgress
from app.customers import signups
from app.customers.addresses import fold
from app.db import transaction
from app.intake.bodies import idempotency_key, read_json, reply
from app.intake.commits import GroupCommit
from app.intake.limits import Budget, digest, spend
from app.intake.openapi import describe
from app.intake.problems import Problem
from app.settings import get_settings

blueprint = Blueprint("signups", __name__, url_prefix="/api/v1")
_keep = GroupCommit(signups.accept)


def _of_sender() -> Budget:
    """How often whoever sends this request may sign up."""
    return Budget(get_settings().signup_rate_limit, "signup-sender", request.remote_addr or "")


def take_signup(read: Callable[[], SignupBody], idempotency_key: str | None) -> signups.Accepted:
    """Commit the signup that `read` reads; returns its id, and whether the Idempotency-Key was seen before.

    Raises:
        Problem: 409 the key came with another request, 429 too many signups of this sender or address.
        whatever `read` raises: a request that does not validate is counted, too.
    """
    try:
        body = read()
    except Exception:
        spend(_of_sender())
        raise
    limit = get_settings().signup_rate_limit
    wanted = signups.NewSignup(**body.model_dump())
    spend(_of_sender(), Budget(limit, "signup-address", digest(fold(wanted.email))))
    try:
        return _keep.commit(signups.ask(wanted, idempotency_key))
    except signups.KeyReused:
        raise Problem(409, "This Idempotency-Key was used for a request with other content.") from None


@blueprint.post("/customers")
@describe(
    "Sign up",
    body=SignupBody,
    answers={202: SignupAccepted, 409: ProblemBody, 429: ProblemBody},
    headers={"Idempotency-Key": "Sending the same request again under the same key changes nothing."},
)
def sign_up() -> Response:
    signup_id, duplicate = take_signup(partial(read_json, SignupBody), idempotency_key())
    url = url_for("signups.show", signup_id=signup_id)
    status = "queued"
    if duplicate:
        with transaction() as db:
            status, _ = signups.progress(db, signup_id)
    accepted = SignupAccepted(signup_id=signup_id, status=status, status_url=url, duplicate=duplicate)
    return reply(accepted, 202, {"Location": url})


@blueprint.get("/signups/<uuid:signup_id>")
@describe("How far a signup has come", answers={200: SignupProgress, 404: ProblemBody})
def show(signup_id: UUID) -> Response:
    try:
        with transaction() as db:
            status, steps = signups.progress(db, signup_id)
    except signups.NoSuchSignup:
        raise Problem(404, "There is no signup with this id.") from None
    return reply(SignupProgress.model_validate({"signup_id": signup_id, "status": status, "steps": steps}))
