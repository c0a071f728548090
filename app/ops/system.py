"""The whole system on one machine: what is not configured embedded, then web, workers and relay."""

import fcntl
import os
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from app.db import get_engine
from app.migrations import migrate
from app.ops.supervisor import Keeper, Supervisor, python
from app.sandbox.embedded import Embedded
from app.settings import Settings, SettingsError, get_settings, load_settings
from app.stripe import catalog

_WORKER_THREADS = 8
WORKER = ["-m", "dramatiq", "worker", "--skip-logging", "--processes", "1", "--threads", str(_WORKER_THREADS)]
WORKER_GRACE_MS = 10_000
_LOCK = "up.pid"
_PATIENCE_S = 3.0


class AlreadyUp(Exception):
    """Another `tallyhook up` has this folder; the message says which."""


class System:
    """Started, migrated and answering once `start` returns; gone after `stop`."""

    def __init__(self, *, workers: int, port: int, output: Path | None = None) -> None:
        self._workers, self._port, self._output = workers, port, output
        self._settings = load_settings(embedded=False)
        self._home = self._settings.tallyhook_home.resolve()
        self._environment = {"PORT": str(port), "TALLYHOOK_HOME": str(self._home)}
        self._keeper = Keeper()
        self._web = Supervisor(self._environment, output, self._keeper)
        self._behind = Supervisor(self._environment, output, self._keeper)
        self._started = ExitStack()
        self.embedded = Embedded(self._settings, output, self._keeper)
        self.url = f"http://127.0.0.1:{port}"

    def start(self) -> Settings:
        """Bring everything up; returns the settings as they are now. What it has started when it fails, `stop` stops.

        Raises:
            AlreadyUp: this folder's system runs.
            SettingsError: the port is taken, or production lacks something.
            TimeoutError: something did not come up.
        """
        if self._settings.tallyhook_env == "production" and (problems := self._settings.problems()):
            raise SettingsError(problems)
        lock = self._started.enter_context(_only_one(self._home))
        self._refuse_a_taken_port()
        self._keeper.start(lock)
        self._started.callback(self._keeper.stop)
        # Counters begin anew with the processes that count.
        shutil.rmtree(self._home / "metrics", ignore_errors=True)
        self._started.callback(self.embedded.stop)
        self.embedded.start(self._port)
        get_settings.cache_clear()
        if problems := get_settings().problems():
            raise SettingsError(problems)
        self._started.callback(get_engine().dispose)
        migrate(get_engine())
        if "Stripe" in self.embedded.names:
            self._fill_sandbox()
        self._started.callback(lambda: self._behind.stop())
        self._start_behind()
        self._started.callback(self._web.stop)
        self._web.start("web", python("-m", "gunicorn", "-c", "python:app.intake.server", "web:app"))
        self._wait_until_ready()
        return get_settings()

    def _refuse_a_taken_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                _soon(lambda: probe.bind(("0.0.0.0", self._port)))  # noqa: S104  (where gunicorn will listen)
            except OSError:
                raise SettingsError([f"port {self._port} is taken: choose another with --port"]) from None

    def _fill_sandbox(self) -> None:
        """What is sold has to be in Stripe. In a sandbox it follows the settings; in an account that is a person's
        step, `tallyhook stripe sync-catalog`."""
        try:
            catalog.sync(transfer=True)
        except catalog.CatalogDiffers as error:
            raise SettingsError([str(error)]) from None

    def _start_behind(self) -> None:
        self._behind.start("relay", python("-m", "app.ops.cli", "relay"))
        for _ in range(self._workers):
            self._behind.start("worker", python(*WORKER, "--worker-shutdown-timeout", str(WORKER_GRACE_MS)))

    def restart_behind(self, **settings: str) -> None:
        """End relay and workers, as a deployment does, and start them with these settings besides."""
        self._behind.stop()
        self._behind = Supervisor({**self._environment, **settings}, self._output, self._keeper)
        self._start_behind()

    def _wait_until_ready(self, timeout_s: float = 60.0) -> None:
        until = time.monotonic() + timeout_s
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=2):  # noqa: S310  (http, ours)
                    return
            except (urllib.error.URLError, OSError):
                if time.monotonic() > until:
                    raise TimeoutError(f"the web process was not ready within {timeout_s:.0f} s") from None
                time.sleep(0.1)

    def stop(self) -> None:
        """Stop what was started: web first, then relay and workers, which finish or hand back what they do."""
        self._started.close()


@contextmanager
def _only_one(home: Path) -> Iterator[int]:
    """Have `home` to ourselves, by a lock that the kernel lets go with the last process that holds it; its file
    descriptor is given."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / _LOCK).open("a+") as file:
        try:
            _soon(lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB))
        except OSError:
            file.seek(0)
            raise AlreadyUp(
                f"`tallyhook up` runs here already (process {file.read().strip() or 'unknown'}, data in {home});"
                " another one needs a TALLYHOOK_HOME of its own"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()


def _soon(take: Callable[[], object]) -> None:
    """Repeat `take` for a moment while it fails: what a killed `up` held is free once its keeper has ended the rest."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            take()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
