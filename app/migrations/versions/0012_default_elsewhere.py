"""A default in Stripe that is no card, once it was seen. Workers of the release before neither read nor write it."""

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.execute("ALTER TABLE customers ADD COLUMN default_elsewhere text")
