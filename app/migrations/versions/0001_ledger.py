"""The job ledger: jobs, their keys and attempts, pauses, what operators did, and the relay's mark."""

from alembic import op

revision = "0001"
down_revision = None

_SCHEMA = """
CREATE TABLE job_keys (
    key text PRIMARY KEY CHECK (length(key) BETWEEN 1 AND 500),
    job_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX job_keys_created_at ON job_keys USING brin (created_at);

CREATE TABLE jobs (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    queue text NOT NULL,
    key text NOT NULL,
    payload jsonb NOT NULL,
    state text NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'held', 'running', 'retrying', 'succeeded', 'dead', 'cancelled')),
    attempt integer NOT NULL DEFAULT 0,
    spared integer NOT NULL DEFAULT 0 CHECK (spared BETWEEN 0 AND attempt),
    max_attempts integer NOT NULL CHECK (max_attempts > 0),
    run_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    blocked boolean NOT NULL DEFAULT false
        CHECK (NOT blocked OR (serialize_by IS NOT NULL AND state IN ('queued', 'retrying'))),
    gate text,
    hold text CHECK ((hold IS NOT NULL) = (state = 'held')),
    serialize_by text,
    lease_owner text CHECK ((lease_owner IS NOT NULL) = (state = 'running')),
    lease_until timestamptz CHECK ((lease_until IS NOT NULL) = (state = 'running')),
    correlation_id text,
    customer_id bigint,
    enqueued_by text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at timestamptz,
    busy_since timestamptz,
    finished_at timestamptz CHECK ((finished_at IS NOT NULL) = (state IN ('succeeded', 'dead', 'cancelled'))),
    error_kind text,
    error_message text,
    result jsonb
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);

-- What a claim reads. Finished jobs are not in it, so a ledger of millions claims like an empty one.
CREATE INDEX jobs_due ON jobs (queue, run_at) WHERE state IN ('queued', 'retrying') AND NOT blocked;
-- Law 7, kept by the database itself.
CREATE UNIQUE INDEX jobs_one_at_a_time ON jobs (serialize_by) WHERE state = 'running' AND serialize_by IS NOT NULL;
CREATE INDEX jobs_line ON jobs (serialize_by, run_at)
    WHERE state IN ('queued', 'retrying') AND serialize_by IS NOT NULL;
CREATE INDEX jobs_running ON jobs (queue) WHERE state = 'running';
CREATE INDEX jobs_stopped ON jobs (state, queue) WHERE state IN ('held', 'dead');
CREATE INDEX jobs_of_customer ON jobs (customer_id, id) WHERE customer_id IS NOT NULL;

CREATE FUNCTION job_move_allowed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.state || '>' || NEW.state) NOT IN (
        'queued>running', 'queued>held', 'queued>cancelled',
        'held>queued', 'held>cancelled',
        'retrying>running', 'retrying>held', 'retrying>cancelled',
        'running>succeeded', 'running>retrying', 'running>queued', 'running>held', 'running>dead',
        'dead>queued', 'cancelled>queued'
    ) THEN
        RAISE EXCEPTION 'job % cannot move from % to %', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'check_violation', CONSTRAINT = 'job_moves';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER job_moves BEFORE UPDATE OF state ON jobs FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION job_move_allowed();

-- No foreign key to jobs: the only writers are the fenced moves, which take job_id from the row that
-- they moved, and the NOT NULL of job_id is what refuses a worker that has lost its lease.
CREATE TABLE job_attempts (
    job_id uuid NOT NULL,
    attempt integer NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    worker text NOT NULL,
    outcome text NOT NULL,
    error_kind text,
    error_message text,
    traceback text,
    PRIMARY KEY (job_id, attempt)
);

CREATE TABLE queue_pauses (
    queue text PRIMARY KEY,
    paused_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE operator_actions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    reason text
);
CREATE INDEX operator_actions_subject ON operator_actions (subject);

CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER operator_actions_append_only BEFORE UPDATE OR DELETE ON operator_actions
    FOR EACH ROW EXECUTE FUNCTION append_only();

CREATE TABLE relay_status (
    "only" boolean PRIMARY KEY DEFAULT true CHECK ("only"),
    leader text NOT NULL,
    swept_at timestamptz NOT NULL
);
"""


def upgrade() -> None:
    op.execute(_SCHEMA)
