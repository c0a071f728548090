"""What the demo is told with: its lines, how it asks over HTTP, and how it watches what happens."""

import http.client
import json
import os
import signal
import time
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from app.db import transaction
from app.ledger import ops
from app.ops.output import console
from app.ops.system import System
from app.sandbox.stripe import SandboxControl
from app.settings import get_settings

T = TypeVar("T")


class DemoFailed(Exception):
    """A step did not come out as it must."""


class Stage:
    """The system that runs, with its Stripe and its mail folder, and a clock that begins with it."""

    def __init__(self, system: System, home: Path) -> None:
        self.system = system
        self.stripe = SandboxControl(get_settings().stripe_api_base)
        self._mails = home / "mail"
        self._began = time.monotonic()

    # What the audience sees.

    def chapter(self, title: str) -> None:
        console.print(f"\n[bold]{title}[/]")

    def say(self, text: str) -> None:
        console.print(f"[dim]{time.monotonic() - self._began:6.1f} s[/]  {text}")

    def must(self, holds: bool, otherwise: str) -> None:
        """What the story says is true. Raises `DemoFailed` where it is not."""
        if not holds:
            raise DemoFailed(otherwise)

    def wait(self, what: str, condition: Callable[[], T | None], timeout_s: float = 60.0) -> T:
        """The first answer of `condition` that holds. Raises `DemoFailed` after the time-out."""
        until = time.monotonic() + timeout_s
        while not (value := condition()):
            if time.monotonic() > until:
                raise DemoFailed(f"{what} did not come within {timeout_s:.0f} s")
            time.sleep(0.05)
        return value

    # What a customer does.

    def get(self, path: str, headers: dict[str, str] | None = None) -> Any:
        return self._ask("GET", path, None, headers or {})

    def post(self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> Any:
        return self._ask("POST", path, json.dumps(body), {"Content-Type": "application/json", **(headers or {})})

    def sign_up(self, email: str, name: str, key: str) -> dict[str, Any]:
        """The answer to a signup with that `Idempotency-Key`."""
        answer: dict[str, Any] = self.post(
            "/api/v1/customers", {"email": email, "name": name}, {"Idempotency-Key": key}
        )
        return answer

    def provisioned(self, signup: dict[str, Any]) -> None:
        """Returns when the signup is through."""
        self.wait("a signup", lambda: self.get(signup["status_url"])["status"] == "provisioned")

    def mail(self, kind: str) -> EmailMessage:
        """The mail of a kind, once it has come."""
        path = self.wait(f"the {kind} mail", lambda: next(iter(sorted(self._mails.glob(f"{kind}.*.eml"))), None))
        mail = message_from_bytes(path.read_bytes(), policy=policy.default)
        assert isinstance(mail, EmailMessage)
        return mail

    def _ask(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> Any:
        connection = http.client.HTTPConnection(self.system.url.removeprefix("http://"), timeout=30)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status >= 300:
            raise DemoFailed(f"{method} {path} answered {response.status}: {answer.get('detail')}")
        return answer

    # What ops see and do.

    def job(self, name: str, state: str | None = None) -> dict[str, Any] | None:
        """The newest job of that name (in that state), as `tallyhook jobs list` shows it."""
        with transaction() as db:
            found = ops.list_jobs(db, ops.JobFilter(name=name, state=state), 1)
        return found[0] if found else None

    def attempts(self, job_id: str) -> list[dict[str, Any]]:
        """The attempts at a job, as `tallyhook jobs show` has them."""
        with transaction() as db:
            history: list[dict[str, Any]] = ops.show_job(db, UUID(job_id))["history"]
        return history

    def kill_the_worker_of(self, job: dict[str, Any]) -> None:
        """SIGKILL for the worker that runs the job; returns when the job has been taken back from it."""
        worker = self.attempts(job["id"])[-1]["worker"]
        os.kill(int(worker.split(":")[1]), signal.SIGKILL)
        self.say(f"{job['name']} runs on {worker}: [red]SIGKILL[/]")
        crashed = {"outcome": "crashed"}.items()
        self.wait("the lease to run out", lambda: any(crashed <= each.items() for each in self.attempts(job["id"])))
        self.say("the lease has run out, and the relay has given the job back")

    def count(self, table: str, where: str = "true") -> int:
        """Rows of a table."""
        with transaction() as db:
            return int(db.exec_driver_sql(f"SELECT count(*) FROM {table} WHERE {where}").scalar_one())  # noqa: S608

    def charged(self) -> int:
        """Cents that Stripe has taken from anybody."""
        return sum(int(intent["amount_received"]) for intent in self.stripe.objects("payment_intent"))
