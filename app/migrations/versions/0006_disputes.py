"""Disputes and what they move, and cards that Stripe has shown us and nobody has given us yet."""

from alembic import op

revision = "0006"
down_revision = "0005"

_SCHEMA = """
-- As Stripe last showed them. `status` is Stripe's word, whichever words there will be.
CREATE TABLE disputes (
    id text PRIMARY KEY,
    charge_id bigint NOT NULL REFERENCES charges,
    status text NOT NULL,
    amount_cents bigint NOT NULL CHECK (amount_cents >= 0),
    reason text,
    opened_at timestamptz NOT NULL,
    closed_at timestamptz
);
CREATE INDEX disputes_of_charge ON disputes (charge_id);

-- What a dispute took from us is negative, what it gave back positive: an entry for each movement of Stripe's balance.
ALTER TABLE charge_entries
    ADD COLUMN dispute_id text REFERENCES disputes,
    DROP CONSTRAINT charge_entries_kind_check,
    DROP CONSTRAINT charge_entries_check1,
    ADD CONSTRAINT charge_entries_kind_check CHECK (kind IN ('accepted', 'declined', 'requires_action', 'succeeded',
        'uncollectible', 'refund_asked', 'refunded', 'refund_failed', 'dispute_withdrawn', 'dispute_reinstated')),
    ADD CONSTRAINT charge_entries_sign_check CHECK (CASE
        WHEN kind IN ('succeeded', 'refund_failed', 'dispute_reinstated') THEN amount_cents > 0
        WHEN kind IN ('refunded', 'dispute_withdrawn') THEN amount_cents < 0 ELSE amount_cents = 0 END),
    ADD CONSTRAINT charge_entries_dispute_check CHECK (
        (kind IN ('dispute_withdrawn', 'dispute_reinstated')) = (dispute_id IS NOT NULL));
CREATE UNIQUE INDEX charge_entries_dispute_once ON charge_entries (stripe_id) WHERE dispute_id IS NOT NULL;

-- `adopted`: what follows from a card's arrival is done. Those that we had came to us by their customers.
ALTER TABLE payment_methods ADD COLUMN adopted boolean NOT NULL DEFAULT true;
"""


def upgrade() -> None:
    op.execute(_SCHEMA)
