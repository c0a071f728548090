"""What a test of the whole system does and asks, in a line each."""

import email
import email.policy
import http.client
import json
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import jobs  # noqa: F401  (registers every handler)
from app.db import get_engine, transaction
from app.ledger import ops
from app.ledger.command import queues
from app.ledger.executor import Executor
from app.ledger.relay import Relay
from app.ops.audit import audit
from app.sandbox.stripe import StripeSandbox
from tests.conftest import wait_until
from tests.processes import Process

KEY = re.compile(r"rsolv_[A-Za-z0-9_-]{43}")
_LINK = re.compile(r"http://[^\s\"<>]+/account\?token=[\w.~-]+")

JANE = {"email": "jane@example.com", "name": "Jane Doe"}


def sql(statement: str, **parameters: Any) -> list[Any]:
    """The rows of one statement, in a transaction of its own."""
    with transaction() as db:
        result = db.exec_driver_sql(statement, parameters)
        return list(result.all()) if result.returns_rows else []


def one(statement: str, **parameters: Any) -> Any:
    """The one value that a statement returns."""
    [[value]] = sql(statement, **parameters)
    return value


def count(table: str) -> int:
    """Rows of a table."""
    return int(one(f"SELECT count(*) FROM {table}"))


def rows_of_all_tables() -> dict[str, int]:
    """How many rows each table has: the same before and after, where nothing was stored."""
    tables = [
        name
        for [name] in sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename !~ '^test_'")
        if name not in ("alembic_version", "relay_status")
    ]
    return {table: count(table) for table in tables}


def drain() -> None:
    """Be a worker in this thread until nothing of any queue is due."""
    executor = Executor([])
    executor.start()
    try:
        while True:
            before = _attempts()
            for queue in queues():
                executor.drain(queue)
            if _attempts() == before:
                return
    finally:
        executor.stop()


def time_passes() -> None:
    """So much that whatever waits for its time is due."""
    sql(
        "UPDATE jobs SET run_at = clock_timestamp(),"
        " busy_since = busy_since - greatest(run_at - clock_timestamp(), interval '0')"
        " WHERE state IN ('queued', 'retrying')"
    )


def drain_to_the_end(rounds: int = 60) -> None:
    """Be a worker, and where a line of jobs was left waiting a relay, until no job waits any more."""
    waiting = "SELECT name, state, blocked FROM jobs WHERE state IN ('queued', 'retrying', 'running')"
    for _ in range(rounds):
        drain()
        left = sql(waiting)
        if not left:
            return
        if any(row.blocked for row in left):
            sweep()
        time_passes()
    pytest.fail(f"jobs are still waiting after {rounds} rounds: {sql(waiting)}")


def sweep() -> None:
    """One round of a relay."""
    with get_engine().connect() as db:
        Relay([]).sweep(db)


def spoil(what: str = "state IN ('queued', 'retrying')") -> None:
    """Make those jobs such as no handler can read: they end as dead."""
    sql(
        "UPDATE jobs SET run_at = clock_timestamp(), payload = payload - 'signup_id'"
        f" || jsonb_build_object('mislaid', payload -> 'signup_id') WHERE {what}"
    )


def mend() -> None:
    """Take back `spoil`; ops may then requeue what died of it."""
    sql(
        "UPDATE jobs SET payload = payload - 'mislaid' || jsonb_build_object('signup_id', payload -> 'mislaid')"
        " WHERE payload ? 'mislaid'"
    )


def _attempts() -> int:
    return int(one("SELECT coalesce(sum(attempt), 0) FROM jobs"))


def show(job_id: UUID) -> dict[str, Any]:
    """What ops see of a job."""
    with transaction() as db:
        return ops.show_job(db, job_id)


def job(name: str) -> dict[str, Any]:
    """What ops see of the one job of that name."""
    return show(one("SELECT id FROM jobs WHERE name = %(name)s", name=name))


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What the calls return that begin at the same instant, each in a thread; an error in one fails the test."""
    barrier = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []

    def begin(place: int, call: Callable[[], Any]) -> None:
        barrier.wait()
        try:
            results[place] = call()
        except BaseException as error:  # raised again below, in the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=begin, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def findings() -> list[dict[str, Any]]:
    """What the audit finds, here and in Stripe."""
    found: list[dict[str, Any]] = audit(with_stripe=True)["findings"]
    return found


def during(stripe: StripeSandbox, operation: str, work: Callable[[], Any], act: Callable[[], Any]) -> None:
    """`act` happens while a request of `work`'s is on its way: Stripe does it when `act` has been done."""
    stripe.clear_requests()
    stripe.fault("delay", operation=operation, ms=15_000)

    def interrupt() -> None:
        wait_until(lambda: [r for r in stripe.requests(operation) if r["fault"] == "delay"], what=operation)
        try:
            act()
        finally:
            stripe.clear_faults()

    at_once(work, interrupt)


def sign_up(web: FlaskClient, *, key: str | None = None, **body: Any) -> TestResponse:
    """`POST /api/v1/customers` with Jane's body and these changes."""
    return web.post("/api/v1/customers", json=JANE | body, headers={} if key is None else {"Idempotency-Key": key})


def progress(web: FlaskClient, accepted: TestResponse) -> dict[str, Any]:
    """How far the signup that was answered with `accepted` has come."""
    answer = web.get(accepted.json["status_url"])
    assert answer.status_code == 200, answer.text
    return dict(answer.json)


def states(seen: Mapping[str, Any]) -> dict[str, str]:
    """The steps of a signup, by name."""
    return {step["name"]: step["state"] for step in seen["steps"]}


@dataclass(frozen=True)
class Mail:
    """A mail as its reader sees it. `raw` is every byte of it."""

    to: str
    subject: str
    message_id: str
    text: str
    html: str
    raw: bytes

    @classmethod
    def read(cls, raw: bytes) -> "Mail":
        message = email.message_from_bytes(raw, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        text, html = message.get_body(("plain",)), message.get_body(("html",))
        assert text is not None
        assert html is not None
        return cls(
            str(message["To"]), message["Subject"], message["Message-ID"], text.get_content(), html.get_content(), raw
        )

    @property
    def keys(self) -> set[str]:
        """The API keys in it, wherever."""
        return set(KEY.findall(self.text)) | set(KEY.findall(self.html))

    @property
    def key(self) -> str:
        """The one API key in it."""
        [key] = self.keys
        return key

    @property
    def link(self) -> str:
        """The link to the account page, as a path of our own site."""
        [link] = set(_LINK.findall(self.text))
        parts = urlsplit(link)
        return f"{parts.path}?{parts.query}"


class Mailbox:
    """What has arrived in the folder of MAIL_URL."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mails(self, to: str = "") -> list[Mail]:
        """The mails so far to an address that contains `to`, in the order of their arrival."""
        files = sorted(self.folder.glob("*.eml"), key=lambda file: file.stat().st_mtime_ns)
        return [mail for mail in (Mail.read(file.read_bytes()) for file in files) if to in mail.to]

    def mail(self, to: str = "") -> Mail:
        """The one mail so far to that address."""
        [mail] = self.mails(to)
        return mail

    def clear(self) -> None:
        """Throw all mails away."""
        for file in self.folder.glob("*.eml"):
            file.unlink()


@dataclass(frozen=True)
class Answer:
    """What came back over a socket."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


class Site:
    """A web server on loopback, asked over real sockets, a connection for each request."""

    def __init__(self, port: int, process: Process) -> None:
        self.port, self.process = port, process

    def ask(
        self,
        method: str,
        path: str,
        *,
        json_body: Any = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request. `json_body` is sent as JSON; `body` as it is (an iterable goes out in chunks)."""
        sent = dict(headers or {})
        if json_body is not None:
            body = json.dumps(json_body).encode()
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # it may refuse a body before its end
                connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        """GET; header names with `_` for `-`."""
        return self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, path: str, json_body: Any, **headers: str) -> Answer:
        """POST of JSON; header names with `_` for `-`."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", path, json_body=json_body, headers=given)
