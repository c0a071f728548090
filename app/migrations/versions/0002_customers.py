"""Signups, customers, their addresses and API keys, and the frozen calls to outside services."""

from alembic import op

revision = "0002"
down_revision = "0001"

_SCHEMA = """
CREATE TABLE customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email text NOT NULL,
    name text NOT NULL,
    plan text NOT NULL DEFAULT 'trial' CHECK (plan IN ('trial', 'payg', 'teams')),
    wanted_plan text NOT NULL DEFAULT 'trial' CHECK (wanted_plan IN ('trial', 'payg', 'teams')),
    source text NOT NULL CHECK (source IN ('direct', 'gh_marketplace', 'early_access')),
    subscription_status text NOT NULL DEFAULT 'trial',
    stripe_customer_id text UNIQUE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    welcomed_at timestamptz
);

-- Every address that a customer has or had, folded: an address is one customer for ever.
CREATE TABLE customer_addresses (
    address text PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE signups (
    id uuid PRIMARY KEY,
    email text NOT NULL,
    name text NOT NULL,
    plan text NOT NULL CHECK (plan IN ('trial', 'payg', 'teams')),
    source text NOT NULL CHECK (source IN ('direct', 'gh_marketplace', 'early_access')),
    status text NOT NULL DEFAULT 'queued'
        CHECK (status IN ('queued', 'awaiting_approval', 'provisioning', 'provisioned', 'rejected')),
    idempotency_key text UNIQUE,
    customer_id bigint REFERENCES customers,
    approved_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX signups_awaiting ON signups (id) WHERE status = 'awaiting_approval';

CREATE TABLE api_keys (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers,
    hash text NOT NULL UNIQUE CHECK (hash ~ '^[0-9a-f]{64}$'),
    first boolean NOT NULL,
    sealed bytea,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    revoked_at timestamptz
);
-- Provisioning issues one key a customer, however often its job runs.
CREATE UNIQUE INDEX api_keys_one_first ON api_keys (customer_id) WHERE first;
CREATE INDEX api_keys_of_customer ON api_keys (customer_id);

-- Usage is the sum of its entries; a correction is a new entry (law 11).
CREATE TABLE usage_entries (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers,
    period_start timestamptz NOT NULL,
    fixes integer NOT NULL CHECK (fixes <> 0),
    reason text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX usage_entries_of_period ON usage_entries (customer_id, period_start);
CREATE TRIGGER usage_entries_append_only BEFORE UPDATE OR DELETE ON usage_entries
    FOR EACH ROW EXECUTE FUNCTION append_only();

CREATE TABLE external_calls (
    operation text NOT NULL,
    number integer NOT NULL DEFAULT 1,
    parameters jsonb NOT NULL,
    first_sent_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (operation, number)
);
CREATE FUNCTION frozen() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.parameters IS DISTINCT FROM OLD.parameters THEN
        RAISE EXCEPTION 'the parameters of % are frozen', OLD.operation USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER external_calls_frozen BEFORE UPDATE ON external_calls FOR EACH ROW EXECUTE FUNCTION frozen();
"""


def upgrade() -> None:
    op.execute(_SCHEMA)
