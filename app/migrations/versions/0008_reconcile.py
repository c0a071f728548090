"""How far what Stripe has was compared with what is here."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE reconcile_cursors (
            name text PRIMARY KEY,
            at timestamptz NOT NULL
        )
        """
    )
