"""When a phase result that was known came again. Workers of the release before neither read nor write it."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.execute("ALTER TABLE phase_results ADD COLUMN last_received_at timestamptz")
