"""Accept jobs, in the transaction of whoever asks for them (laws 1 and 2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import Connection
from structlog.contextvars import get_contextvars
from uuid_utils.compat import uuid7

from app.db import after_commit
from app.ledger.bell import ring
from app.ledger.command import Command


@dataclass(frozen=True)
class Enqueued:
    """The job that answers a submission. `duplicate`: it was there before, under the same key."""

    job_id: UUID
    duplicate: bool


@dataclass(frozen=True)
class NewJob:
    """A job to be: a row of `jobs`, as JSON reads it."""

    id: UUID
    row: dict[str, Any]


# One statement, one round trip for any number. The key's primary key decides between two submissions at the
# same instant: the second waits for the first to commit, then inserts nothing. Always in the order of their
# keys, so that two transactions never wait for each other.
_ENQUEUE = """
WITH new AS (
    SELECT * FROM jsonb_to_recordset(%(rows)s) AS new (
        id uuid, name text, queue text, key text, payload jsonb, max_attempts integer, run_at timestamptz, gate text,
        serialize_by text, correlation_id text, customer_id bigint, enqueued_by text)
), fresh AS (
    INSERT INTO job_keys (key, job_id) SELECT key, id FROM new ORDER BY key ON CONFLICT (key) DO NOTHING
    RETURNING job_id
)
INSERT INTO jobs (id, name, queue, key, payload, max_attempts, run_at, gate, serialize_by, correlation_id,
                  customer_id, enqueued_by)
SELECT id, name, queue, key, payload, max_attempts, coalesce(run_at, clock_timestamp()), gate, serialize_by,
       correlation_id, customer_id, enqueued_by
FROM new JOIN fresh ON fresh.job_id = new.id
RETURNING id
"""
_FIRST = "SELECT key, job_id FROM job_keys WHERE key = ANY(%(keys)s)"


def prepare(command: Command, *, key: str | None = None, run_at: datetime | None = None) -> NewJob:
    """`command` as a job that `insert` can make; the correlation id and the origin are those bound to the log context.

    Args:
        key: the deduplication key, where it is not the command's own.
        run_at: when it is due (UTC); None is at once.
    """
    context = get_contextvars()
    job_id = uuid7()
    row = {
        "id": str(job_id),
        "key": key or command.dedup_key,
        "name": command.name,
        "queue": command.queue,
        "payload": command.model_dump(mode="json"),
        "max_attempts": command.max_attempts,
        "run_at": run_at,
        "gate": command.held_by,
        "serialize_by": command.serialize_by,
        "correlation_id": context.get("correlation_id"),
        "customer_id": command.about_customer,
        "enqueued_by": context.get("origin"),
    }
    return NewJob(job_id, row)


def insert(db: Connection, new: Sequence[NewJob]) -> list[Enqueued]:
    """Make `new` jobs that exist if, and only if, the transaction of `db` commits; those due at once ring the
    bell after the commit. Returns one answer for each, in their order."""
    if not new:
        return []
    made = set(db.exec_driver_sql(_ENQUEUE, {"rows": Jsonb([job.row for job in new])}).scalars())
    first: dict[str, UUID] = {}
    if len(made) < len(new):
        keys = [job.row["key"] for job in new if job.id not in made]
        first = {row.key: row.job_id for row in db.exec_driver_sql(_FIRST, {"keys": keys})}
    bells = {job.row["queue"]: job.row["name"] for job in new if job.id in made and job.row["run_at"] is None}
    for queue, name in bells.items():
        after_commit(db, partial(ring, queue, name))
    return [
        Enqueued(job.id, duplicate=False) if job.id in made else Enqueued(first[job.row["key"]], duplicate=True)
        for job in new
    ]


def enqueue(db: Connection, command: Command, *, key: str | None = None, run_at: datetime | None = None) -> Enqueued:
    """Make `command` a job: `prepare` and `insert` in one."""
    return insert(db, [prepare(command, key=key, run_at=run_at)])[0]
