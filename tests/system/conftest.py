"""The whole system around each test: a Stripe of its own, a mail folder, the web application, and processes.

Every exchange with Stripe is checked against Stripe's own OpenAPI description, where that is at hand. The
application is imported inside the fixtures: this module may be read before the environment is prepared.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.conftest import free_port, wait_until
from tests.processes import Process, Processes, processes

if TYPE_CHECKING:
    from app.sandbox.stripe import StripeSandbox
    from tests.sandbox.conformance import Conformance
    from tests.system.cable import Cable
    from tests.system.scene import Mailbox, Site

__all__ = ["processes"]


def pytest_report_header() -> str:
    from tests.sandbox.conformance import OPENAPI

    if OPENAPI.exists():
        return "system: what the gateway sends is checked against Stripe's OpenAPI description"
    return f"system: the gateway is NOT checked against Stripe's OpenAPI description, which is absent: {OPENAPI}"


def _forget_settings() -> None:
    """What this process has read of its settings it reads again."""
    from app.customers import seal
    from app.settings import get_settings
    from app.stripe import client as gateway

    for cached in (get_settings, gateway.client, seal._box):
        cached.cache_clear()


@pytest.fixture(scope="session")
def conformance() -> Conformance | None:
    from tests.sandbox.conformance import OPENAPI, Conformance

    return Conformance() if OPENAPI.exists() else None


@pytest.fixture(scope="session")
def _sandbox(conformance: Conformance | None) -> Iterator[StripeSandbox]:
    from app.sandbox.stripe import StripeSandbox

    with StripeSandbox(hook=conformance) as sandbox:
        os.environ["STRIPE_API_BASE"] = sandbox.url
        _forget_settings()
        yield sandbox
    del os.environ["STRIPE_API_BASE"]
    _forget_settings()


@pytest.fixture(autouse=True)
def stripe(_sandbox: StripeSandbox, conformance: Conformance | None) -> Iterator[StripeSandbox]:
    """The Stripe that the application talks to, empty; for every test, so that none reaches the real one."""
    _sandbox.clear_faults()
    _sandbox.reset()
    yield _sandbox
    _sandbox.clear_faults()
    if conformance is not None:
        found, conformance.problems = conformance.problems, []
        if found:
            pytest.fail("unlike Stripe's description:\n" + "\n".join(dict.fromkeys(found)))


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Set settings by their environment names, for this test and this process; None unsets."""

    def change(**settings: str | None) -> None:
        for name, value in settings.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        _forget_settings()

    yield change
    monkeypatch.undo()
    _forget_settings()


@pytest.fixture(autouse=True)
def mailbox() -> Mailbox:
    """The folder that mails arrive in, empty."""
    from tests.system.scene import Mailbox

    box = Mailbox(Path(os.environ["TALLYHOOK_HOME"]).resolve() / "mail")
    box.clear()
    return box


@pytest.fixture(scope="session")
def application(_sandbox: StripeSandbox) -> Flask:
    from app.intake import create_app

    return create_app()


@pytest.fixture
def web(application: Flask) -> FlaskClient:
    """A client of the application in this process."""
    return application.test_client()


@pytest.fixture
def start_web(processes: Processes) -> Callable[..., Site]:
    """Start gunicorn as the Procfile does, on a port of its own; returns when it answers."""

    def start(**settings: str) -> Site:
        return _start_web(processes, **settings)

    return start


@pytest.fixture(scope="session")
def site(_sandbox: StripeSandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One gunicorn for all tests that need sockets and change no setting."""
    started = Processes(tmp_path_factory.mktemp("site"))
    try:
        yield _start_web(started)
    finally:
        started.kill_all()


@pytest.fixture
def start_worker(processes: Processes) -> Callable[..., Process]:
    """Start a worker and a relay as the Procfile does; returns the worker, ready for action."""

    def start(*, threads: int = 4, **settings: str) -> Process:
        processes.start(sys.executable, "-m", "app.ops.cli", "relay", **settings)
        return processes.start_worker(threads=threads, **settings)

    return start


@pytest.fixture
def whole_window() -> None:
    """Limits are counted by the clock's minute and hour: over the end of one, there is twice as much."""
    wait_until(lambda: time.time() % 60 < 40, what="the next minute")


@pytest.fixture
def empty_database() -> Iterator[str]:
    """DATABASE_URL of a new database on the same server."""
    url = os.environ["DATABASE_URL"]
    name = f"tallyhook_test_schema_{os.getpid()}"  # the suite's processes may share a server
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        db.execute(f"CREATE DATABASE {name}")
    path, _, query = url.partition("?")
    yield f"{path.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def postgres_cable() -> Iterator[Cable]:
    """A cable to the tests' PostgreSQL, which can be cut."""
    from tests.system.cable import Cable, postgres_address

    cable = Cable(postgres_address(os.environ["DATABASE_URL"]))
    yield cable
    cable.cut()


@pytest.fixture
def redis_cable() -> Iterator[Cable]:
    """A cable to the tests' Redis, which can be cut or frozen."""
    from tests.system.cable import Cable, redis_address

    cable = Cable(redis_address(os.environ["REDIS_URL"]))
    yield cable
    cable.cut()


def _start_web(started: Processes, **settings: str) -> Site:
    from tests.system.scene import Site

    port = free_port()
    process = started.start(
        *(sys.executable, "-m", "gunicorn", "-c", "python:app.intake.server", "web:app"), PORT=str(port), **settings
    )
    site = Site(port, process)

    def answers() -> bool:
        if not process.alive:
            pytest.fail(f"gunicorn ended:\n{process.output[-4000:]}")
        try:
            return site.get("/healthz").status == 200
        except OSError:
            return False

    wait_until(answers, what="an answer from gunicorn")
    return site
