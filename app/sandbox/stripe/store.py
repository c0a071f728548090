"""Where the objects are: one SQLite database, in memory or in a file that survives SIGKILL.

Every request is one transaction, its idempotent result included, so a killed sandbox has either done a
request and remembers it, or has done nothing. The file is written without fsync: the operating system
keeps what a killed process wrote; only a power cut could lose it, and no sandbox has to survive that.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from app.sandbox.stripe.objects import Object
from app.sandbox.stripe.params import Range

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    livemode INTEGER NOT NULL,
    object TEXT NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0,
    entered REAL NOT NULL,
    body TEXT NOT NULL,
    created INTEGER GENERATED ALWAYS AS (json_extract(body, '$.created')),
    customer TEXT GENERATED ALWAYS AS (json_extract(body, '$.customer')),
    email TEXT GENERATED ALWAYS AS (json_extract(body, '$.email')),
    due INTEGER GENERATED ALWAYS AS (json_extract(body, '$._due')),
    clock TEXT GENERATED ALWAYS AS (json_extract(body, '$._clock'))
);
CREATE UNIQUE INDEX IF NOT EXISTS objects_id ON objects (id);
CREATE INDEX IF NOT EXISTS objects_list ON objects (object, livemode, seq);
CREATE INDEX IF NOT EXISTS objects_customer ON objects (customer, object, seq) WHERE customer IS NOT NULL;
CREATE INDEX IF NOT EXISTS objects_email ON objects (email, object, seq) WHERE email IS NOT NULL;
CREATE INDEX IF NOT EXISTS objects_due ON objects (clock, due) WHERE due IS NOT NULL;

CREATE TABLE IF NOT EXISTS idempotency (
    livemode INTEGER NOT NULL,
    key TEXT NOT NULL,
    first_used REAL NOT NULL,
    request TEXT NOT NULL,
    status INTEGER NOT NULL,
    headers TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (livemode, key)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    event TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    type TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'held', 'sending', 'delivered', 'failed', 'dropped')),
    copies INTEGER NOT NULL DEFAULT 1,
    attempts INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL,
    last_status INTEGER
);
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (due) WHERE state = 'waiting';

CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

# Columns of their own, for an index; every other field is looked up inside the JSON.
_COLUMNS = {"created", "customer", "email"}


@dataclass(frozen=True)
class Glob:
    """A filter that takes `*` for any characters, such as `invoice.*`."""

    pattern: str


@dataclass(frozen=True)
class Null:
    """A filter that takes null alone."""


@dataclass(frozen=True)
class NotNull:
    """A filter that takes anything but null."""


@dataclass(frozen=True)
class MoreThan:
    """A filter that takes every greater number."""

    bound: int


@dataclass(frozen=True)
class Page:
    """Which part of a list: at most `limit`, newest first, older than `after` or newer than `before`."""

    limit: int | None = None
    after: str | None = None
    before: str | None = None
    created: Range | None = None
    entered_by: float | None = None


class Store:
    """Objects by id and by kind. All of it behind one lock, as SQLite would have it anyway."""

    def __init__(self, path: str = ":memory:") -> None:
        self._lock = threading.RLock()
        self._depth = 0
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.executescript(_SCHEMA)
        self._db.execute("UPDATE deliveries SET state = 'waiting' WHERE state = 'sending'")

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; within another one, a savepoint of it."""
        with self._lock:
            level = self._depth
            self._db.execute(f"SAVEPOINT level_{level}")
            self._depth += 1
            try:
                yield
            except BaseException:
                self._db.execute(f"ROLLBACK TO level_{level}")
                raise
            finally:
                self._depth -= 1
                self._db.execute(f"RELEASE level_{level}")

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def insert(self, obj: Object, livemode: bool, entered: float) -> None:
        self.execute(
            "INSERT INTO objects (id, livemode, object, entered, body) VALUES (?, ?, ?, ?, ?)",
            (obj["id"], livemode, obj["object"], entered, orjson.dumps(obj).decode()),
        )

    def update(self, obj: Object) -> None:
        """Writes an object over what it was; one with `deleted` leaves the lists and can still be read."""
        self.execute(
            "UPDATE objects SET body = ?, deleted = ? WHERE id = ?",
            (orjson.dumps(obj).decode(), obj.get("deleted", False), obj["id"]),
        )

    def delete(self, object_id: str) -> None:
        self.execute("DELETE FROM objects WHERE id = ?", (object_id,))

    def get(self, object_id: str) -> tuple[Object, bool] | None:
        """The object and its mode, or None."""
        rows = self.execute("SELECT body, livemode FROM objects WHERE id = ?", (object_id,))
        return (orjson.loads(rows[0][0]), bool(rows[0][1])) if rows else None

    def find(self, kind: str, livemode: bool, filters: dict[str, Any], page: Page) -> list[Object]:
        """Objects of a kind, newest first. A filter's value is compared for equality, a list for any of
        its members, and one of the classes above as it says; a dotted name looks inside."""
        where, values = _where(kind, livemode, filters, page)
        order = "ASC" if page.before else "DESC"
        limit = -1 if page.limit is None else page.limit
        sql = f"SELECT body FROM objects WHERE {where} ORDER BY seq {order} LIMIT ?"  # noqa: S608 - of names in this package
        found = [orjson.loads(row[0]) for row in self.execute(sql, [*values, limit])]
        return found[::-1] if page.before else found

    def count(self, kind: str, livemode: bool, filters: dict[str, Any]) -> int:
        """How many objects `find` would find."""
        where, values = _where(kind, livemode, filters, Page())
        rows = self.execute(f"SELECT count(*) FROM objects WHERE {where}", values)  # noqa: S608 - as above
        return int(rows[0][0])

    def next_due(self, clock: str | None, until: int) -> tuple[str, int] | None:
        """The object that is due first by `until` on a test clock, or on the sandbox's own (None)."""
        rows = self.execute(
            "SELECT id, due FROM objects WHERE due <= ? AND clock IS ? ORDER BY due, seq LIMIT 1",
            (until, clock),
        )
        return (rows[0][0], rows[0][1]) if rows else None

    def state(self, name: str) -> str | None:
        rows = self.execute("SELECT value FROM state WHERE name = ?", (name,))
        return rows[0][0] if rows else None

    def set_state(self, name: str, value: str) -> None:
        self.execute("INSERT OR REPLACE INTO state (name, value) VALUES (?, ?)", (name, value))

    def clear(self) -> None:
        with self.transaction():
            for table in ("objects", "idempotency", "deliveries", "state"):
                self.execute(f"DELETE FROM {table}")  # noqa: S608 - the names stand in the line above


def _where(kind: str, livemode: bool, filters: dict[str, Any], page: Page) -> tuple[str, list[Any]]:
    clauses = ["object = ?", "livemode = ?", "deleted = 0"]
    values: list[Any] = [kind, livemode]
    for name, value in filters.items():
        column = name if name in _COLUMNS else "json_extract(body, '$.' || ?)"
        values += [] if name in _COLUMNS else [name]
        operator, operand = _comparison(value)
        clauses.append(f"{column} {operator}")
        values.append(operand)
    for clause, bound in _bounds(page):
        clauses.append(clause)
        values.append(bound)
    return " AND ".join(clauses), values


def _comparison(value: Any) -> tuple[str, Any]:
    match value:
        case list():
            return "IN (SELECT value FROM json_each(?))", orjson.dumps(value).decode()
        case Null():
            return "IS ?", None
        case NotNull():
            return "IS NOT ?", None
        case MoreThan():
            return "> ?", value.bound
        case Glob():
            return "GLOB ?", value.pattern
        case _:
            return "= ?", value  # unlike IS, it lets a partial index serve


def _bounds(page: Page) -> Iterator[tuple[str, Any]]:
    if page.created:
        for sign, bound in (("gt", ">"), ("gte", ">="), ("lt", "<"), ("lte", "<=")):
            if (value := getattr(page.created, sign)) is not None:
                yield f"created {bound} ?", value
    if page.after:
        yield "seq < (SELECT seq FROM objects WHERE id = ?)", page.after
    if page.before:
        yield "seq > (SELECT seq FROM objects WHERE id = ?)", page.before
    if page.entered_by is not None:
        yield "entered <= ?", page.entered_by
