"""The schema's history, and how to bring a database to its newest version.

A migration must leave the release before it able to work (failures.md 45): columns are added with
defaults and dropped one release after their last reader.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

_LOCK = 7_205_759_403  # any number, the same for ever: one migrator at a time


class NewerDatabase(Exception):
    """The database is at a revision that this release does not know: it was migrated by a newer one."""

    def __init__(self, revision: str) -> None:
        self.revision = revision
        super().__init__(f"the database is at revision {revision}, unknown to this release: install the newer one")


def _config(db: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = db
    return config


def newest() -> str:
    """The revision that this release's code needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def current(db: Connection) -> str | None:
    """The revision that the database is at; None for an empty one."""
    return MigrationContext.configure(db).get_current_revision()


def migrate(engine: Engine) -> tuple[str | None, str]:
    """Bring the database to the newest revision; returns the revision before and after.

    Safe to call from several processes at once: the second waits and finds nothing to do.

    Raises:
        NewerDatabase: a newer release has migrated it.
    """
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    with engine.begin() as db:
        db.execute(text("SET LOCAL lock_timeout = '60s'"))
        db.execute(text("SET LOCAL statement_timeout = 0"))
        db.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        before = current(db)
        if before is not None and before not in known:
            raise NewerDatabase(before)
        command.upgrade(_config(db), "head")
        return before, newest()
