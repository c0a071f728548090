"""The engine, and the one way to open a transaction.

Statements run on a SQLAlchemy Core `Connection`, named `db` everywhere: no identity map and no lazy
flush, so that what is sent, and when, stands in the code (docs/decisions.md has the figures).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import orjson
from psycopg.types.json import set_json_dumps, set_json_loads
from sqlalchemy import Connection, Engine, MetaData, create_engine

from app.settings import SettingsError, get_settings

metadata = MetaData()

set_json_dumps(orjson.dumps)
set_json_loads(orjson.loads)

_SESSION = {
    "timezone": "UTC",
    # Seconds a caller may hang before it is told no. A sender then gets 503; a job is retried.
    "statement_timeout": "15s",
    "lock_timeout": "5s",
    # A frozen process must not keep a row for longer than its lease lasts.
    "idle_in_transaction_session_timeout": "8s",
}


def make_engine(url: str, *, pool_size: int = 20, **options: Any) -> Engine:
    """An engine on `url` (`postgresql://…`) whose sessions are UTC and never hang for ever.

    The pool gives up after two seconds (`sqlalchemy.exc.TimeoutError`), so that a sender hears 503
    while it can still retry.
    """
    return create_engine(
        url.replace("postgresql://", "postgresql+psycopg://", 1),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=2,
        pool_pre_ping=True,  # after a restart of PostgreSQL no sender is what finds the dead sessions
        hide_parameters=True,  # an error must not quote what may be a secret
        connect_args={
            "connect_timeout": 3,
            "keepalives_idle": 10,
            "tcp_user_timeout": 10_000,
            "options": " ".join(f"-c {name}={value}" for name, value in _SESSION.items()),
        },
        **options,
    )


def get_database_url() -> str:
    """DATABASE_URL.

    Raises:
        SettingsError: it is not set.
    """
    url = get_settings().database_url
    if url is None:
        raise SettingsError(["DATABASE_URL is not set and `tallyhook up` is not running here"])
    return url


@cache
def get_engine() -> Engine:
    """The engine of this process on DATABASE_URL.

    Raises:
        SettingsError: DATABASE_URL is not set.
    """
    return make_engine(get_database_url())


def after_commit(db: Connection, call: Callable[[], object]) -> None:
    """Have `call` run once the transaction that `db` is in has committed; never if it does not."""
    db.info.setdefault("after_commit", []).append(call)


@contextmanager
def transaction(db: Connection | None = None) -> Iterator[Connection]:
    """A transaction that commits when the block ends, then runs what `after_commit` was given.

    On `db` if given (which must not be in one), else on a connection of the pool.
    """
    if db is None:
        with get_engine().connect() as fresh, transaction(fresh):
            yield fresh
        return
    db.info.pop("after_commit", None)
    with db.begin():
        yield db
    for call in db.info.pop("after_commit", ()):
        call()
