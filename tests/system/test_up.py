"""`tallyhook up`: one a folder; what fails is said; nothing outlives it, and a killed one is in nobody's way."""

import socket
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from dotenv import dotenv_values

from app.sandbox.postgres import EmbeddedPostgres
from tests.conftest import free_port, wait_until
from tests.processes import Process, Processes

NEEDED = (
    *("DATABASE_URL", "REDIS_URL", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRETS"),
    *("MAIL_URL", "BASE_URL", "SECRET_KEYS", "OPS_TOKEN"),
)
UNSET = dict.fromkeys((*NEEDED, "STRIPE_API_BASE"), "")
Start = Callable[..., Process]


@pytest.fixture
def home() -> Iterator[Path]:
    """A TALLYHOOK_HOME of the test's own. A PostgreSQL that is left running on it is stopped."""
    with tempfile.TemporaryDirectory(prefix="tallyhook-up-") as folder:
        Path(folder).chmod(
            0o755
        )  # the embedded PostgreSQL runs as another user than root, whom pytest's folders shut out
        home = Path(folder) / "home"
        yield home
        if (home / "postgres" / "postmaster.pid").exists():
            EmbeddedPostgres(home / "postgres").close()


@pytest.fixture
def up(processes: Processes, home: Path) -> Start:
    """Start `tallyhook up` there, with nothing configured but what is given."""

    def start(*arguments: str, **settings: str) -> Process:
        command = [sys.executable, "-m", "app.ops.cli", "up", "--workers", "1", *arguments]
        return processes.start(*command, **{"TALLYHOOK_HOME": str(home), **UNSET, **settings})

    return start


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def listens(address: str | int | None) -> bool:
    port = urlsplit(address).port if isinstance(address, str) else address
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port or 0)) == 0


def end(process: Process) -> int:
    process.terminate()
    return process.wait(60)


# a second one


@pytest.mark.slow
def test_a_second_one_in_the_folder_says_so_and_leaves_the_first_alone(
    up: Start, home: Path, empty_database: str
) -> None:
    port = free_port()
    first = up("--port", str(port), DATABASE_URL=empty_database)
    first.wait_for_output("ready http", 90)
    addresses = (home / "embedded.env").read_text()

    for second in (up("--port", str(free_port())), up("--port", str(port))):
        assert second.wait() == 1
        assert "`tallyhook up` runs here already" in second.output
        assert str(first.pid) in second.output
        assert "Traceback" not in second.output

    assert (home / "embedded.env").read_text() == addresses
    assert answers(port)
    assert end(first) == 0
    assert not (home / "embedded.env").exists()


# what fails


def test_a_taken_port_is_what_it_says(up: Start) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        failed = up("--port", str(port))
        assert failed.wait() == 2
    assert failed.output.strip() == f"port {port} is taken: choose another with --port"


def test_production_with_nothing_configured_is_told_all_that_it_lacks(up: Start) -> None:
    failed = up(TALLYHOOK_ENV="production")
    assert failed.wait() == 2
    lines = failed.output.splitlines()
    assert sorted(line.split(" is not set: production needs ")[0] for line in lines) == sorted(NEEDED)


# one that was killed


@pytest.mark.slow
def test_all_ends_with_one_that_is_killed_and_the_next_one_begins(up: Start, home: Path) -> None:
    port = free_port()
    killed = up("--port", str(port))
    killed.wait_for_output("ready http", 90)
    parts = dotenv_values(home / "embedded.env")
    database = parts["DATABASE_URL"] or ""
    with psycopg.connect(database, autocommit=True) as db:
        db.execute("CREATE TABLE kept AS SELECT 1")
    killed.kill()

    wait_until(lambda: not listens(port), what="the end of the web process")
    wait_until(lambda: not listens(parts["REDIS_URL"]), what="the end of Redis")
    wait_until(lambda: not listens(parts["STRIPE_API_BASE"]), what="the end of the Stripe sandbox")
    assert (home / "embedded.env").exists()
    following = up("--port", str(port))
    following.wait_for_output("ready http", 90)
    with psycopg.connect(database) as db:
        assert db.execute("TABLE kept").fetchone() == (1,)
    assert end(following) == 0
    assert not (home / "postgres" / "postmaster.pid").exists()


@pytest.mark.slow
def test_one_that_is_killed_and_started_again_at_once_begins(up: Start, empty_database: str) -> None:
    port = str(free_port())
    killed = up("--port", port, DATABASE_URL=empty_database)
    killed.wait_for_output("ready http", 90)
    killed.kill()
    following = up("--port", port, DATABASE_URL=empty_database)
    following.wait_for_output("ready http", 90)
    assert end(following) == 0


def test_a_postgres_after_a_power_cut_starts_although_its_old_number_is_anothers_now(
    home: Path, processes: Processes
) -> None:
    folder = home / "postgres"
    server = EmbeddedPostgres(folder)
    pid_file = folder / "postmaster.pid"
    _, *rest = pid_file.read_text().splitlines()
    server.close()
    another = processes.start("sleep", "600")
    pid_file.write_text("\n".join([str(another.pid), *rest]) + "\n")
    again = EmbeddedPostgres(folder)
    try:
        with psycopg.connect(again.url()) as db:
            assert db.execute("SELECT 1").fetchone() == (1,)
    finally:
        again.close()
