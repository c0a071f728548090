"""End attempts: one fenced statement moves the job, writes its history and lets the next one go.

The history row takes its job id from the row that the fenced update moved. When nothing moved, because
the lease was lost, that id is NULL, the insert fails and with it the whole transaction: a worker that
woke up too late cannot commit its effects (law 5, failures.md 14).
"""

from functools import partial
from typing import Any

import psycopg
from psycopg.types.json import Jsonb
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from app.db import after_commit
from app.ledger.bell import ring
from app.ledger.claim import Claim
from app.ledger.errors import LostLease
from app.ledger.states import State
from app.logs import redact_text

_MOVE = """
WITH moved AS (
    UPDATE jobs SET state = %(state)s, spared = spared + %(spared)s, hold = %(hold)s,
        run_at = CASE WHEN %(delay)s::float8 IS NULL THEN run_at
                      ELSE clock_timestamp() + make_interval(secs => %(delay)s) END,
        lease_owner = NULL, lease_until = NULL,
        started_at = coalesce(started_at, clock_timestamp() - make_interval(secs => %(duration)s)),
        finished_at = CASE WHEN %(finished)s THEN clock_timestamp() END,
        busy_since = CASE WHEN %(busy)s THEN coalesce(busy_since, clock_timestamp()) END,
        error_kind = %(error_kind)s, error_message = %(error_message)s, result = %(result)s
    WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running'
    RETURNING id
)
INSERT INTO job_attempts (job_id, attempt, started_at, ended_at, worker, outcome, error_kind, error_message,
                          traceback)
VALUES ((SELECT id FROM moved), %(attempt)s, clock_timestamp() - make_interval(secs => %(duration)s),
        clock_timestamp(), %(worker)s, %(outcome)s, %(error_kind)s, %(error_message)s, %(traceback)s)
"""

NEXT_IN_LINE = """
UPDATE jobs SET blocked = false
WHERE id = (SELECT id FROM jobs
            WHERE serialize_by = %(serialize_by)s AND state IN ('queued', 'retrying') AND blocked
            ORDER BY run_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING queue, name
"""


_HOLD_LEASE = """
SELECT FROM jobs WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running' FOR SHARE
"""


def hold_lease(db: Connection, claim: Claim) -> None:
    """Keep the attempt from being taken away until the transaction of `db` ends.

    Raises:
        LostLease: it has been taken away already.
    """
    if db.exec_driver_sql(_HOLD_LEASE, {"id": claim.job_id, "attempt": claim.attempt}).first() is None:
        raise LostLease(claim.job_id, claim.attempt)


def finish(
    db: Connection,
    claim: Claim,
    *,
    worker: str,
    duration_s: float,
    state: State,
    outcome: str,
    delay_s: float | None = None,
    spare: bool = False,
    busy: bool = False,
    hold: str | None = None,
    error_kind: str | None = None,
    error_message: str | None = None,
    traceback: str | None = None,
    result: dict[str, Any] | None = None,
) -> None:
    """Move the claimed job to `state` in the transaction of `db`, fenced by its attempt number.

    Args:
        delay_s: seconds until it is due again, where it is to run again.
        spare: this attempt does not count against `max_attempts`.
        busy: it was told to wait; how long that goes on is counted from the first time.
        hold: why it is held, with the state `held`.

    Raises:
        LostLease: the attempt is no longer the job's; the transaction is void.
    """
    parameters = {
        "id": claim.job_id,
        "attempt": claim.attempt,
        "state": state,
        "spared": int(spare),
        "hold": hold,
        "delay": delay_s,
        "busy": busy,
        "finished": state in (State.SUCCEEDED, State.DEAD),
        "duration": duration_s,
        "worker": worker,
        "outcome": outcome,
        "error_kind": error_kind,
        "error_message": error_message and redact_text(error_message)[:2000],
        "traceback": traceback and redact_text(traceback)[-20_000:],
        "result": None if result is None else Jsonb(result),
    }
    try:
        db.exec_driver_sql(_MOVE, parameters)
    except IntegrityError as error:
        if isinstance(error.orig, psycopg.errors.NotNullViolation) and error.orig.diag.column_name == "job_id":
            raise LostLease(claim.job_id, claim.attempt) from None
        raise
    if claim.serialize_by is not None:
        following = db.exec_driver_sql(NEXT_IN_LINE, {"serialize_by": claim.serialize_by}).first()
        if following is not None:
            after_commit(db, partial(ring, *following))
