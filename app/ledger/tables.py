"""The ledger's tables, for statements built in Python. Constraints and indexes stand in the migrations."""

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Integer, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, UUID

from app.db import metadata

_time = DateTime(timezone=True)

jobs = Table(
    "jobs",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("name", Text),
    Column("queue", Text),
    Column("key", Text),
    Column("payload", JSONB),
    Column("state", Text),
    Column("attempt", Integer),
    Column("spared", Integer),
    Column("max_attempts", Integer),
    Column("run_at", _time),
    Column("blocked", Boolean),
    Column("gate", Text),
    Column("hold", Text),
    Column("serialize_by", Text),
    Column("lease_owner", Text),
    Column("lease_until", _time),
    Column("correlation_id", Text),
    Column("customer_id", BigInteger),
    Column("enqueued_by", Text),
    Column("created_at", _time),
    Column("started_at", _time),
    Column("busy_since", _time),
    Column("finished_at", _time),
    Column("error_kind", Text),
    Column("error_message", Text),
    Column("result", JSONB),
)
"""One row a job. `attempt` counts claims and is the fence; `attempt - spared` is what counts against
`max_attempts`. `blocked`: waits for another job with the same `serialize_by`. `gate`: the kill switch
that it obeys. `hold`: why it is held. `busy_since`: since when it has been told to wait, and nothing else."""

job_keys = Table(
    "job_keys",
    metadata,
    Column("key", Text, primary_key=True),
    Column("job_id", UUID(as_uuid=True)),
    Column("created_at", _time),
)
"""Every deduplication key, which outlives its job so that a late duplicate is still refused."""

job_attempts = Table(
    "job_attempts",
    metadata,
    Column("job_id", UUID(as_uuid=True), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("started_at", _time),
    Column("ended_at", _time),
    Column("worker", Text),
    Column("outcome", Text),
    Column("error_kind", Text),
    Column("error_message", Text),
    Column("traceback", Text),
)
"""Every attempt that has ended. The one that runs now stands in `jobs` (attempt, started_at, lease_owner)."""

queue_pauses = Table(
    "queue_pauses",
    metadata,
    Column("queue", Text, primary_key=True),
    Column("paused_at", _time),
)

operator_actions = Table(
    "operator_actions",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("at", _time),
    Column("actor", Text),
    Column("action", Text),
    Column("subject", Text),
    Column("reason", Text),
)
"""Law 12: who did what to what, when and why. Append-only (a trigger refuses anything else)."""

relay_status = Table(
    "relay_status",
    metadata,
    Column("only", Boolean, primary_key=True),
    Column("leader", Text),
    Column("swept_at", _time),
)
