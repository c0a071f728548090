"""What a person may do to jobs and queues. Each of them is on record (law 12)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, and_, func, insert, or_, select

from app.db import after_commit
from app.ledger.bell import ring
from app.ledger.command import queues as known_queues
from app.ledger.finish import NEXT_IN_LINE
from app.ledger.states import MOVES, State
from app.ledger.tables import job_attempts, jobs, operator_actions, queue_pauses
from app.logs import redact

REQUEUE_PER_S = 50
"""The pace of a bulk requeue: thousands of jobs must not fall on Stripe in one second."""


class NoSuchJob(Exception):
    """There is no job with that id (it may have been pruned)."""

    def __init__(self, job_id: object) -> None:
        self.job_id = job_id
        super().__init__(f"there is no job {job_id}")


class NotAllowed(Exception):
    """The job's state does not allow the move."""

    def __init__(self, job_id: UUID, state: str, wanted: str) -> None:
        self.job_id, self.state, self.wanted = job_id, state, wanted
        reason = {
            "succeeded": (
                "it has succeeded: doing it again would do nothing or harm"
                if wanted == "requeued"
                else "it has succeeded already"
            ),
            "running": "it is running now: wait for its outcome",
        }.get(state, f"it is {state}")
        super().__init__(f"job {job_id} cannot be {wanted}: {reason}")


@dataclass(frozen=True)
class JobFilter:
    """Which jobs: every field that is given must match. `error` is part of the message or the kind."""

    state: str | None = None
    name: str | None = None
    queue: str | None = None
    customer_id: int | None = None
    error: str | None = None
    since: datetime | None = None

    def where(self) -> ColumnElement[bool]:
        """The condition on `jobs`."""
        conditions = [
            column == value
            for column, value in (
                (jobs.c.state, self.state),
                (jobs.c.name, self.name),
                (jobs.c.queue, self.queue),
                (jobs.c.customer_id, self.customer_id),
            )
            if value is not None
        ]
        if self.error is not None:
            conditions.append(
                or_(
                    jobs.c.error_kind == self.error,
                    jobs.c.error_message.icontains(self.error, autoescape=True),
                )
            )
        if self.since is not None:
            conditions.append(jobs.c.created_at >= self.since)
        return and_(True, *conditions)


def record(db: Connection, *, actor: str, action: str, subject: str, reason: str | None = None) -> None:
    """Write down what a person did, in the transaction that does it."""
    db.execute(insert(operator_actions).values(actor=actor, action=action, subject=subject, reason=reason))


def _as_listed(row: Row[Any]) -> dict[str, Any]:
    """The JSON shape of `jobs list` (interface.md). `attempts` are those that count against `max_attempts`."""
    error = None
    if row.error_kind is not None or row.error_message is not None:
        error = {"kind": row.error_kind, "message": row.error_message}
    return {
        "id": str(row.id),
        "name": row.name,
        "queue": row.queue,
        "state": row.state,
        "key": redact(row.key),
        "attempts": row.attempt - row.spared,
        "max_attempts": row.max_attempts,
        "customer_id": row.customer_id,
        "created_at": row.created_at.isoformat(),
        "run_at": row.run_at.isoformat(),
        "finished_at": row.finished_at and row.finished_at.isoformat(),
        "error": error,
    }


def list_jobs(db: Connection, wanted: JobFilter, limit: int = 50) -> list[dict[str, Any]]:
    """The newest jobs that match, newest first."""
    rows = db.execute(select(jobs).where(wanted.where()).order_by(jobs.c.id.desc()).limit(limit))
    return [_as_listed(row) for row in rows]


def show_job(db: Connection, job_id: UUID, *, to_owner: bool = False) -> dict[str, Any]:
    """Everything about one job, secrets and addresses redacted.

    Args:
        to_owner: it is shown to the customer whose it is, so the result is as it is: a link in it is meant for them.

    Raises:
        NoSuchJob
    """
    row = db.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
    if row is None:
        raise NoSuchJob(job_id)
    attempts = db.execute(select(job_attempts).where(job_attempts.c.job_id == job_id).order_by(job_attempts.c.attempt))
    history: list[dict[str, Any]] = [
        {
            "attempt": a.attempt,
            "started_at": a.started_at.isoformat(),
            "ended_at": a.ended_at.isoformat(),
            "worker": a.worker,
            "outcome": a.outcome,
            "error_kind": a.error_kind,
            "error_message": a.error_message,
            "traceback": a.traceback,
        }
        for a in attempts
    ]
    if row.state == State.RUNNING:
        history.append(
            {
                "attempt": row.attempt,
                "started_at": row.started_at and row.started_at.isoformat(),
                "ended_at": None,
                "worker": row.lease_owner,
                "outcome": "running",
                "error_kind": None,
                "error_message": None,
                "traceback": None,
            }
        )
    done_by_people = db.execute(
        select(operator_actions).where(operator_actions.c.subject == f"job:{job_id}").order_by(operator_actions.c.id)
    )
    return _as_listed(row) | {
        "payload": redact(row.payload),
        "result": row.result if to_owner else redact(row.result),
        "history": history,
        "enqueued_by": row.enqueued_by,
        "correlation_id": row.correlation_id,
        "serialize_by": redact(row.serialize_by),
        "hold": row.hold,
        "waits_for_its_turn": row.blocked,
        "operators": [
            {"at": o.at.isoformat(), "actor": o.actor, "action": o.action, "reason": o.reason} for o in done_by_people
        ],
    }


def _refuse_requeue(row: Row[Any]) -> None:
    if row.state not in (State.DEAD, State.CANCELLED):
        raise NotAllowed(row.id, row.state, "requeued")


def would_requeue(db: Connection, job_id: UUID) -> dict[str, Any]:
    """The job that `requeue` would requeue, as it is listed; nothing is changed.

    Raises:
        as `requeue`
    """
    row = db.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
    if row is None:
        raise NoSuchJob(job_id)
    _refuse_requeue(row)
    return _as_listed(row)


def _lock(db: Connection, job_id: UUID, to: State, wanted: str) -> Row[Any]:
    row = db.execute(select(jobs).where(jobs.c.id == job_id).with_for_update()).one_or_none()
    if row is None:
        raise NoSuchJob(job_id)
    if to not in MOVES[State(row.state)]:
        raise NotAllowed(job_id, row.state, wanted)
    return row


def requeue(db: Connection, job_id: UUID, *, actor: str, reason: str | None = None, delay_s: float = 0) -> None:
    """Give a dead or cancelled job a new budget of attempts; its history stays.

    Two operators at once: the second is told that the job is queued already.

    Raises:
        NoSuchJob, NotAllowed
    """
    row = _lock(db, job_id, State.QUEUED, "requeued")
    _refuse_requeue(row)
    db.execute(
        jobs.update()
        .where(jobs.c.id == job_id)
        .values(
            state=State.QUEUED,
            spared=jobs.c.attempt,
            busy_since=None,
            finished_at=None,
            run_at=func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, delay_s),
        )
    )
    record(db, actor=actor, action="requeue", subject=f"job:{job_id}", reason=reason)
    after_commit(db, lambda: ring(row.queue, row.name))


def matching(db: Connection, wanted: JobFilter) -> list[UUID]:
    """The ids of all jobs that match, oldest first."""
    return list(db.execute(select(jobs.c.id).where(wanted.where()).order_by(jobs.c.id)).scalars())


def cancel(db: Connection, job_id: UUID, *, actor: str, reason: str | None = None) -> None:
    """End a job that has not begun, or that waits to be tried again. A requeue undoes it.

    Raises:
        NoSuchJob
        NotAllowed: it is running or finished.
    """
    row = _lock(db, job_id, State.CANCELLED, "cancelled")
    db.execute(
        jobs.update()
        .where(jobs.c.id == job_id)
        .values(state=State.CANCELLED, hold=None, blocked=False, finished_at=func.clock_timestamp())
    )
    if row.serialize_by is not None:
        db.exec_driver_sql(NEXT_IN_LINE, {"serialize_by": row.serialize_by})
    record(db, actor=actor, action="cancel", subject=f"job:{job_id}", reason=reason)


def release(db: Connection, job_id: UUID, *, actor: str, reason: str | None = None) -> None:
    """Let a held job go.

    Raises:
        NoSuchJob, NotAllowed
    """
    row = _lock(db, job_id, State.QUEUED, "released")
    if row.state != State.HELD:
        raise NotAllowed(job_id, row.state, "released")
    db.execute(jobs.update().where(jobs.c.id == job_id).values(state=State.QUEUED, hold=None))
    record(db, actor=actor, action="release", subject=f"job:{job_id}", reason=reason)
    after_commit(db, lambda: ring(row.queue, row.name))


def pause_queue(db: Connection, queue: str, *, actor: str, reason: str | None = None) -> bool:
    """Stop the queue: nothing more of it is claimed. Returns whether it was running until now."""
    fresh = db.exec_driver_sql(
        "INSERT INTO queue_pauses (queue) VALUES (%(queue)s) ON CONFLICT DO NOTHING", {"queue": queue}
    ).rowcount
    record(db, actor=actor, action="pause", subject=f"queue:{queue}", reason=reason)
    return fresh == 1


def resume_queue(db: Connection, queue: str, *, actor: str, reason: str | None = None) -> bool:
    """Let a paused queue go on; the relay releases what it held. Returns whether it was paused."""
    gone = db.execute(queue_pauses.delete().where(queue_pauses.c.queue == queue)).rowcount
    record(db, actor=actor, action="resume", subject=f"queue:{queue}", reason=reason)
    return gone == 1


_OVERVIEW = """
SELECT queue,
    count(*) FILTER (WHERE state IN ('queued', 'retrying') AND run_at <= clock_timestamp()) AS waiting,
    count(*) FILTER (WHERE state IN ('queued', 'retrying') AND run_at > clock_timestamp()) AS scheduled,
    count(*) FILTER (WHERE state = 'running') AS running,
    count(*) FILTER (WHERE state = 'held') AS held,
    count(*) FILTER (WHERE state = 'dead') AS dead,
    coalesce(extract(epoch FROM clock_timestamp() - min(run_at) FILTER (
        WHERE state IN ('queued', 'retrying') AND run_at <= clock_timestamp())), 0)::float8 AS oldest_age_s
FROM jobs WHERE state IN ('queued', 'retrying', 'running', 'held', 'dead') GROUP BY queue
"""


def overview(db: Connection) -> list[dict[str, Any]]:
    """Every queue with its depth (the JSON shape of `queues`, interface.md): the known ones, and any with jobs."""
    counts = {row.queue: row._asdict() for row in db.exec_driver_sql(_OVERVIEW)}
    paused = set(db.execute(select(queue_pauses.c.queue)).scalars())
    nothing = {"waiting": 0, "scheduled": 0, "running": 0, "held": 0, "dead": 0, "oldest_age_s": 0.0}
    names: Sequence[str] = sorted({*known_queues(), *counts, *paused})
    return [
        {
            "name": name,
            "state": "paused" if name in paused else "active",
            **{key: counts.get(name, nothing)[key] for key in nothing},
        }
        for name in names
    ]
