"""The system as its own processes, everything that befalls them, and senders who are patient.

FAULT_IN_FLIGHT says how many jobs senders leave unfinished before they wait (500), FAULT_STORM_S for how many
seconds things go wrong at most (150), FAULT_SEED repeats a run's faults.
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
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parseaddr
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import psycopg
import pytest
import redis

from app.db import transaction
from app.ledger.bell import get_redis
from app.ops.supervisor import Supervisor, python
from app.ops.system import WORKER
from app.sandbox.stripe import SandboxControl
from app.settings import get_settings
from app.stripe import client as gateway
from tests.conftest import ROOT, cut_all_sessions, free_port, wait_until
from tests.system.scene import Mail

IN_FLIGHT = int(os.environ.get("FAULT_IN_FLIGHT", "500"))
STORM_S = int(os.environ.get("FAULT_STORM_S", "150"))
SEED = int(os.environ.get("FAULT_SEED", str(random.randrange(10**6))))

_SENDERS = 8
_SETTLES_WITHIN_S = 240
"""After the storm. A job that Stripe was away for waits as long again as it has waited, two minutes at most."""

SCHEDULED = "state = 'queued' AND run_at > clock_timestamp() + interval '1 hour'"
"""Jobs of another day: a retry of a charge, the next look at a subscription, housekeeping."""
_OPEN = f"SELECT count(*) FROM jobs WHERE state IN ('queued', 'running', 'retrying', 'held') AND NOT ({SCHEDULED})"


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

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
        self.redis = Redis()
        self.web_port, stripe_port = free_port(), free_port()
        self.mails = home / "mail"
        settings |= {
            "REDIS_URL": f"redis://127.0.0.1:{self.redis.port}/0",
            "STRIPE_API_BASE": f"http://127.0.0.1:{stripe_port}",
            "MAIL_URL": f"file://{self.mails}",
            "PORT": str(self.web_port),
            "SIGNUP_RATE_LIMIT": "1000000/hour",
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        forget_settings()
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

    def keys(self) -> dict[str, str]:
        """The API key that each address has been sent."""
        mails = [Mail.read(file.read_bytes()) for file in self.mails.glob("welcome*.eml")]
        found = {parseaddr(mail.to)[1]: mail.key for mail in mails}
        assert len(found) == len(mails), "somebody was welcomed twice"
        return found

    def stop(self) -> None:
        self.supervisor.stop()
        self.redis.stop()


def forget_settings() -> None:
    """What this process has read of its settings it reads again."""
    for cached in (get_settings, get_redis, gateway.client, gateway._limit):
        cached.cache_clear()


def scalar(query: str) -> Any:
    """The one value that a query returns, asked again while the storm cuts our own connections, too."""
    while True:
        try:
            with transaction() as db:
                return db.exec_driver_sql(query).scalar_one()
        except Exception as error:
            if not isinstance(getattr(error, "orig", error), psycopg.Error):
                raise


@dataclass(frozen=True)
class Post:
    """What is posted to the web process, as often as it takes."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]


class Client:
    """Asks like any good client: again, until it is told 2xx. No answer and 503 are all that it may meet."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.refused: Counter[int] = Counter()

    def post(self, post: Post) -> dict[str, Any]:
        """What the post was accepted with."""
        return self._ask("POST", post.path, json.dumps(post.body), {"Content-Type": "application/json", **post.headers})

    def get(self, path: str, key: str) -> dict[str, Any]:
        """What the customer with that key reads."""
        return self._ask("GET", path, None, {"X-API-Key": key})

    def _ask(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> dict[str, Any]:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
            try:
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                answer: dict[str, Any] = json.loads(response.read())
            except (OSError, http.client.HTTPException):
                continue  # no answer: what was posted may or may not have been accepted
            finally:
                connection.close()
            if response.status in (200, 202):
                return answer
            self.refused[response.status] += 1
            assert response.status == 503, answer
        raise TimeoutError(f"{method} {path} was not accepted within two minutes")


class _Sender(threading.Thread):
    """Posts what nobody else has posted yet, while there is room."""

    def __init__(self, client: Client, posts: "SimpleQueue[Post]", has_room: Callable[[], bool]) -> None:
        super().__init__(name="sender", daemon=True)
        self._client, self._posts, self._has_room = client, posts, has_room
        self.accepted: list[tuple[Post, dict[str, Any]]] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while True:
                wait_until(self._has_room, 300, "room for another job in flight")
                post = self._posts.get_nowait()
                self.accepted.append((post, self._client.post(post)))
        except Empty:
            return
        except BaseException as error:
            self.failure = error


def send(client: Client, posts: Sequence[Post]) -> list[tuple[Post, dict[str, Any]]]:
    """Post all of that, eight at once, until each is accepted; returns what each was answered."""
    left: SimpleQueue[Post] = SimpleQueue()
    for post in posts:
        left.put(post)
    in_flight = scalar(_OPEN)
    senders = [_Sender(client, left, lambda: in_flight < IN_FLIGHT) for _ in range(_SENDERS)]
    for sender in senders:
        sender.start()
    for sender in senders:
        while sender.is_alive():
            sender.join(0.1)
            in_flight = scalar(_OPEN)
    for sender in senders:
        if sender.failure is not None:
            raise sender.failure
    return [answered for sender in senders for answered in sender.accepted]


@dataclass
class Weather:
    """How a run went."""

    faults: Counter[str] = field(default_factory=Counter)
    storm_s: float = 0
    settling_s: float = 0

    def __str__(self) -> str:
        attempts = scalar("SELECT count(*) FROM job_attempts")
        return (
            f"{IN_FLIGHT} jobs in flight, seed {SEED}: {self.storm_s:.0f} s of storm ({dict(self.faults)}), {attempts}"
            f" attempts, all done {self.settling_s:.0f} s after it; the audit against Stripe is clean"
        )


@contextmanager
def storm(scene: Scene) -> Iterator[Weather]:
    """Everything goes wrong while the block runs, for STORM_S at most. Afterwards nothing does, and all work is done
    but what is scheduled for another day."""
    weather = Weather()
    chaos = _Chaos(scene, weather.faults)
    began = time.monotonic()
    chaos.start()
    try:
        yield weather
    finally:
        chaos.end()
        scene.stripe.clear_faults()
        weather.storm_s = chaos.ended - began
    wait_until(lambda: scalar(_OPEN) == 0, _SETTLES_WITHIN_S, "the end of all work")
    weather.settling_s = time.monotonic() - chaos.ended
    lost = "SELECT string_agg(name || ': ' || state || ' ' || coalesce(error_message, ''), '; ') FROM jobs"
    assert scalar(f"{lost} WHERE state IN ('dead', 'cancelled')") is None


class _Chaos(threading.Thread):
    """One fault after another until it is told to end, or for STORM_S; `done` counts them by kind."""

    def __init__(self, scene: Scene, done: Counter[str]) -> None:
        super().__init__(name="chaos", daemon=True)
        self._scene, self._done = scene, done
        self._dice = random.Random(SEED)
        self._end = threading.Event()
        self._failure: BaseException | None = None
        self.ended = 0.0

    def run(self) -> None:
        faults: list[tuple[int, Callable[[], None]]] = [
            (8, self._kill_a_worker),
            (3, self._empty_redis),
            (1, self._restart_redis),
            (2, cut_all_sessions),
            (3, self._lose_answers),
            (2, self._storm_of_errors),
            (1, self._slow_stripe),
            (8, self._mend_stripe),
        ]
        until = time.monotonic() + STORM_S
        deck: list[Callable[[], None]] = []
        try:
            while not self._end.wait(self._dice.uniform(0.1, 0.6)) and time.monotonic() < until:
                if not deck:  # dealt like cards, so that a short storm has some of everything, too
                    deck = [fault for times, fault in faults for _ in range(times)]
                    self._dice.shuffle(deck)
                fault = deck.pop()
                fault()
                self._done[fault.__name__.strip("_")] += 1
        except BaseException as error:
            self._failure = error
        self.ended = time.monotonic()

    def end(self) -> None:
        """Let it be over.

        Raises:
            whatever kept it from doing harm.
        """
        self._end.set()
        self.join(60)
        if self._failure is not None:
            raise self._failure

    def _kill_a_worker(self) -> None:
        """With its master: Dramatiq's waits half a minute for a child that was killed before it had booted."""
        masters = self._scene.supervisor.pids("worker")
        if masters:
            with suppress(ProcessLookupError):
                os.killpg(self._dice.choice(masters), signal.SIGKILL)

    def _empty_redis(self) -> None:
        redis.Redis(port=self._scene.redis.port).flushall()

    def _restart_redis(self) -> None:
        self._scene.redis.stop()
        self._end.wait(self._dice.uniform(0.1, 2))
        self._scene.redis.start()

    def _lose_answers(self) -> None:
        self._scene.stripe.fault("lose", operation="*", count=20)

    def _storm_of_errors(self) -> None:
        errors: list[dict[str, Any]] = [
            {"status": 429, "retry_after": 1},
            {"status": 409},
            {"status": 500},
            {"status": 500, "when": "after"},  # Stripe stores it, and answers the same key with it from then on
        ]
        self._scene.stripe.fault("status", operation="*", count=20, **self._dice.choice(errors))

    def _slow_stripe(self) -> None:
        self._scene.stripe.fault("delay", operation="*", count=20, ms=2000)

    def _mend_stripe(self) -> None:
        """Else few requests would never see the end of the faults, and all would wait for the end of the storm."""
        self._scene.stripe.clear_faults()
