"""Signups: what was asked for, how far it has come, and who let it through."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from uuid import UUID

from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, Row, Text, case, cast, exists, func, select, update
from uuid_utils.compat import uuid7

from app.contracts.provisioning import STEPS, CreateCustomer
from app.customers.tables import signups
from app.ledger import ops
from app.ledger.enqueue import NewJob, insert, prepare
from app.ledger.states import State
from app.ledger.tables import job_keys, jobs

Plan = Literal["trial", "payg", "teams"]
Source = Literal["direct", "gh_marketplace", "early_access"]


_stopped = exists().where(
    job_keys.c.key.in_(["signup:" + cast(signups.c.id, Text) + f":{step.name}" for step in STEPS]),
    jobs.c.id == job_keys.c.job_id,
    jobs.c.state.in_((State.DEAD, State.CANCELLED)),
)
_status = case(
    (signups.c.status.in_(("provisioned", "rejected")), signups.c.status), (_stopped, "failed"), else_=signups.c.status
)
"""How a signup stands, to whoever asks. That it failed, its row does not say: a job of it ended before its end."""


class NewSignup(BaseModel):
    """What a signup asks for, checked and normalised."""

    model_config = ConfigDict(frozen=True)

    email: str
    name: str
    plan: Plan = "trial"
    source: Source = "direct"


class NoSuchSignup(Exception):
    """There is no signup with that id."""

    def __init__(self, signup_id: object) -> None:
        self.signup_id = signup_id
        super().__init__(f"there is no signup {signup_id}")


class KeyReused(Exception):
    """An Idempotency-Key came again with another request."""


class NotAwaiting(Exception):
    """The signup is not one that can be approved or rejected (any more)."""

    def __init__(self, signup_id: UUID, status: str) -> None:
        self.signup_id, self.status = signup_id, status
        super().__init__(f"signup {signup_id} is {status}, not awaiting approval")


@dataclass(frozen=True)
class Asked:
    """A signup to be kept, and the job that begins it."""

    id: UUID
    wanted: NewSignup
    idempotency_key: str | None
    job: NewJob


class Accepted(NamedTuple):
    """The signup that answers a request. `duplicate`: its Idempotency-Key was seen before."""

    id: UUID
    duplicate: bool


def ask(wanted: NewSignup, idempotency_key: str | None) -> Asked:
    """What `accept` keeps of a request."""
    signup_id = uuid7()
    return Asked(signup_id, wanted, idempotency_key, prepare(CreateCustomer(signup_id=signup_id)))


# Text, because it is the intake's hot path: building the same with Core costs as much as running it.
_ACCEPT = """
INSERT INTO signups (id, email, name, plan, source, idempotency_key)
SELECT id, email, name, plan, source, idempotency_key
FROM jsonb_to_recordset(%(rows)s) AS new (id uuid, email text, name text, plan text, source text, idempotency_key text)
ORDER BY idempotency_key
ON CONFLICT (idempotency_key) DO NOTHING
RETURNING id
"""


def accept(db: Connection, asked: Sequence[Asked]) -> list[Accepted | KeyReused]:
    """Keep signups and the jobs that begin them; one answer for each, in their order. KeyReused: the key was used
    for a signup with other content."""
    rows = [{"id": str(a.id), "idempotency_key": a.idempotency_key, **a.wanted.model_dump()} for a in asked]
    made = set(db.exec_driver_sql(_ACCEPT, {"rows": Jsonb(rows)}).scalars())
    insert(db, [a.job for a in asked if a.id in made])
    return [Accepted(a.id, duplicate=False) if a.id in made else _again(db, a) for a in asked]


def _again(db: Connection, asked: Asked) -> Accepted | KeyReused:
    first = db.execute(select(signups).where(signups.c.idempotency_key == asked.idempotency_key)).one()
    if NewSignup(email=first.email, name=first.name, plan=first.plan, source=first.source) != asked.wanted:
        return KeyReused()
    return Accepted(first.id, duplicate=True)


def get(db: Connection, signup_id: UUID) -> Row[Any]:
    """The signup.

    Raises:
        NoSuchSignup
    """
    row = db.execute(select(signups).where(signups.c.id == signup_id)).one_or_none()
    if row is None:
        raise NoSuchSignup(signup_id)
    return row


def progress(db: Connection, signup_id: UUID) -> tuple[str, list[dict[str, Any]]]:
    """The signup's status and its four steps, as `GET /api/v1/signups/{id}` shows them.

    A step that has no job yet is `waiting`. Finished jobs are pruned in time: the steps of a provisioned
    signup then read `succeeded` without a time.

    Raises:
        NoSuchSignup
    """
    status = db.execute(select(_status).where(signups.c.id == signup_id)).scalar_one_or_none()
    if status is None:
        raise NoSuchSignup(signup_id)
    keys = {f"signup:{signup_id}:{step.name}": step.name for step in STEPS}
    found = {
        keys[row.key]: row
        for row in db.execute(
            select(job_keys.c.key, jobs.c.state, jobs.c.attempt, jobs.c.spared, jobs.c.finished_at)
            .join(jobs, jobs.c.id == job_keys.c.job_id)
            .where(job_keys.c.key.in_(keys))
        )
    }
    steps: list[dict[str, Any]] = []
    for name in keys.values():
        row = found.get(name)
        missing = "succeeded" if status == "provisioned" else "waiting"
        steps.append(
            {
                "name": name,
                "state": row.state if row else missing,
                "attempts": row.attempt - row.spared if row else 0,
                "finished_at": row.finished_at if row else None,
            }
        )
    return status, steps


def set_status(db: Connection, signup_id: UUID, status: str, customer_id: int | None = None) -> None:
    """Write how far the signup has come; `customer_id` once it is known."""
    values: dict[str, Any] = {"status": status}
    if customer_id is not None:
        values["customer_id"] = customer_id
    db.execute(update(signups).where(signups.c.id == signup_id).values(**values))


def list_signups(db: Connection, status: str | None, limit: int) -> list[dict[str, Any]]:
    """Signups, newest first, in the JSON shape of `signups list` (interface.md)."""
    query = select(signups, _status.label("shown")).order_by(signups.c.id.desc()).limit(limit)
    if status is not None:
        query = query.where(_status == status)
    return [
        {
            "signup_id": str(row.id),
            "email": row.email,
            "name": row.name,
            "plan": row.plan,
            "source": row.source,
            "status": row.shown,
            "created_at": row.created_at.isoformat(),
        }
        for row in db.execute(query)
    ]


def _awaiting(db: Connection, signup_id: UUID, *allowed: str) -> UUID:
    """Lock the signup and return the id of its first job."""
    row = db.execute(select(signups).where(signups.c.id == signup_id).with_for_update()).one_or_none()
    if row is None:
        raise NoSuchSignup(signup_id)
    if row.status not in allowed:
        raise NotAwaiting(signup_id, row.status)
    first_job: UUID = db.execute(
        select(job_keys.c.job_id).where(job_keys.c.key == CreateCustomer(signup_id=signup_id).dedup_key)
    ).scalar_one()
    return first_job


def approve(db: Connection, signup_id: UUID, *, actor: str, reason: str | None = None) -> None:
    """Let a parked signup be provisioned; also takes back a rejection.

    Raises:
        NoSuchSignup, NotAwaiting
    """
    job_id = _awaiting(db, signup_id, "awaiting_approval", "rejected")
    state = db.execute(select(jobs.c.state).where(jobs.c.id == job_id)).scalar_one()
    db.execute(
        update(signups).where(signups.c.id == signup_id).values(status="queued", approved_at=func.clock_timestamp())
    )
    free = ops.release if state == State.HELD else ops.requeue
    free(db, job_id, actor=actor, reason=reason)
    ops.record(db, actor=actor, action="approve", subject=f"signup:{signup_id}", reason=reason)


def reject(db: Connection, signup_id: UUID, *, actor: str, reason: str | None = None) -> None:
    """Turn a parked signup down: no customer is made. `approve` takes it back.

    Raises:
        NoSuchSignup, NotAwaiting
    """
    job_id = _awaiting(db, signup_id, "awaiting_approval")
    ops.cancel(db, job_id, actor=actor, reason=reason)
    set_status(db, signup_id, "rejected")
    ops.record(db, actor=actor, action="reject", subject=f"signup:{signup_id}", reason=reason)
