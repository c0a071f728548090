"""Begin attempts: claim due jobs by compare-and-set, raising the attempt and taking a lease (law 5)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from app.db import transaction

LEASE_S = 6.0
"""Seconds that a claim lasts without a heartbeat. With the relay's sweep of one second, a killed
worker's job runs again well within 10 s."""


@dataclass(frozen=True)
class Claim:
    """One attempt at one job: what a handler needs, and the fence (`job_id`, `attempt`).

    `tries` counts the attempts that are held against `max_attempts`, this one included; `busy_s` is for how
    many seconds the job has been told to wait; `wait_s` how long it was due before it was claimed.
    """

    job_id: UUID
    name: str
    queue: str
    key: str
    payload: dict[str, Any]
    attempt: int
    tries: int
    max_attempts: int
    serialize_by: str | None
    correlation_id: str | None
    customer_id: int | None
    crashed: bool
    created_at: datetime
    busy_s: float
    wait_s: float

    @property
    def alone(self) -> bool:
        """Whether nothing may run beside it: it has crashed, and not for the first time. The first time it was more
        likely the company of another, or a worker that was killed, and it is to run again at once (law 5)."""
        return self.crashed and self.tries > 2


# candidate: the oldest due jobs that nobody else is claiming at this moment. Their number stands in the text:
#   of a parameter the planner assumes a tenth of the table, and reads all of it to find twenty.
# judged: which of them must wait because a job with the same `serialize_by` runs, is being claimed by
#   another worker (the advisory lock), or stands before it in this batch.
# parked: those that must wait, and their due siblings with them, leave the index of due jobs, so that
#   ten thousand jobs of one customer are not read again by every claim (failures.md 41). The finish of
#   the job that they wait for brings back the next.
# chosen: a job that has failed or crashed before is claimed alone, so that one which kills its worker
#   takes nobody with it a second time. Those that go along have no start yet: if the worker dies before
#   their turn, the attempt costs them nothing.
_CLAIM = """
WITH candidate AS MATERIALIZED (
    SELECT id, serialize_by, run_at,
           attempt = spared AND error_kind IS DISTINCT FROM 'crashed' AS fresh
    FROM jobs
    WHERE queue = %(queue)s AND state IN ('queued', 'retrying') AND NOT blocked
      AND run_at <= clock_timestamp() AND name = ANY(%(names)s)
      AND (gate IS NULL OR gate <> ALL(%(closed)s))
      AND NOT EXISTS (SELECT FROM queue_pauses p WHERE p.queue = %(queue)s)
    ORDER BY run_at
    LIMIT {limit}
    FOR UPDATE SKIP LOCKED
), judged AS MATERIALIZED (
    SELECT id, serialize_by, fresh, run_at, CASE
        WHEN serialize_by IS NULL THEN false
        WHEN row_number() OVER (PARTITION BY serialize_by ORDER BY run_at, id) > 1 THEN true
        WHEN NOT pg_try_advisory_xact_lock(hashtextextended(serialize_by, 7)) THEN true
        ELSE EXISTS (SELECT FROM jobs r WHERE r.serialize_by = candidate.serialize_by AND r.state = 'running')
    END AS must_wait
    FROM candidate
), sibling AS (
    SELECT id FROM jobs
    WHERE serialize_by IN (SELECT serialize_by FROM judged WHERE must_wait)
      AND state IN ('queued', 'retrying') AND NOT blocked AND run_at <= clock_timestamp()
      AND id NOT IN (SELECT id FROM judged)
    LIMIT 500
    FOR UPDATE SKIP LOCKED
), parked AS (
    UPDATE jobs SET blocked = true
    WHERE id IN (SELECT id FROM judged WHERE must_wait UNION ALL SELECT id FROM sibling)
    RETURNING id
), chosen AS (
    SELECT id, row_number() OVER w AS place, bool_and(fresh) OVER w AS along
    FROM judged WHERE NOT must_wait WINDOW w AS (ORDER BY run_at, id)
), claimed AS (
    UPDATE jobs SET state = 'running', attempt = attempt + 1,
        started_at = CASE WHEN place = 1 THEN clock_timestamp() END,
        lease_owner = %(owner)s, lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
    FROM chosen
    WHERE jobs.id = chosen.id AND (place = 1 OR along)
    RETURNING place, jobs.id, name, queue, key, payload, attempt, attempt - spared, max_attempts, serialize_by,
        correlation_id, customer_id, error_kind IS NOT DISTINCT FROM 'crashed', created_at,
        coalesce(extract(epoch FROM clock_timestamp() - busy_since), 0)::float8,
        extract(epoch FROM clock_timestamp() - run_at)::float8
)
SELECT (SELECT count(*) FROM parked), claimed.* FROM (VALUES (1)) AS always LEFT JOIN claimed ON true
"""

_EXTEND = """
UPDATE jobs SET lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
FROM unnest(%(ids)s::uuid[], %(attempts)s::int[]) AS held (id, attempt)
WHERE jobs.id = held.id AND jobs.attempt = held.attempt AND state = 'running'
RETURNING jobs.id
"""


def claim(db: Connection, *, queue: str, names: list[str], closed: list[str], owner: str, limit: int) -> list[Claim]:
    """Claim up to `limit` due jobs of `queue` for `owner`, oldest first; commits before it returns.

    Args:
        names: the kinds of job that this worker can do. An older worker leaves a newer kind alone.
        closed: the kill switches that are off; jobs behind them are not claimed.
    """
    parameters = {
        "queue": queue,
        "names": names,
        "closed": closed,
        "owner": owner,
        "lease": LEASE_S,
    }
    statement = _CLAIM.format(limit=int(limit))
    while True:
        try:
            with transaction(db):
                rows = db.exec_driver_sql(statement, parameters).all()
        except IntegrityError as error:
            # Another worker committed its claim on the same `serialize_by` after our snapshot was
            # taken: the unique index kept law 7. A new snapshot sees it.
            if not isinstance(error.orig, psycopg.errors.UniqueViolation):
                raise
            continue
        claimed = sorted((row for row in rows if row[1] is not None), key=lambda row: row[1])
        if claimed or rows[0][0] == 0:
            return [Claim(*row[2:]) for row in claimed]


def extend_leases(db: Connection, held: list[tuple[UUID, int]]) -> set[UUID]:
    """Give each (job, attempt) of `held` a whole lease again; returns the jobs that are still ours."""
    ids = [job_id for job_id, _ in held]
    attempts = [attempt for _, attempt in held]
    with transaction(db):
        return set(db.exec_driver_sql(_EXTEND, {"lease": LEASE_S, "ids": ids, "attempts": attempts}).scalars())
