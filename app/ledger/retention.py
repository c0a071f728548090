"""How long the ledger remembers: finished jobs for 30 days, the keys that refuse duplicates for 90.

Dead jobs stay until somebody requeues or cancels them: an accepted event is never dropped by a clock.
"""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection

JOBS_KEPT = timedelta(days=30)
KEYS_KEPT = timedelta(days=90)

_BATCH = 5000

# Ids begin with their time of creation, so the primary key finds what is old enough to look at.
_PRUNE_JOBS = """
WITH old AS (
    SELECT id FROM jobs
    WHERE id < %(before)s AND state IN ('succeeded', 'cancelled') AND finished_at < %(finished_before)s
    LIMIT %(batch)s FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM jobs USING old WHERE jobs.id = old.id RETURNING jobs.id
), history AS (
    DELETE FROM job_attempts USING gone WHERE job_attempts.job_id = gone.id
)
SELECT count(*) FROM gone
"""

_PRUNE_KEYS = """
DELETE FROM job_keys WHERE key IN (
    SELECT key FROM job_keys
    WHERE created_at < %(before)s AND NOT EXISTS (SELECT FROM jobs WHERE jobs.id = job_keys.job_id)
    LIMIT %(batch)s
)
"""


def _first_id(at: datetime) -> UUID:
    """The smallest UUIDv7 of that time."""
    return UUID(int=int(at.timestamp() * 1000) << 80)


def prune_jobs(db: Connection, now: datetime | None = None) -> int:
    """Delete a batch of jobs that finished more than `JOBS_KEPT` ago; returns how many."""
    before = (now or datetime.now(UTC)) - JOBS_KEPT
    parameters = {"before": _first_id(before), "finished_before": before, "batch": _BATCH}
    return int(db.exec_driver_sql(_PRUNE_JOBS, parameters).scalar_one())


def prune_keys(db: Connection, now: datetime | None = None) -> int:
    """Delete a batch of keys older than `KEYS_KEPT` whose job is gone; returns how many."""
    before = (now or datetime.now(UTC)) - KEYS_KEPT
    return db.exec_driver_sql(_PRUNE_KEYS, {"before": before, "batch": _BATCH}).rowcount
