"""Signups: accepted here, provisioned by workers."""

from uuid import UUID

from flask import Blueprint, Response, request, url_for

from app.contracts.http import Problem as ProblemBody
from app.contracts.http import SignupAccepted, SignupBody, SignupProgress
from app.customers import signups
from app.customers.addresses import fold
from app.db import transaction
from app.intake.bodies import read_json, reply
from app.intake.limits import digest, spend
from app.intake.openapi import describe
from app.intake.problems import Problem
from app.settings import get_settings

blueprint = Blueprint("signups", __name__, url_prefix="/api/v1")


def limit_sender() -> None:
    """Count a signup of whoever sends this request, before anything of it is read.

    Raises:
        Problem: 429
    """
    spend(get_settings().signup_rate_limit, "signup-sender", request.remote_addr or "")


def take_signup(body: SignupBody, idempotency_key: str | None) -> tuple[UUID, bool]:
    """Commit the signup; returns its id, and whether the Idempotency-Key was seen before.

    Raises:
        Problem: 409 the key came with another request, 429 too many signups with this address.
    """
    wanted = signups.NewSignup(**body.model_dump())
    spend(get_settings().signup_rate_limit, "signup-address", digest(fold(wanted.email)))
    try:
        with transaction() as db:
            return signups.accept(db, wanted, idempotency_key)
    except signups.KeyReused:
        raise Problem(409, "This Idempotency-Key was used for a request with other content.") from None


@blueprint.post("/customers")
@describe(
    "Sign up",
    body=SignupBody,
    answers={202: SignupAccepted, 409: ProblemBody},
    headers={"Idempotency-Key": "Sending the same request again under the same key changes nothing."},
)
def sign_up() -> Response:
    limit_sender()
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (1 <= len(key) <= 255 and key.isprintable()):
        raise Problem(400, "Idempotency-Key must have 1 to 255 printable characters.")
    signup_id, duplicate = take_signup(read_json(SignupBody), key)
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
