"""Accept a job, in the transaction of whoever asks for it (laws 1 and 2)."""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
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


# One statement, one round trip. The key's primary key decides between two submissions at the same
# instant: the second waits for the first to commit, then inserts nothing.
_ENQUEUE = """
WITH fresh AS (
    INSERT INTO job_keys (key, job_id) VALUES (%(key)s, %(id)s) ON CONFLICT (key) DO NOTHING RETURNING job_id
)
INSERT INTO jobs (id, name, queue, key, payload, max_attempts, run_at, gate, serialize_by, correlation_id,
                  customer_id, enqueued_by)
SELECT job_id, %(name)s, %(queue)s, %(key)s, %(payload)s, %(max_attempts)s,
       coalesce(%(run_at)s::timestamptz, clock_timestamp()), %(gate)s, %(serialize_by)s, %(correlation_id)s,
       %(customer_id)s, %(enqueued_by)s
FROM fresh
"""
_FIRST = "SELECT job_id FROM job_keys WHERE key = %(key)s"


def enqueue(db: Connection, command: Command, *, key: str | None = None, run_at: datetime | None = None) -> Enqueued:
    """Make `command` a job that exists if, and only if, the transaction of `db` commits.

    Args:
        key: the deduplication key, where it is not the command's own.
        run_at: when it is due (UTC); None is at once, and rings the bell after the commit.

    The correlation id and the origin are those bound to the log context.
    """
    context = get_contextvars()
    job_id = uuid7()
    parameters = {
        "id": job_id,
        "key": key or command.dedup_key,
        "name": command.name,
        "queue": command.queue,
        "payload": Jsonb(command.model_dump(mode="json")),
        "max_attempts": command.max_attempts,
        "run_at": run_at,
        "gate": command.gate,
        "serialize_by": command.serialize_by,
        "correlation_id": context.get("correlation_id"),
        "customer_id": command.about_customer,
        "enqueued_by": context.get("origin"),
    }
    if db.exec_driver_sql(_ENQUEUE, parameters).rowcount == 0:
        first = db.exec_driver_sql(_FIRST, {"key": parameters["key"]}).scalar_one()
        return Enqueued(first, duplicate=True)
    if run_at is None:
        after_commit(db, partial(ring, command.queue, command.name))
    return Enqueued(job_id, duplicate=False)
