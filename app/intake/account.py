"""What customers ask with their API key."""

from uuid import UUID

from flask import Blueprint, Response, g

from app.billing import bills, usage
from app.billing.status import billing_status
from app.contracts.http import BillingStatus, Bills, BillsQuery, JobView, NewApiKey, Usage, UsageQuery
from app.contracts.http import Problem as ProblemBody
from app.customers import api_keys
from app.db import transaction
from app.intake.auth import require_api_key
from app.intake.bodies import read_query, reply
from app.intake.openapi import describe
from app.intake.problems import Problem
from app.ledger import ops
from app.ledger.states import State

blueprint = Blueprint("account", __name__, url_prefix="/api/v1")
blueprint.before_request(require_api_key)


@blueprint.get("/billing/status")
@describe("The plan, what it includes and what is used", answers={200: BillingStatus}, api_key=True)
def status() -> Response:
    with transaction() as db:
        return reply(billing_status(db, g.customer_id))


@blueprint.get("/usage")
@describe("Your fixes by day, and what they cost", query=UsageQuery, answers={200: Usage}, api_key=True)
def show_usage() -> Response:
    wanted = read_query(UsageQuery)
    with transaction() as db:
        return reply(usage.usage(db, g.customer_id, wanted.start, wanted.end))


@blueprint.get("/invoices")
@describe("Your invoices and charges, the newest first", query=BillsQuery, answers={200: Bills}, api_key=True)
def list_bills() -> Response:
    wanted = read_query(BillsQuery)
    try:
        with transaction() as db:
            found = bills.bills(db, g.customer_id, limit=wanted.limit, before=wanted.before)
    except bills.NoSuchBill:
        wrong = {"loc": ["before"], "msg": "is the id of no invoice or charge of yours"}
        raise Problem(422, "The query does not validate: see errors.", errors=[wrong]) from None
    return reply(Bills(found))


@blueprint.post("/api-keys")
@describe("Issue a further API key, shown this once", answers={201: NewApiKey}, api_key=True)
def issue_key() -> Response:
    with transaction() as db:
        key = api_keys.issue(db, g.customer_id)
    return reply(NewApiKey(id=key.id, api_key=key.secret), 201)


@blueprint.delete("/api-keys/<int:key_id>")
@describe("Revoke an API key, at once", answers={204: None, 404: ProblemBody}, api_key=True)
def revoke_key(key_id: int) -> Response:
    with transaction() as db:
        if key_id >= 2**63 or not api_keys.revoke(db, g.customer_id, key_id):
            raise Problem(404, "You have no API key with this id.")
    return Response(status=204)


@blueprint.get("/jobs/<uuid:job_id>")
@describe("How far a job of yours has come", answers={200: JobView, 404: ProblemBody}, api_key=True)
def show_job(job_id: UUID) -> Response:
    try:
        with transaction() as db:
            job = ops.show_job(db, job_id, to_owner=True)
    except ops.NoSuchJob:
        job = None
    if job is None or job["customer_id"] != g.customer_id:
        raise Problem(404, "You have no job with this id.")
    if job["state"] == State.SUCCEEDED:
        job["error"] = None  # the ledger notes there that the effect was there already
    return reply(JobView.model_validate({name: job[name] for name in JobView.model_fields}))
