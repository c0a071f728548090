"""A charge that is written off: its intent was cancelled in Stripe, so it can never be paid, and nobody owes it. And a
refund that Stripe refused, which no longer counts as asked for."""

from alembic import op

revision = "0011"
down_revision = "0010"

_SCHEMA = """
ALTER TABLE charges
    DROP CONSTRAINT charges_state_check,
    ADD CONSTRAINT charges_state_check CHECK (state IN
        ('pending', 'declined', 'requires_action', 'succeeded', 'uncollectible', 'written_off'));
ALTER TABLE charge_entries
    DROP CONSTRAINT charge_entries_kind_check,
    ADD CONSTRAINT charge_entries_kind_check CHECK (kind IN ('accepted', 'declined', 'requires_action', 'succeeded',
        'uncollectible', 'written_off', 'refund_asked', 'refunded', 'refund_failed', 'refund_refused',
        'dispute_withdrawn', 'dispute_reinstated'));
"""


def upgrade() -> None:
    op.execute(_SCHEMA)
