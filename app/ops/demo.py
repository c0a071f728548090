"""`tallyhook demo`: the main job on embedded parts, told as it happens, with what can go wrong going wrong."""

import http.client
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import typer

from app.db import get_engine, transaction
from app.ledger import ops
from app.ledger.bell import get_redis
from app.logs import configure_logs
from app.ops.audit import audit
from app.ops.output import console, print_rows
from app.ops.system import System
from app.sandbox.embedded import free_port
from app.sandbox.stripe import SandboxControl
from app.settings import Settings, get_settings

T = TypeVar("T")


class DemoFailed(Exception):
    """A step did not come out as it must."""


def demo() -> None:
    """Show the main job on embedded parts: a signup is provisioned while its worker is killed.

    Everything lives in a folder of its own and is gone afterwards.
    """
    with tempfile.TemporaryDirectory(prefix="tallyhook-demo-") as folder:
        home = Path(folder)
        home.chmod(0o755)  # the embedded PostgreSQL may run as another user
        for name in Settings.model_fields:
            os.environ.pop(name.upper(), None)
        os.environ |= {"TALLYHOOK_HOME": folder, "SIGNUP_RATE_LIMIT": "1000/hour"}
        get_settings.cache_clear()
        get_engine.cache_clear()
        configure_logs(home / "demo.log")
        system = System(workers=2, port=free_port(), output=home / "demo.log")
        try:
            console.print("[bold]Starting[/] PostgreSQL, Redis and a Stripe sandbox, then web, relay and two workers …")
            system.start()
            _Journey(system, home).run()
        except (DemoFailed, TimeoutError) as error:
            console.print(f"\n{error}", style="red", markup=False)
            console.print((home / "demo.log").read_text()[-4000:], style="dim", markup=False)
            raise typer.Exit(1) from None
        finally:
            system.stop()


class _Journey:
    """The story, a method a chapter."""

    def __init__(self, system: System, home: Path) -> None:
        self._system = system
        self._mails = home / "mail"
        self._stripe = SandboxControl(get_settings().stripe_api_base)
        self._began = time.monotonic()

    def run(self) -> None:
        self._say(f"[bold]Serving[/] {self._system.url}")
        key = self._sign_up_while_the_worker_dies()
        self._use_the_key(key)
        self._send_it_again()
        self._empty_redis()
        self._lose_stripes_answer()
        self._audit()

    def _say(self, text: str) -> None:
        console.print(f"[dim]{time.monotonic() - self._began:6.1f} s[/]  {text}")

    def _chapter(self, title: str) -> None:
        console.print(f"\n[bold]{title}[/]")

    def _sign_up_while_the_worker_dies(self) -> str:
        self._chapter("A customer signs up, and the worker is killed in the middle of it")
        self._stripe.fault("delay", operation="POST /v1/customers", count=1, ms=3000)
        accepted = self._post("/api/v1/customers", {"email": "ada@example.com", "name": "Ada"}, "demo-1")
        signup_id = accepted["signup_id"]
        self._say(f"POST /api/v1/customers: 202, signup {signup_id} is committed; Stripe is slow to answer")
        job = self._wait("the step at Stripe", lambda: self._job("create_stripe_customer", "running"))
        with transaction() as db:
            worker = ops.show_job(db, UUID(job["id"]))["history"][-1]["worker"]
        os.kill(int(worker.split(":")[1]), signal.SIGKILL)
        self._say(f"create_stripe_customer runs on {worker}: [red]SIGKILL[/]")
        self._wait("the lease to run out", lambda: self._crashed(job["id"]))
        self._say("the lease has run out, and the relay has given the job back")
        self._wait("the signup", lambda: self._get(f"/api/v1/signups/{signup_id}")["status"] == "provisioned")
        self._say("provisioned:")
        print_rows(self._get(f"/api/v1/signups/{signup_id}")["steps"], ("name", "state", "attempts"), "")
        with transaction() as db:
            history = ops.show_job(db, UUID(job["id"]))["history"]
        console.print("\nthe attempts at create_stripe_customer:")
        print_rows(history, ("attempt", "started_at", "outcome", "error_message"), "")
        made = len(self._stripe.objects("customer"))
        self._must(made == 1, f"Stripe has {made} customers")
        self._say("Stripe got the request twice, under one idempotency key: it has [green]one customer[/]")
        mail = self._mail("welcome")
        body = mail.get_body(("plain",))
        assert body is not None
        words: list[str] = body.get_content().split()
        key = next(word for word in words if word.startswith("rsolv_"))
        self._say(f"the welcome mail “{mail['subject']}” has the key {key[:10]}… and a link to the account")
        return key

    def _use_the_key(self, key: str) -> None:
        self._chapter("The key works")
        status = self._get("/api/v1/billing/status", {"X-API-Key": key})
        shown = ("customer_id", "plan", "can_use_service", "current_usage", "included", "remaining")
        self._say("GET /api/v1/billing/status: " + ", ".join(f"{name} {status[name]}" for name in shown))
        with transaction() as db:
            sealed = db.exec_driver_sql("SELECT count(*) FROM api_keys WHERE sealed IS NOT NULL").scalar_one()
        self._must(sealed == 0, "a readable key was left behind")
        self._say("the database keeps only its SHA-256: what was sealed for the mail was wiped with the hand-over")

    def _send_it_again(self) -> None:
        self._chapter("The same again changes nothing")
        again = self._post("/api/v1/customers", {"email": "ada@example.com", "name": "Ada"}, "demo-1")
        self._must(again["duplicate"], "the repeated request was taken for a new one")
        self._say("the same Idempotency-Key: the first signup answers, duplicate true")
        other = self._post("/api/v1/customers", {"email": "ADA@Example.com", "name": "Ada L."}, "demo-2")
        self._provisioned(other)
        self._must(self._count("customers") == 1, "the same address made a second customer")
        self._say("the same address in capitals: looks like any signup, ends as one customer …")
        self._say(f"… and the owner gets “{self._mail('sign-in')['subject']}”, without a key")

    def _empty_redis(self) -> None:
        self._chapter("Redis forgets everything")
        with transaction() as db:
            ops.pause_queue(db, "provisioning", actor="demo")
        accepted = [
            self._post("/api/v1/customers", {"email": f"c{n}@example.com", "name": f"C{n}"}, f"many-{n}")
            for n in range(20)
        ]
        get_redis().flushall()
        with transaction() as db:
            ops.resume_queue(db, "provisioning", actor="demo")
        since = time.monotonic()
        self._say("20 signups accepted while their queue was paused; then FLUSHALL, and the queue goes on")
        for signup in accepted:
            self._provisioned(signup)
        self._say(f"all 20 provisioned {time.monotonic() - since:.1f} s later: PostgreSQL is the queue")

    def _lose_stripes_answer(self) -> None:
        self._chapter("Stripe does it, and its answer is lost")
        self._stripe.fault("lose", operation="POST /v1/customers", count=2)
        self._provisioned(self._post("/api/v1/customers", {"email": "bob@example.com", "name": "Bob"}, "demo-3"))
        bobs = [one for one in self._stripe.objects("customer") if one["email"] == "bob@example.com"]
        self._must(len(bobs) == 1, f"Stripe has {len(bobs)} customers for one signup")
        with transaction() as db:
            job = ops.list_jobs(db, ops.JobFilter(name="create_stripe_customer"), 1)[0]
        self._say(
            "asked three times under one key, twice without an answer: one customer in Stripe, "
            f"{job['attempts']} attempt counted"
        )

    def _audit(self) -> None:
        self._chapter("The audit, against Stripe as well")
        report = audit(with_stripe=True)
        print_rows([{"rule": r, "checked": n} for r, n in report["checked"].items()], ("rule", "checked"), "")
        print_rows(report["findings"], ("rule", "subject", "detail"), "")
        self._must(report["ok"], "the audit found something")
        console.print("[green]clean[/]: nothing lost, nothing doubled")

    # How the story is watched.

    def _must(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise DemoFailed(otherwise)

    def _wait(self, what: str, condition: Callable[[], T | None], timeout_s: float = 60.0) -> T:
        until = time.monotonic() + timeout_s
        while not (value := condition()):
            if time.monotonic() > until:
                raise DemoFailed(f"{what} did not come within {timeout_s:.0f} s")
            time.sleep(0.02)
        return value

    def _provisioned(self, signup: dict[str, Any]) -> None:
        self._wait("a signup", lambda: self._get(signup["status_url"])["status"] == "provisioned")

    def _job(self, name: str, state: str) -> dict[str, Any] | None:
        with transaction() as db:
            found = ops.list_jobs(db, ops.JobFilter(name=name, state=state), 1)
        return found[0] if found else None

    def _crashed(self, job_id: str) -> bool:
        with transaction() as db:
            return any(a["outcome"] == "crashed" for a in ops.show_job(db, UUID(job_id))["history"])

    def _count(self, table: str) -> int:
        with transaction() as db:
            return int(db.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())  # noqa: S608

    def _mail(self, kind: str) -> EmailMessage:
        path = self._wait(f"the {kind} mail", lambda: next(iter(sorted(self._mails.glob(f"{kind}*.eml"))), None))
        mail = message_from_bytes(path.read_bytes(), policy=policy.default)
        assert isinstance(mail, EmailMessage)
        return mail

    def _get(self, path: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
        return self._ask("GET", path, None, headers or {})

    def _post(self, path: str, body: dict[str, Any], key: str) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        return self._ask("POST", path, json.dumps(body), headers)

    def _ask(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self._system.url.removeprefix("http://"), timeout=30)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        finally:
            connection.close()
        self._must(response.status < 300, f"{method} {path} answered {response.status}: {answer.get('detail')}")
        return answer
