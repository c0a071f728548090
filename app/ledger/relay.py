"""The safety net: one leader that rings for what is due, takes back what crashed, and keeps the calendar.

Every process may run a relay; the one that holds the advisory lock leads. The lock lives and dies with
the connection that the sweeps run on, so a leader that lost PostgreSQL cannot go on leading.
"""

import os
import socket
import threading
from datetime import UTC, datetime
from functools import partial

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from structlog.contextvars import bound_contextvars

from app.db import after_commit, get_database_url, make_engine, transaction
from app.ledger.bell import ring
from app.ledger.command import COMMANDS
from app.ledger.enqueue import enqueue
from app.ledger.errors import BACKOFF
from app.logs import log

SWEEP_S = 1.0
"""Seconds between two sweeps. A job is published again within one; Redis may lose everything at any time."""

_FROZEN_S = 8
"""Seconds of silence after which a leader has lost the lead."""

_LEADER_LOCK = 7_205_759_404

# A worker that stopped without an outcome: the attempt counts, the job runs again soon. What it had claimed
# along and not begun counts nothing.
_RECLAIM = """
WITH expired AS MATERIALIZED (
    SELECT id, lease_owner, started_at IS NULL AS unbegun,
           started_at IS NOT NULL AND attempt - spared >= max_attempts AS used_up,
           least(%(cap)s, %(base)s * 2 ^ greatest(attempt - spared - 1, 0)) * (0.5 + random() / 2) AS delay
    FROM jobs WHERE lease_owner IS NOT NULL AND lease_until < clock_timestamp()
    LIMIT 1000 FOR UPDATE SKIP LOCKED
), moved AS (
    UPDATE jobs SET state = CASE WHEN used_up THEN 'dead' ELSE 'retrying' END,
        finished_at = CASE WHEN used_up THEN clock_timestamp() END,
        run_at = clock_timestamp() + make_interval(secs => delay), spared = spared + unbegun::int,
        lease_owner = NULL, lease_until = NULL, error_kind = 'crashed',
        error_message = 'its worker stopped without an outcome'
    FROM expired WHERE jobs.id = expired.id
    RETURNING jobs.id, attempt, coalesce(started_at, clock_timestamp()) AS started_at,
        expired.lease_owner AS worker, state, error_message, name
), history AS (
    INSERT INTO job_attempts (job_id, attempt, started_at, ended_at, worker, outcome, error_kind, error_message)
    SELECT id, attempt, started_at, clock_timestamp(), worker, 'crashed', 'crashed', error_message FROM moved
)
SELECT id, name, state, worker FROM moved
"""

_HOLD = """
UPDATE jobs SET state = 'held', blocked = false, hold = CASE WHEN gate = ANY(%(closed)s) THEN gate ELSE 'paused' END
WHERE id IN (
    SELECT id FROM jobs
    WHERE state IN ('queued', 'retrying') AND run_at <= clock_timestamp()
      AND (queue IN (SELECT queue FROM queue_pauses) OR gate = ANY(%(closed)s))
    LIMIT 5000 FOR UPDATE SKIP LOCKED
)
"""

_RELEASE = """
UPDATE jobs SET state = 'queued', hold = NULL
WHERE id IN (
    SELECT id FROM jobs
    WHERE state = 'held' AND queue NOT IN (SELECT queue FROM queue_pauses)
      AND (hold = 'paused' OR hold = gate) AND (gate IS NULL OR gate <> ALL(%(closed)s))
    LIMIT 5000 FOR UPDATE SKIP LOCKED
)
"""

# A job can be left waiting for one that has just ended: it was parked while that one committed.
_UNBLOCK = """
UPDATE jobs SET blocked = false
WHERE blocked AND id IN (
    SELECT DISTINCT ON (serialize_by) id FROM jobs AS waiting
    WHERE blocked AND state IN ('queued', 'retrying') AND serialize_by IS NOT NULL
      AND NOT EXISTS (SELECT FROM jobs r WHERE r.serialize_by = waiting.serialize_by AND r.state = 'running')
    ORDER BY serialize_by, run_at
)
"""

# Every queue with jobs that wait, by jumping from one to the next in the index: those of a newer release, too.
_WAITING_QUEUES = """
WITH RECURSIVE waiting (queue) AS (
    SELECT min(queue) FROM jobs WHERE state IN ('queued', 'retrying') AND NOT blocked
    UNION ALL
    SELECT (SELECT min(queue) FROM jobs
            WHERE state IN ('queued', 'retrying') AND NOT blocked AND jobs.queue > waiting.queue)
    FROM waiting WHERE waiting.queue IS NOT NULL
)
"""

_DUE = f"""
{_WAITING_QUEUES}
SELECT waiting.queue, job.name
FROM waiting CROSS JOIN LATERAL (
    SELECT name FROM jobs
    WHERE jobs.queue = waiting.queue AND state IN ('queued', 'retrying') AND NOT blocked
      AND run_at <= clock_timestamp() AND (gate IS NULL OR gate <> ALL(%(closed)s))
    ORDER BY run_at LIMIT 1
) AS job
WHERE waiting.queue NOT IN (SELECT queue FROM queue_pauses)
"""  # noqa: S608  (put together of constants)

_NEXT_DUE = f"""
{_WAITING_QUEUES}
SELECT extract(epoch FROM min(job.run_at) - clock_timestamp())::float8
FROM waiting CROSS JOIN LATERAL (
    SELECT run_at FROM jobs
    WHERE jobs.queue = waiting.queue AND state IN ('queued', 'retrying') AND NOT blocked
      AND run_at > clock_timestamp()
    ORDER BY run_at LIMIT 1
) AS job
"""  # noqa: S608  (put together of constants)

_MARK = """
INSERT INTO relay_status (leader, swept_at) VALUES (%(leader)s, clock_timestamp())
ON CONFLICT ("only") DO UPDATE SET leader = excluded.leader, swept_at = excluded.swept_at
"""


class Relay:
    """Sweeps while it leads; waits to lead while another does; survives losing PostgreSQL or Redis."""

    def __init__(self, closed_gates: list[str]) -> None:
        self._closed = closed_gates
        self._me = f"{socket.gethostname()}:{os.getpid()}"
        self._enqueued: dict[str, str] = {}
        self._engine = make_engine(get_database_url(), pool_size=1)
        self._stop = threading.Event()

    def stop(self) -> None:
        """Make `run` return after the sweep that it is in."""
        self._stop.set()

    def run(self) -> None:
        """Sweep until `stop` is called."""
        while not self._stop.is_set():
            try:
                with self._engine.connect() as db:
                    self._lead(db)
            except DBAPIError as error:
                log.warning("relay.database_lost", error=type(error.orig).__name__)
                self._stop.wait(SWEEP_S)
        self._engine.dispose()

    def _lead(self, db: Connection) -> None:
        try:
            with transaction(db):
                # A leader that is frozen or cut off keeps its session: PostgreSQL ends it, and frees the lock.
                db.exec_driver_sql(f"SET idle_session_timeout = '{_FROZEN_S}s'")
                db.exec_driver_sql(f"SET idle_in_transaction_session_timeout = '{_FROZEN_S}s'")
            while not self._stop.is_set():
                with transaction(db):
                    leads = db.exec_driver_sql(f"SELECT pg_try_advisory_lock({_LEADER_LOCK})").scalar_one()
                if leads:
                    break
                self._stop.wait(SWEEP_S)
            log.info("relay.leads", leader=self._me)
            while not self._stop.is_set():
                self._stop.wait(self.sweep(db))
        finally:
            db.invalidate()  # closes the session, and with it the lock: never back into the pool

    def sweep(self, db: Connection) -> float:
        """One round; returns the seconds to wait before the next."""
        with transaction(db):
            self._reclaim(db)
            switches = {"closed": self._closed}
            for statement in (_HOLD, _RELEASE, _UNBLOCK):
                db.exec_driver_sql(statement, switches)
            self._keep_calendar(db)
            db.exec_driver_sql(_MARK, {"leader": self._me})
            due = db.exec_driver_sql(_DUE, switches).all()
            wait = db.exec_driver_sql(_NEXT_DUE, switches).scalar_one()
        for queue, name in due:
            ring(queue, name)
        return SWEEP_S if wait is None else min(SWEEP_S, max(0.02, wait))

    def _reclaim(self, db: Connection) -> None:
        crashed = BACKOFF["crashed"]
        for job_id, name, state, worker in db.exec_driver_sql(
            _RECLAIM, {"base": crashed.base, "cap": crashed.cap}
        ).all():
            log.warning("job.crashed", job=str(job_id), name=name, state=state, worker=worker)

    def _keep_calendar(self, db: Connection) -> None:
        """Make this period's job of every periodic command; its key makes two schedulers make one job."""
        now = int(datetime.now(UTC).timestamp())
        for command in COMMANDS.values():
            if command.every is None:
                continue
            period = datetime.fromtimestamp(now - now % command.every, UTC).isoformat()
            if self._enqueued.get(command.name) != period:
                with bound_contextvars(origin="calendar"):
                    enqueue(db, command.model_validate({"period": period}))
                after_commit(db, partial(self._enqueued.__setitem__, command.name, period))
