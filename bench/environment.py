"""Where the benchmark runs: servers, scratch databases on them, and processes that end with it.

Servers are those of DATABASE_URL and REDIS_URL; else those on this machine's usual ports, if they answer;
else embedded ones. On them the benchmark uses databases of its own and a Redis database that is empty.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis
from sqlalchemy import Engine, make_url

from app.db import make_engine
from app.migrations import migrate
from app.sandbox.embedded import free_port
from app.sandbox.postgres import EmbeddedPostgres
from app.settings import Settings
from bench.report import Report, describe_machine

ROOT = Path(__file__).parent.parent
_LOCAL_POSTGRES = "postgresql://postgres@127.0.0.1:5432/postgres"
_LOCAL_REDIS = "redis://127.0.0.1:6379"
_REDIS_NUMBERS = range(9, 4, -1)

_TABLES = """
CREATE TABLE bench_rows (n bigint NOT NULL, written_at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE bench_starts (n bigint NOT NULL, attempt integer NOT NULL, monotonic_s float8 NOT NULL);
CREATE TABLE bench_mails (email text NOT NULL);
"""

V = TypeVar("V")

WORKER_ENV = {"STRIPE_SECRET_KEY": "sk_test_none"}
"""Settings that a worker checks for at its start and the benchmark's jobs do not use."""


def wait_for(condition: Callable[[], V | None], what: str, timeout_s: float = 120.0, every_s: float = 0.02) -> V:
    """The first true value of `condition`.

    Raises:
        TimeoutError: it did not come true.
    """
    until = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(every_s)


class Process:
    """A process in a group of its own; what it prints goes to a file, as it does in production."""

    def __init__(self, command: Sequence[str], output: Path, env: dict[str, str]) -> None:
        self._output = output
        with output.open("wb") as out:
            self._popen = subprocess.Popen(
                command,
                env=os.environ | env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def check(self) -> None:
        """Raises RuntimeError if it has ended by itself, with the end of what it printed."""
        if self._popen.poll() is not None:
            raise RuntimeError(f"{self._popen.args!r} has ended:\n{self.output[-3000:]}")

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._popen.poll() is None

    @property
    def output(self) -> str:
        """All that it and its children have printed."""
        return self._output.read_text(errors="replace")

    def wait_for_output(self, text: str, times: int = 1) -> None:
        """Wait until it has printed `text` so many times."""

        def printed() -> bool:
            self.check()
            return self.output.count(text) >= times

        wait_for(printed, f"{text.strip()!r} in the output")

    def kill(self) -> None:
        """SIGKILL for it and its children, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()

    def stop(self, grace_s: float = 40.0) -> None:
        """Ask it to end, and end whatever of its group has not."""
        if self._popen.poll() is None:
            self._popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(grace_s)
        self.kill()


@dataclass
class Database:
    """A scratch database at the newest schema, with the benchmark's tables."""

    url: str
    engine: Engine

    def clear(self) -> None:
        """Empty every table."""
        with self.engine.begin() as db:
            tables = db.exec_driver_sql(
                "SELECT string_agg(quote_ident(tablename), ', ') FROM pg_tables"
                " WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
            ).scalar_one()
            db.exec_driver_sql(f"TRUNCATE {tables} RESTART IDENTITY CASCADE")

    def tidy(self) -> None:
        """What autovacuum does in its own time, done now, so that it does not run into a measurement."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
            db.exec_driver_sql("SET statement_timeout = 0")
            db.exec_driver_sql("VACUUM (ANALYZE) jobs, job_keys, job_attempts, bench_rows")
            db.exec_driver_sql("RESET statement_timeout")

    def value(self, query: str, parameters: dict[str, Any] | None = None) -> Any:
        """The first column of the first row."""
        with self.engine.connect() as db:
            return db.exec_driver_sql(query, parameters or {}).scalar()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Every row."""
        with self.engine.connect() as db:
            return [tuple(row) for row in db.exec_driver_sql(query)]

    def column(self, query: str, parameters: dict[str, Any] | None = None) -> list[Any]:
        """The first column of every row."""
        with self.engine.connect() as db:
            return list(db.exec_driver_sql(query, parameters or {}).scalars())


@dataclass(eq=False)
class Environment:
    """Made by `with Environment(report, quick=…, sustained_s=…)`: everything a figure needs, and all of it gone
    afterwards. `sustained_s`: for how long a steady load is kept up."""

    report: Report
    quick: bool
    sustained_s: int
    home: Path = field(init=False)
    database: Database = field(init=False)
    redis: "redis.Redis" = field(init=False)
    machine: dict[str, Any] = field(init=False)

    def __enter__(self) -> Self:
        with ExitStack() as started:
            self._start(started)
            self._started = started.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # an impatient second Ctrl-C would leave half of it behind
        self._started.close()

    def _start(self, started: ExitStack) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="tallyhook-bench-"))
        self.home.chmod(0o755)  # the embedded PostgreSQL runs as another user than root
        started.callback(shutil.rmtree, self.home, ignore_errors=True)
        self._logs = 0
        self._server = self._find_postgres(started)
        redis_url = self._find_redis(started)
        self.redis = redis.Redis.from_url(redis_url)
        started.callback(self.redis.close)
        started.callback(self.redis.flushdb)
        self.database = started.enter_context(self.scratch_database("bench"))
        self._forget_settings(started)
        os.environ |= {
            "TALLYHOOK_ENV": "development",
            "TALLYHOOK_HOME": str(self.home),
            "PROMETHEUS_MULTIPROC_DIR": str(self.home / "metrics"),
            "DATABASE_URL": self.database.url,
            "REDIS_URL": redis_url,
            "SIGNUP_RATE_LIMIT": "100000000/hour",
            "API_RATE_LIMIT": "100000000/hour",
        }
        self.machine = describe_machine(
            self.database.value("SHOW server_version").split()[0], self.redis.info("server")["redis_version"]
        )

    def _forget_settings(self, started: ExitStack) -> None:
        """Whatever this project is set to talk to, in the environment or in `.env`, the benchmark does not."""
        for name in Settings.model_fields:
            os.environ.pop(name.upper(), None)
        os.environ["PYTHONPATH"] = str(ROOT)
        started.callback(os.chdir, Path.cwd())
        os.chdir(self.home)

    def _find_postgres(self, started: ExitStack) -> str:
        if url := os.environ.get("DATABASE_URL"):
            return url
        try:
            psycopg.connect(_LOCAL_POSTGRES, connect_timeout=2).close()
        except psycopg.OperationalError:
            embedded = EmbeddedPostgres(self.home / "postgres")
            started.callback(embedded.close)
            return embedded.url()
        return _LOCAL_POSTGRES

    def _find_redis(self, started: ExitStack) -> str:
        server = os.environ.get("REDIS_URL") or _LOCAL_REDIS
        try:
            redis.Redis.from_url(server, socket_connect_timeout=2).ping()
        except redis.ConnectionError:
            if "REDIS_URL" in os.environ:
                raise
            port = free_port()
            server = f"redis://127.0.0.1:{port}"
            started.enter_context(self.process("-m", "app.sandbox.redis", "--port", str(port)))
            wait_for(lambda: _answers(server), "the embedded Redis", 20)
        for number in _REDIS_NUMBERS:
            url = urlunsplit(urlsplit(server)._replace(path=f"/{number}"))
            with redis.Redis.from_url(url) as client:
                if client.dbsize() == 0:
                    return url
        numbers = f"{_REDIS_NUMBERS[-1]} to {_REDIS_NUMBERS[0]}"
        raise RuntimeError(f"Redis databases {numbers} all hold something: the benchmark empties the one that it uses")

    @contextmanager
    def scratch_database(self, purpose: str) -> Iterator[Database]:
        """A database of our own, migrated; dropped at the end of the block."""
        name = f"tallyhook_{purpose}_{os.getpid()}"
        with psycopg.connect(self._server, autocommit=True) as server:
            server.execute(f'CREATE DATABASE "{name}"')
        url = make_url(self._server).set(database=name).render_as_string(hide_password=False)
        engine = make_engine(url)
        try:
            migrate(engine)
            with engine.begin() as db:
                db.exec_driver_sql(_TABLES)
            yield Database(url, engine)
        finally:
            engine.dispose()
            with psycopg.connect(self._server, autocommit=True) as server:
                server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    @contextmanager
    def process(self, *arguments: str, **env: str) -> Iterator[Process]:
        """This interpreter with `arguments`, and `env` added to the environment; stopped at the end of the block."""
        self._logs += 1
        process = Process([sys.executable, *arguments], self.home / f"process-{self._logs}.log", env)
        try:
            yield process
        finally:
            process.stop()

    @contextmanager
    def relay(self, database: Database | None = None) -> Iterator[Process]:
        """The relay, leading."""
        url = (database or self.database).url
        with self.process("-m", "bench.ledger_relay", "relay", DATABASE_URL=url, **WORKER_ENV) as relay:
            relay.wait_for_output("relay.leads")
            yield relay

    def clear(self) -> None:
        """Empty the scratch database and Redis."""
        self.database.clear()
        self.redis.flushdb()

    def size(self, full: int, quick: int) -> int:
        """How much to do in this run."""
        return quick if self.quick else full


def worker_command(module: str, *, processes: int, threads: int) -> list[str]:
    """Dramatiq's workers on `module`, as the Procfile starts them."""
    return ["-m", "dramatiq", module, "--skip-logging", "--processes", str(processes), "--threads", str(threads)]


def _answers(url: str) -> bool:
    try:
        return bool(redis.Redis.from_url(url).ping())
    except redis.ConnectionError:
        return False
