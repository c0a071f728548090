"""The fault run: signups under load while everything that they need is killed, cut off, emptied and lied to.

FAULT_SIGNUPS says how many (3000), FAULT_IN_FLIGHT how many at once (500), FAULT_SEED repeats a run's faults.
"""

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import redis

from app.customers.api_keys import authenticate
from app.db import get_engine, transaction
from app.ledger.bell import get_redis
from app.ops.audit import audit
from app.ops.supervisor import Supervisor, python
from app.ops.system import WORKER
from app.sandbox.stripe import SandboxControl
from app.settings import get_settings
from app.stripe import client as gateway
from tests.conftest import ROOT, free_port, wait_until

SIGNUPS = int(os.environ.get("FAULT_SIGNUPS", "3000"))
IN_FLIGHT = int(os.environ.get("FAULT_IN_FLIGHT", "500"))
SEED = int(os.environ.get("FAULT_SEED", str(random.randrange(10**6))))


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Redis:
    """A Redis that can be stopped and started again, empty, on the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "app.sandbox.redis", "--port", str(self.port)], cwd=ROOT
        )
        wait_until(lambda: _listening(self.port), what="Redis")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


class Scene:
    """The whole system as its own processes, beside a Redis and a Stripe that can fail."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.redis = Redis()
        self.web_port, stripe_port = free_port(), free_port()
        self.mails = home / "mail"
        settings = {
            "REDIS_URL": f"redis://127.0.0.1:{self.redis.port}/0",
            "STRIPE_API_BASE": f"http://127.0.0.1:{stripe_port}",
            "MAIL_URL": f"file://{self.mails}",
            "PORT": str(self.web_port),
            "SIGNUP_RATE_LIMIT": "1000000/hour",
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        for cached in (get_settings, get_redis, gateway.client, gateway._limit):
            cached.cache_clear()
        self.log = home / "processes.log"
        self.supervisor = Supervisor({}, self.log)
        start = self.supervisor.start
        start("stripe", python("-m", "app.sandbox.stripe", "--port", str(stripe_port)))
        start("relay", python("-m", "app.ops.cli", "relay"))
        for _ in range(3):
            start("worker", python(*WORKER, "--worker-shutdown-timeout", "10000"))
        start("web", python("-m", "gunicorn", "-c", "python:app.intake.server", "web:app"))
        wait_until(lambda: _listening(stripe_port), 60, "the Stripe sandbox")
        wait_until(lambda: _listening(self.web_port), 60, "the web process")
        self.stripe = SandboxControl(settings["STRIPE_API_BASE"])

    def stop(self) -> None:
        self.supervisor.stop()
        self.redis.stop()


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    made = Scene(tmp_path, monkeypatch)
    yield made
    made.stop()
    monkeypatch.undo()
    for cached in (get_settings, get_redis, gateway.client, gateway._limit):
        cached.cache_clear()


class Chaos(threading.Thread):
    """One fault after another until it is told to end; `done` counts them by kind."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(name="chaos", daemon=True)
        self._scene = scene
        self._dice = random.Random(SEED)
        self._end = threading.Event()
        self.done: Counter[str] = Counter()
        self.failure: BaseException | None = None

    def run(self) -> None:
        faults: list[tuple[int, Callable[[], None]]] = [
            (8, self._kill_a_worker),
            (3, self._empty_redis),
            (1, self._restart_redis),
            (2, self._cut_postgresql),
            (3, self._lose_answers),
            (2, self._storm_of_errors),
        ]
        weights = [weight for weight, _ in faults]
        try:
            while not self._end.wait(self._dice.uniform(0.2, 1.0)):
                fault = self._dice.choices(faults, weights)[0][1]
                fault()
                self.done[fault.__name__.strip("_")] += 1
        except BaseException as error:
            self.failure = error

    def end(self) -> None:
        self._end.set()
        self.join(60)
        if self.failure is not None:
            raise self.failure

    def _kill_a_worker(self) -> None:
        masters = self._scene.supervisor.pids("worker")
        if masters:
            children = psutil.Process(self._dice.choice(masters)).children()
            if children:
                self._dice.choice(children).send_signal(signal.SIGKILL)

    def _empty_redis(self) -> None:
        redis.Redis(port=self._scene.redis.port).flushall()

    def _restart_redis(self) -> None:
        self._scene.redis.stop()
        self._end.wait(self._dice.uniform(0.1, 2))
        self._scene.redis.start()

    def _cut_postgresql(self) -> None:
        url = get_settings().database_url
        assert url is not None
        with psycopg.connect(url, autocommit=True) as db:
            db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )

    def _lose_answers(self) -> None:
        self._scene.stripe.fault("lose", operation="POST /v1/customers", count=20)

    def _storm_of_errors(self) -> None:
        kind = self._dice.choice([{"status": 429, "retry_after": 1}, {"status": 409}, {"status": 500}])
        self._scene.stripe.fault("status", operation="POST /v1/customers", count=20, **kind)


class Sender(threading.Thread):
    """Posts its share of the signups; like any good client it sends again, under the same key, until it is told 202."""

    def __init__(self, port: int, addresses: Iterator[tuple[int, str]], go_on: Callable[[], bool]) -> None:
        super().__init__(name="sender", daemon=True)
        self._port, self._addresses, self._go_on = port, addresses, go_on
        self.accepted: dict[str, str] = {}
        self.refusals: Counter[int] = Counter()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            for number, address in self._addresses:
                wait_until(self._go_on, 300, "room for another signup in flight")
                self.accepted[self._post(number, address)] = address
        except BaseException as error:
            self.failure = error

    def _post(self, number: int, address: str) -> str:
        body = json.dumps({"email": address, "name": f"Customer {number}"})
        headers = {"Content-Type": "application/json", "Idempotency-Key": f"storm-{number}"}
        until = time.monotonic() + 120
        while time.monotonic() < until:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
            try:
                connection.request("POST", "/api/v1/customers", body, headers)
                response = connection.getresponse()
                answer = json.loads(response.read())
            except (OSError, http.client.HTTPException):
                continue  # no answer: it may or may not have been accepted
            finally:
                connection.close()
            if response.status == 202:
                return str(answer["signup_id"])
            self.refusals[response.status] += 1
            assert response.status == 503, answer  # the only refusal that a good request may get
        raise TimeoutError(f"signup {number} was not accepted within two minutes")


def _scalar(query: str) -> Any:
    while True:  # the storm cuts our own connections, too
        try:
            with transaction() as db:
                return db.exec_driver_sql(query).scalar_one()
        except Exception as error:
            if not isinstance(getattr(error, "orig", error), psycopg.Error):
                raise


def _keys_in(mail: Path) -> list[str]:
    body = message_from_bytes(mail.read_bytes(), policy=policy.default).get_body(("plain",))  # type: ignore[attr-defined]
    return [word for word in body.get_content().split() if word.startswith("rsolv_")]


@pytest.mark.slow
def test_every_accepted_signup_is_provisioned_once_whatever_fails(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    provisioned = 0
    numbers = iter([(n, f"customer{n}@example.com") for n in range(SIGNUPS)])
    lock = threading.Lock()

    def addresses() -> Iterator[tuple[int, str]]:
        while True:
            with lock:
                following = next(numbers, None)
            if following is None:
                return
            yield following

    def in_flight() -> int:
        return sum(len(sender.accepted) for sender in senders) - provisioned

    senders = [Sender(scene.web_port, addresses(), lambda: in_flight() < IN_FLIGHT) for _ in range(8)]
    chaos = Chaos(scene)
    began = time.monotonic()
    for thread in (*senders, chaos):
        thread.start()
    while any(sender.is_alive() for sender in senders):
        provisioned = _scalar("SELECT count(*) FROM signups WHERE status = 'provisioned'")
    chaos.end()
    for sender in senders:
        if sender.failure is not None:
            raise sender.failure
    scene.stripe.clear_faults()
    stormy = time.monotonic() - began
    wait_until(
        lambda: _scalar("SELECT count(*) FROM signups WHERE status = 'provisioned'") == SIGNUPS,
        180,
        "the provisioning of every accepted signup",
    )

    accepted = {signup: address for sender in senders for signup, address in sender.accepted.items()}
    assert len(accepted) == SIGNUPS
    assert _scalar("SELECT count(*) FROM signups") == SIGNUPS
    assert _scalar("SELECT count(*) FROM customers") == SIGNUPS
    assert _scalar("SELECT count(DISTINCT stripe_customer_id) FROM customers") == SIGNUPS
    assert _scalar("SELECT count(*) FROM api_keys") == SIGNUPS
    assert _scalar("SELECT count(*) FROM jobs WHERE state <> 'succeeded' AND name <> 'prune_ledger'") == 0
    assert len(scene.stripe.objects("customer")) == SIGNUPS

    keys: dict[str, set[str]] = defaultdict(set)
    for mail in scene.mails.glob("welcome*.eml"):
        keys[mail.name].update(_keys_in(mail))
    assert len(keys) == SIGNUPS
    owners = [authenticate(key) for (key,) in keys.values()]
    assert len(set(owners)) == SIGNUPS
    assert None not in owners

    report = audit(with_stripe=True)
    assert report["ok"], report["findings"][:20]
    attempts = _scalar("SELECT count(*) FROM job_attempts")
    refused = sum((sender.refusals for sender in senders), Counter())
    with capsys.disabled():
        print(
            f"\n{SIGNUPS} signups, {IN_FLIGHT} in flight, seed {SEED}: {stormy:.0f} s of storm ({dict(chaos.done)}),"
            f" {attempts} attempts, refused {dict(refused)}, all provisioned {time.monotonic() - began - stormy:.0f} s"
            " after it; the audit against Stripe is clean"
        )
    get_engine().dispose()
