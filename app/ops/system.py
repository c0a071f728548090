"""The whole system on one machine: what is not configured embedded, then web, workers and relay."""

import shutil
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

from app.db import get_engine
from app.migrations import migrate
from app.ops.supervisor import Supervisor, python
from app.sandbox.embedded import Embedded
from app.settings import Settings, SettingsError, get_settings, load_settings
from app.stripe import catalog

_WORKER_THREADS = 8
WORKER = ["-m", "dramatiq", "worker", "--skip-logging", "--processes", "1", "--threads", str(_WORKER_THREADS)]
WORKER_GRACE_MS = 10_000


class System:
    """Started, migrated and answering once `start` returns; gone after `stop`."""

    def __init__(self, *, workers: int, port: int, output: Path | None = None) -> None:
        self._workers, self._port, self._output = workers, port, output
        settings = load_settings()
        self._environment = {"PORT": str(port), "TALLYHOOK_HOME": str(settings.tallyhook_home.resolve())}
        self._web = Supervisor(self._environment, output)
        self._behind = Supervisor(self._environment, output)
        self.embedded = Embedded(settings, output)
        self.url = f"http://127.0.0.1:{port}"

    def start(self) -> Settings:
        """Bring everything up; returns the settings as they are now.

        Raises:
            SettingsError: the port is taken, or production lacks something.
            TimeoutError: something did not come up.
        """
        if load_settings().tallyhook_env == "production" and (problems := load_settings().problems()):
            raise SettingsError(problems)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", self._port))  # noqa: S104  (where gunicorn will listen)
            except OSError:
                raise SettingsError([f"port {self._port} is taken: choose another with --port"]) from None
        # Counters begin anew with the processes that count.
        shutil.rmtree(load_settings().tallyhook_home / "metrics", ignore_errors=True)
        self.embedded.start(self._port)
        get_settings.cache_clear()
        if problems := get_settings().problems():
            raise SettingsError(problems)
        migrate(get_engine())
        if "Stripe" in self.embedded.names:
            self._fill_sandbox()
        self._start_behind()
        self._web.start("web", python("-m", "gunicorn", "-c", "python:app.intake.server", "web:app"))
        self._wait_until_ready()
        return get_settings()

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
        self._behind = Supervisor({**self._environment, **settings}, self._output)
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
        """Stop everything: web first, then relay and workers, which finish or hand back what they do."""
        self._web.stop()
        self._behind.stop()
        get_engine().dispose()
        self.embedded.stop()
