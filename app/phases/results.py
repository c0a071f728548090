"""Phase results: each kept once, with the jobs that follow from it, and the newest of them read back."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, case, func, select, update
from sqlalchemy.dialects.postgresql import distinct_on
from uuid_utils.compat import uuid7

from app.contracts.phases import Phase, PhaseCompleted
from app.events import publish
from app.ledger.enqueue import NewJob, insert, prepare
from app.phases.tables import phase_results


class NewResult(BaseModel):
    """What a phase has brought, checked and normalised."""

    model_config = ConfigDict(frozen=True)

    phase: Phase
    status: str
    repo: str
    issue_number: int | None
    commit_sha: str
    fix_id: str | None
    data: dict[str, Any]


@dataclass(frozen=True)
class Received:
    """A result to be kept, as a row of `phase_results`, and the jobs that follow from it."""

    id: UUID
    row: dict[str, Any]
    jobs: list[NewJob]


class Stored(NamedTuple):
    """The result that answers a request. `duplicate`: the same had come before."""

    id: UUID
    duplicate: bool


def status_of(phase: Phase, data: dict[str, Any]) -> str:
    """How the phase ended, by its data: what the Action sends has no status (interface.md, "The phase event")."""
    if phase == "scan":
        return "success"
    mark = {"validation": "validated", "mitigation": "fixed"}[phase]
    inner = data.get(phase)
    marks = data if mark in data or not isinstance(inner, dict) else inner
    return "success" if marks.get(mark) is True else "failed"


def receive(customer_id: int, result: NewResult) -> Received:
    """What `store` keeps of a result that has just come."""
    result_id, received_at = uuid7(), datetime.now(UTC)
    content = result.model_dump()
    row = {
        "id": str(result_id),
        "customer_id": customer_id,
        "digest": hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest(),
        "received_at": received_at,
        **content,
    }
    event = PhaseCompleted(
        phase_result_id=result_id,
        customer_id=customer_id,
        phase=result.phase,
        status=result.status,
        received_at=received_at,
    )
    return Received(result_id, row, [prepare(command) for command in publish(event)])


# Text, because it is the intake's hot path. In the order of their keys, so that two transactions with the same
# results never wait for each other.
_STORE = """
INSERT INTO phase_results (id, customer_id, phase, status, repo, issue_number, commit_sha, fix_id, data, digest,
                           received_at)
SELECT id, customer_id, phase, status, repo, issue_number, commit_sha, fix_id, data, digest, received_at
FROM jsonb_to_recordset(%(rows)s) AS new (id uuid, customer_id bigint, phase text, status text, repo text,
    issue_number bigint, commit_sha text, fix_id text, data jsonb, digest text, received_at timestamptz)
ORDER BY customer_id, digest
ON CONFLICT (customer_id, digest) DO NOTHING
RETURNING id
"""


def store(db: Connection, received: Sequence[Received]) -> list[Stored]:
    """Keep results and the jobs that follow from them; one answer for each, in their order."""
    made = set(db.exec_driver_sql(_STORE, {"rows": Jsonb([one.row for one in received])}).scalars())
    insert(db, [job for one in received if one.id in made for job in one.jobs])
    again = sorted((one.row for one in received if one.id not in made), key=_order)
    first = {row["id"]: _received_again(db, row) for row in again}
    return [Stored(first.get(str(one.id), one.id), duplicate=one.id not in made) for one in received]


def _order(row: dict[str, Any]) -> tuple[int, str]:
    """As `_STORE`: two transactions with the same results never wait for each other."""
    return row["customer_id"], row["digest"]


def _received_again(db: Connection, row: dict[str, Any]) -> UUID:
    """The id of the result that was there, which is the newest again: a phase may come to what it came to before."""
    first: UUID = db.execute(
        update(phase_results)
        .where(phase_results.c.customer_id == row["customer_id"], phase_results.c.digest == row["digest"])
        .values(last_received_at=row["received_at"])
        .returning(phase_results.c.id)
    ).scalar_one()
    return first


def newest(db: Connection, customer_id: int, *, repo: str, commit: str, issue: int | None) -> dict[str, Any]:
    """The newest data of the customer's phases at a commit: `scan`, and `validation` and `mitigation` by issue number;
    without those that there are none of. Letter case of repository and commit does not matter.

    Args:
        issue: of this issue alone; a scan is of the whole repository and there in any case.
    """
    result = phase_results.c
    subject = case((result.phase == "scan", None), else_=result.issue_number)
    query = (
        select(result.phase, subject.label("issue"), result.data)
        .ext(distinct_on(result.phase, subject))
        .where(
            result.customer_id == customer_id,
            func.lower(result.repo) == repo.lower(),
            func.lower(result.commit_sha) == commit.lower(),
        )
        .order_by(
            result.phase, subject, func.coalesce(result.last_received_at, result.received_at).desc(), result.id.desc()
        )
    )
    if issue is not None:
        query = query.where(func.coalesce(subject, issue) == issue)
    found: dict[str, Any] = {}
    for row in db.execute(query):
        if row.issue is None:
            found[row.phase] = row.data
        else:
            found.setdefault(row.phase, {})[str(row.issue)] = row.data
    return found
