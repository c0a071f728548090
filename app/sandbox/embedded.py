"""What `up` and `demo` embed on this machine for whatever is not configured: PostgreSQL, Redis, Stripe."""

import secrets
import socket
import time
from pathlib import Path

from app.ops.supervisor import Keeper, Supervisor, python
from app.sandbox.postgres import EmbeddedPostgres
from app.settings import EMBEDDED_ENV, Settings


def free_port() -> int:
    """A TCP port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, what: str, timeout_s: float = 20.0) -> None:
    until = time.monotonic() + timeout_s
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > until:
            raise TimeoutError(f"{what} did not start within {timeout_s:.0f} s")
        time.sleep(0.05)


class Embedded:
    """The embedded parts, alive from `start` to `stop`; their addresses stand in `embedded.env` meanwhile."""

    def __init__(self, settings: Settings, output: Path | None = None, keeper: Keeper | None = None) -> None:
        """`settings` without what was embedded earlier. `output`: a file for what the parts print, in place of this
        process's standard output; `keeper`: who ends them, should this process be killed."""
        self._settings = settings
        self._supervisor = Supervisor({}, output, keeper)
        self._home = settings.tallyhook_home.resolve()
        self._postgres: EmbeddedPostgres | None = None
        self.names: list[str] = []

    @property
    def _file(self) -> Path:
        return self._home / EMBEDDED_ENV

    def start(self, web_port: int) -> None:
        """Start what the settings lack, and write down where it is.

        Raises:
            TimeoutError: a part did not come up.
        """
        self._home.mkdir(parents=True, exist_ok=True)
        self._file.unlink(missing_ok=True)  # of one that was killed
        env: dict[str, str] = {}
        if self._settings.database_url is None:
            self._postgres = EmbeddedPostgres(self._home / "postgres")
            env["DATABASE_URL"] = self._postgres.url()
            self.names.append("PostgreSQL")
        if self._settings.redis_url is None:
            port = free_port()
            self._supervisor.start("redis", python("-m", "app.sandbox.redis", "--port", str(port)))
            _wait_for(port, "the embedded Redis")
            env["REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
            self.names.append("Redis")
        if self._settings.stripe_secret_key is None:
            env |= self._start_stripe(web_port)
            self.names.append("Stripe")
        self._file.touch(mode=0o600)
        self._file.write_text("".join(f"{name}='{value}'\n" for name, value in env.items()))

    def _start_stripe(self, web_port: int) -> dict[str, str]:
        port = free_port()
        given = self._settings.stripe_webhook_secrets
        secret = given[0].get_secret_value() if given else f"whsec_{secrets.token_hex(16)}"
        options = ["--port", str(port), "--data", str(self._home / "stripe.sqlite")]
        options += ["--webhook-url", f"http://127.0.0.1:{web_port}/webhooks/stripe", "--webhook-secret", secret]
        self._supervisor.start("stripe", python("-m", "app.sandbox.stripe", *options))
        _wait_for(port, "the Stripe sandbox")
        return {
            "STRIPE_SECRET_KEY": "sk_test_sandbox",
            "STRIPE_API_BASE": f"http://127.0.0.1:{port}",
            "STRIPE_WEBHOOK_SECRETS": secret,
        }

    def stop(self) -> None:
        """Forget the addresses and stop the parts. Whoever uses them must have ended before."""
        self._file.unlink(missing_ok=True)
        self._supervisor.stop()
        if self._postgres is not None:
            self._postgres.close()
