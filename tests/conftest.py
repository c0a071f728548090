"""One database a test process, built by the real migrations; emptied before each test.

With DATABASE_URL or REDIS_URL set, scratch databases on those servers are used; otherwise PostgreSQL and
Redis are embedded. The environment is prepared before anything of the application is imported.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import psycopg
import pytest
import redis

ROOT = Path(__file__).parent.parent
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
_CLEANUP: list[Callable[[], object]] = []


def wait_until(condition: Callable[[], object], timeout_s: float = 30.0, what: str = "the condition") -> object:
    """The first true value of `condition`, looked at every 10 ms; fails the test after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {timeout_s} s")
        time.sleep(0.01)


def free_port() -> int:
    """A TCP port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_CLOSED: list[socket.socket] = []


def closed_port() -> int:
    """A TCP port on loopback that refuses, and that nobody else can take while the tests run."""
    kept = socket.socket()
    kept.bind(("127.0.0.1", 0))
    _CLOSED.append(kept)
    return int(kept.getsockname()[1])


def cut_all_sessions() -> None:
    """As a restart of PostgreSQL does to everybody, this process included."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as db:
        db.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )


def _scratch_postgres(home: Path) -> str:
    server = os.environ.get("DATABASE_URL")
    if server is None:
        from app.sandbox.postgres import EmbeddedPostgres

        embedded = EmbeddedPostgres(home / "postgres")
        _CLEANUP.append(embedded.close)
        return embedded.url()
    name = f"tallyhook_test_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as db:
        db.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        db.execute(f'CREATE DATABASE "{name}"')

    def drop() -> None:
        with psycopg.connect(server, autocommit=True) as db:
            db.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    _CLEANUP.append(drop)
    parts = psycopg.conninfo.conninfo_to_dict(server)
    user = parts.get("user") or "postgres"
    password = f":{parts['password']}" if parts.get("password") else ""
    return f"postgresql://{user}{password}@{parts.get('host', '127.0.0.1')}:{parts.get('port', 5432)}/{name}"


def _scratch_redis() -> str:
    server = os.environ.get("REDIS_URL")
    if server is not None:
        number = 10 + int(_WORKER.removeprefix("gw"))
        return f"{server.rstrip('/').rsplit('/', 1)[0] if server.count('/') > 2 else server}/{number % 16}"
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "app.sandbox.redis", "--port", str(port)], cwd=ROOT)
    _CLEANUP.append(process.wait)
    _CLEANUP.append(process.terminate)

    def answers() -> bool:
        assert process.poll() is None, "the embedded Redis has ended"  # another one may answer at its port
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(answers, what="the embedded Redis")
    return f"redis://127.0.0.1:{port}/0"


def pytest_configure(config: pytest.Config) -> None:
    assert "app.settings" not in sys.modules, "a conftest imports the application before its scratch database is there"
    if hasattr(config, "workerinput") or not getattr(config.option, "numprocesses", None):
        home = Path(tempfile.mkdtemp(prefix="tallyhook-test-"))
        home.chmod(0o755)  # the embedded PostgreSQL runs as another user than root
        _CLEANUP.append(lambda: shutil.rmtree(home, ignore_errors=True))
        os.environ |= {
            "TALLYHOOK_ENV": "development",
            "TALLYHOOK_HOME": str(home),
            "STRIPE_SECRET_KEY": "sk_test_tallyhook",
            "STRIPE_WEBHOOK_SECRETS": "whsec_tallyhooktests",
            "GITHUB_WEBHOOK_SECRETS": "githubtests",
            "SIGNUP_RATE_LIMIT": "100000/hour",
            "API_RATE_LIMIT": "100000/minute",
        }
        os.environ["DATABASE_URL"] = _scratch_postgres(home)
        os.environ["REDIS_URL"] = _scratch_redis()
        from hypothesis import HealthCheck, settings

        from app.db import get_engine
        from app.migrations import migrate

        # How fast this machine is at a moment is no property of the code.
        settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
        settings.load_profile("tests")
        migrate(get_engine())


def pytest_unconfigure() -> None:
    from app.db import get_engine

    if "DATABASE_URL" in os.environ and get_engine.cache_info().currsize:
        get_engine().dispose()
    while _CLEANUP:
        _CLEANUP.pop()()


@pytest.fixture(autouse=True)
def clean_slate() -> None:
    """Every test begins with an empty database and an empty Redis."""
    from app.db import get_engine, transaction

    if get_engine().pool.checkedin() > 8:
        get_engine().dispose()  # a pool that a test filled: the suite's processes may share a server's connections
    with transaction() as db:
        database = db.exec_driver_sql("SELECT current_database()").scalar_one()
        assert database in os.environ["DATABASE_URL"], f"{database} is not the scratch database of this run"
        tables = db.exec_driver_sql(
            "SELECT quote_ident(tablename) FROM pg_tables"
            " WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        ).scalars()
        # Looking is cheap, emptying is not: most tests leave most tables empty.
        have_rows = " UNION ALL ".join(f"SELECT '{table}' WHERE EXISTS (TABLE {table})" for table in tables)
        if used := db.exec_driver_sql(have_rows).scalars().all():
            # By DELETE, without triggers: a TRUNCATE of as little as this takes twenty times as long.
            deletes = "; ".join(f"DELETE FROM {table}" for table in used)
            db.exec_driver_sql(f"SET LOCAL session_replication_role = replica; {deletes}")
            db.exec_driver_sql("SELECT setval(seqrelid::regclass, 1, false) FROM pg_sequence")
    _patient_redis().flushdb()


@cache
def _patient_redis() -> redis.Redis:
    """The application's own client gives up after half a second, which a slow machine may take."""
    from app.ledger.bell import make_redis

    return make_redis(10)


@pytest.fixture
def real_backoff() -> None:
    """The test is about how long what failed waits."""


@pytest.fixture(autouse=True)
def retries_wait_for_the_test(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed in this process is tried again when the test lets time pass; on a slow machine it would else be tried
    again before the test has looked. Processes that a test starts have the backoff of the real ones."""
    from app.ledger.errors import BACKOFF

    if "real_backoff" in request.fixturenames:
        return
    for kind, backoff in BACKOFF.items():
        monkeypatch.setitem(BACKOFF, kind, replace(backoff, base=30))
