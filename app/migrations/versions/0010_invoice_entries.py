"""What is given back of an invoice of Teams, or disputed. Workers of the release before neither read nor write it."""

from alembic import op

revision = "0010"
down_revision = "0009"

_SCHEMA = """
-- Which payment intents paid an invoice: refunds and disputes name these alone.
CREATE TABLE invoice_payments (
    payment_intent text PRIMARY KEY,
    invoice_id text NOT NULL REFERENCES invoices ON DELETE CASCADE
);
CREATE INDEX invoice_payments_of_invoice ON invoice_payments (invoice_id);

ALTER TABLE disputes
    ALTER COLUMN charge_id DROP NOT NULL,
    ADD COLUMN invoice_id text REFERENCES invoices,
    ADD CONSTRAINT disputes_of_check CHECK (num_nonnulls(charge_id, invoice_id) = 1);
CREATE INDEX disputes_of_invoice ON disputes (invoice_id) WHERE invoice_id IS NOT NULL;

CREATE TABLE invoice_entries (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    invoice_id text NOT NULL REFERENCES invoices,
    kind text NOT NULL CHECK (kind IN ('refunded', 'refund_failed', 'dispute_withdrawn', 'dispute_reinstated')),
    amount_cents bigint NOT NULL,
    stripe_id text NOT NULL,
    dispute_id text REFERENCES disputes,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT invoice_entries_once UNIQUE (stripe_id, kind),
    CONSTRAINT invoice_entries_sign_check CHECK (
        CASE WHEN kind IN ('refund_failed', 'dispute_reinstated') THEN amount_cents > 0 ELSE amount_cents < 0 END),
    CONSTRAINT invoice_entries_dispute_check CHECK (
        (kind IN ('dispute_withdrawn', 'dispute_reinstated')) = (dispute_id IS NOT NULL))
);
CREATE INDEX invoice_entries_of_invoice ON invoice_entries (invoice_id, id);
CREATE TRIGGER invoice_entries_append_only BEFORE UPDATE OR DELETE ON invoice_entries
    FOR EACH ROW EXECUTE FUNCTION append_only();
"""


def upgrade() -> None:
    op.execute(_SCHEMA)
