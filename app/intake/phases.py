"""Phase events: what the Action sends when a phase has ended, and reads back before the next."""

from flask import Blueprint, Response, g

from app.contracts.http import PhaseAccepted, PhaseBody, PhaseName, Phases, PhasesQuery
from app.contracts.http import Problem as ProblemBody
from app.contracts.phases import Phase
from app.db import transaction
from app.intake.auth import require_api_key
from app.intake.bodies import read_json, read_query, reply
from app.intake.commits import GroupCommit
from app.intake.openapi import describe
from app.intake.problems import Problem
from app.phases import results

blueprint = Blueprint("phases", __name__, url_prefix="/api/v1")
blueprint.before_request(require_api_key)
_keep = GroupCommit(results.store)

_PHASES: dict[PhaseName, Phase] = {
    "scan": "scan",
    "validate": "validation",
    "validation": "validation",
    "mitigate": "mitigation",
    "mitigation": "mitigation",
}


def _read(body: PhaseBody) -> results.NewResult:
    """`body` in our own names."""
    phase = _PHASES[body.phase]
    status = body.status or results.status_of(phase, body.data)
    return results.NewResult(**body.model_dump(exclude={"customer_id"}) | {"phase": phase, "status": status})


# The second is the Action's older name for it.
@blueprint.post("/phase-data")
@blueprint.post("/phases/store", endpoint="store_by_old_name")
@describe("Tell that a phase has ended", body=PhaseBody, answers={202: PhaseAccepted, 403: ProblemBody}, api_key=True)
def store() -> Response:
    body = read_json(PhaseBody)
    if body.customer_id not in (None, g.customer_id):
        raise Problem(403, f"The event is about customer {body.customer_id}, and the API key is another customer's.")
    kept = _keep.commit(results.receive(g.customer_id, _read(body)))
    return reply(PhaseAccepted(id=kept.id, phase=body.phase, duplicate=kept.duplicate), 202)


@blueprint.get("/phases/retrieve")
@describe(
    "What the phases of a commit have brought",
    query=PhasesQuery,
    answers={200: Phases, 404: ProblemBody},
    api_key=True,
)
def retrieve() -> Response:
    wanted = read_query(PhasesQuery)
    with transaction() as db:
        found = results.newest(db, g.customer_id, **wanted.model_dump())
    if not found:
        raise Problem(404, "You have sent no result of a phase for this repository, issue and commit.")
    return reply(Phases(**found))
