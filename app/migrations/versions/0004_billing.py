"""Phase results, fixes counted once, usage, charges, payment methods, subscriptions and invoices."""

from alembic import op

revision = "0004"
down_revision = "0003"

_SCHEMA = """
CREATE TABLE phase_results (
    id uuid PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers,
    phase text NOT NULL CHECK (phase IN ('scan', 'validation', 'mitigation')),
    status text NOT NULL,
    repo text NOT NULL,
    issue_number bigint,
    commit_sha text NOT NULL,
    fix_id text,
    data jsonb NOT NULL,
    digest text NOT NULL,
    received_at timestamptz NOT NULL,
    UNIQUE (customer_id, digest)
);
CREATE INDEX phase_results_of_commit ON phase_results (customer_id, lower(repo), lower(commit_sha), received_at);

ALTER TABLE customers
    ADD COLUMN default_payment_method text,
    ADD COLUMN bonus_at timestamptz,
    ADD COLUMN stripe_deleted_at timestamptz;

-- Every plan that a customer had, and from when: a fix is billed under the plan of the moment that it was accepted in.
CREATE TABLE plan_changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers,
    plan text NOT NULL CHECK (plan IN ('trial', 'payg', 'teams')),
    effective_at timestamptz NOT NULL,
    reason text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX plan_changes_of_customer ON plan_changes (customer_id, effective_at);

CREATE TABLE subscriptions (
    id text PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers,
    status text NOT NULL,
    cancel_at_period_end boolean NOT NULL DEFAULT false,
    plan_after text NOT NULL DEFAULT 'trial' CHECK (plan_after IN ('trial', 'payg')),
    past_due_since timestamptz,
    created_at timestamptz NOT NULL,
    ended_at timestamptz
);
-- One that is not over, at most: nobody pays for Teams twice.
CREATE UNIQUE INDEX subscriptions_one_open ON subscriptions (customer_id) WHERE ended_at IS NULL;

-- The billing periods of Teams, and what of their overage Stripe has been told.
CREATE TABLE billing_periods (
    subscription_id text NOT NULL REFERENCES subscriptions,
    customer_id bigint NOT NULL REFERENCES customers,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL CHECK (ends_at > starts_at),
    PRIMARY KEY (subscription_id, starts_at)
);
CREATE INDEX billing_periods_of_customer ON billing_periods (customer_id, starts_at);

CREATE TABLE fixes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers,
    phase_result_id uuid NOT NULL UNIQUE REFERENCES phase_results,
    ref text NOT NULL UNIQUE,
    plan text NOT NULL CHECK (plan IN ('trial', 'payg', 'teams')),
    period_start timestamptz NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('included', 'over_limit', 'charge', 'overage')),
    amount_cents bigint NOT NULL CHECK (amount_cents >= 0),
    accepted_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((amount_cents > 0) <= (outcome IN ('charge', 'overage')))
);
CREATE INDEX fixes_of_customer ON fixes (customer_id, accepted_at);
CREATE TRIGGER fixes_append_only BEFORE UPDATE OR DELETE ON fixes FOR EACH ROW EXECUTE FUNCTION append_only();

-- What makes a fix that fix: the sender's id for it, and the place that it was made at.
CREATE TABLE fix_identities (
    customer_id bigint NOT NULL REFERENCES customers,
    identity text NOT NULL,
    fix_id bigint NOT NULL REFERENCES fixes,
    PRIMARY KEY (customer_id, identity)
);

ALTER TABLE usage_entries
    ADD COLUMN plan text NOT NULL DEFAULT 'trial' CHECK (plan IN ('trial', 'payg', 'teams')),
    ADD COLUMN fix_id bigint REFERENCES fixes;
CREATE UNIQUE INDEX usage_entries_once ON usage_entries (fix_id) WHERE fixes > 0;

CREATE TABLE charges (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fix_id bigint NOT NULL UNIQUE REFERENCES fixes,
    customer_id bigint NOT NULL REFERENCES customers,
    amount_cents bigint NOT NULL CHECK (amount_cents > 0),
    currency text NOT NULL DEFAULT 'usd',
    state text NOT NULL DEFAULT 'pending' CHECK (state IN
        ('pending', 'declined', 'requires_action', 'succeeded', 'uncollectible')),
    payment_intent text UNIQUE,
    confirms integer NOT NULL DEFAULT 0,
    refused_method text,
    decline_code text,
    failed_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    succeeded_at timestamptz
);
CREATE INDEX charges_open ON charges (customer_id) WHERE state <> 'succeeded';
CREATE INDEX charges_of_customer ON charges (customer_id, id);

-- Every state change of money (law 11). What was taken is positive, what was given back negative, the rest 0.
CREATE TABLE charge_entries (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    charge_id bigint NOT NULL REFERENCES charges,
    kind text NOT NULL CHECK (kind IN ('accepted', 'declined', 'requires_action', 'succeeded', 'uncollectible',
        'refund_asked', 'refunded', 'refund_failed')),
    amount_cents bigint NOT NULL DEFAULT 0,
    refund_number integer,
    asked_cents bigint CHECK (asked_cents > 0),
    stripe_id text,
    reason text,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((kind = 'refund_asked') = (asked_cents IS NOT NULL)),
    CHECK (CASE WHEN kind IN ('succeeded', 'refund_failed') THEN amount_cents > 0
                WHEN kind = 'refunded' THEN amount_cents < 0 ELSE amount_cents = 0 END)
);
CREATE INDEX charge_entries_of_charge ON charge_entries (charge_id, id);
CREATE UNIQUE INDEX charge_entries_paid_once ON charge_entries (charge_id) WHERE kind = 'succeeded';
CREATE UNIQUE INDEX charge_entries_asked_once ON charge_entries (charge_id, refund_number)
    WHERE kind = 'refund_asked';
CREATE UNIQUE INDEX charge_entries_refund_once ON charge_entries (stripe_id, kind)
    WHERE kind IN ('refunded', 'refund_failed');
CREATE TRIGGER charge_entries_append_only BEFORE UPDATE OR DELETE ON charge_entries
    FOR EACH ROW EXECUTE FUNCTION append_only();

-- What Stripe has been told of a period's overage: each row is the whole of it, as of then.
CREATE TABLE overage_entries (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers,
    period_start timestamptz NOT NULL,
    invoice_item text NOT NULL,
    fixes bigint NOT NULL CHECK (fixes >= 0),
    amount_cents bigint NOT NULL CHECK (amount_cents >= 0),
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX overage_entries_of_period ON overage_entries (customer_id, period_start, id);
CREATE TRIGGER overage_entries_append_only BEFORE UPDATE OR DELETE ON overage_entries
    FOR EACH ROW EXECUTE FUNCTION append_only();

CREATE TABLE payment_methods (
    id text PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers,
    brand text NOT NULL,
    last4 text NOT NULL,
    exp_month integer NOT NULL,
    exp_year integer NOT NULL,
    attached_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    detached_at timestamptz
);
CREATE INDEX payment_methods_of_customer ON payment_methods (customer_id) WHERE detached_at IS NULL;

CREATE TABLE invoices (
    id text PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers,
    number text,
    status text NOT NULL,
    currency text NOT NULL,
    total_cents bigint NOT NULL,
    paid_cents bigint NOT NULL,
    hosted_url text,
    created_at timestamptz NOT NULL
);
CREATE INDEX invoices_of_customer ON invoices (customer_id, created_at);
"""


def upgrade() -> None:
    op.execute(_SCHEMA)
