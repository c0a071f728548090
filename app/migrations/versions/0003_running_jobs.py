"""Running jobs are found by their lease: an index on their state tempted the planner to end a job by reading
every running one, those of the past with them, in place of its primary key."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("DROP INDEX jobs_running")
    op.execute("CREATE INDEX jobs_leased ON jobs (queue) WHERE lease_owner IS NOT NULL")
