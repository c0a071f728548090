"""What came from Stripe and GitHub is listed without reading the whole ledger."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute("CREATE INDEX jobs_of_webhooks ON jobs (id) WHERE queue = 'webhooks'")
