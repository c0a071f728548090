"""What GitHub says of installations and purchases on its Marketplace, and the plans that are paid there."""

from alembic import op

revision = "0007"
down_revision = "0006"

_SCHEMA = """
CREATE TABLE marketplace_accounts (
    github_id bigint PRIMARY KEY,
    login text NOT NULL,
    type text NOT NULL,
    signup_id uuid REFERENCES signups,
    customer_id bigint REFERENCES customers,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX marketplace_accounts_of_customer ON marketplace_accounts (customer_id);

-- Kept for good: what an account has is read from all that was said of it, not from what came last.
CREATE TABLE marketplace_purchases (
    delivery text PRIMARY KEY,
    github_id bigint NOT NULL REFERENCES marketplace_accounts,
    action text NOT NULL CHECK (action IN ('purchased', 'changed', 'cancelled', 'pending_change',
        'pending_change_cancelled')),
    effective_at timestamptz NOT NULL,
    plan text NOT NULL CHECK (plan IN ('trial', 'payg', 'teams')),
    plan_before text CHECK (plan_before IN ('trial', 'payg', 'teams')),
    made_at timestamptz,
    received_at timestamptz NOT NULL,
    months_from timestamptz NOT NULL
);
CREATE INDEX marketplace_purchases_of_account ON marketplace_purchases (github_id);

CREATE TABLE github_installations (
    id bigint PRIMARY KEY,
    github_id bigint NOT NULL,
    login text NOT NULL,
    state text NOT NULL CHECK (state IN ('active', 'suspended', 'deleted')),
    changed_at timestamptz NOT NULL
);

-- Of a plan that is paid on the Marketplace: a moment at which a month of it begins. NULL: we bill it.
ALTER TABLE plan_changes ADD COLUMN marketplace_from timestamptz;
"""


def upgrade() -> None:
    op.execute(_SCHEMA)
