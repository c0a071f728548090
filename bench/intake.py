"""How fast signups, phase events and webhooks are accepted, beside a bare Flask view that commits one row."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from app.customers import accounts, api_keys
from app.db import transaction
from app.sandbox.embedded import free_port
from bench.environment import WORKER_ENV, Environment
from bench.report import of_rounds, percentile

_numbers = count(0, 10_000_000)
"""Every load sends what nobody has sent before."""

CONNECTIONS = 32
_SECRET = "whsec_bench"
_SENDERS = 8
"""Customers whose Actions send phase events."""


def send_signups(port: int, **options: float) -> dict[str, Any]:
    """Run `bench.load` with `options`; returns what it printed, and `first`, the number of its first signup.

    Raises:
        RuntimeError: an answer was not a success.
    """
    return _send(port, [], options)


def _send(port: int, what: Sequence[str], options: Mapping[str, float]) -> dict[str, Any]:
    first = next(_numbers)
    arguments = [f"--{name}={value}" for name, value in {"port": port, "first": first, **options}.items()]
    command = [sys.executable, "-m", "bench.load", *arguments, *what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout) | {"first": first}
    return result


def _customers(number: int) -> list[str]:
    """An API key of each of so many customers."""
    with transaction() as db:
        ids = [
            accounts.create(
                db, email=f"sender-{n}@tallyhook.example.com", name="S", wanted_plan="trial", source="direct"
            )
            for n in range(number)
        ]
        return [api_keys.issue(db, customer_id).secret for customer_id in ids]


@contextmanager
def _gunicorn(env: Environment, app: str) -> Iterator[int]:
    """gunicorn with the Procfile's settings; the block gets its port."""
    port = free_port()
    command = ["-m", "gunicorn", "-c", "python:app.intake.server", app]
    with env.process(*command, PORT=str(port), STRIPE_WEBHOOK_SECRETS=_SECRET, **WORKER_ENV) as server:
        server.wait_for_output("Booting worker", times=2)
        yield port


@dataclass
class _Measured:
    """What the rounds of one kind of request have shown."""

    name: str
    rates: list[float] = field(default_factory=list)
    p50s: list[float] = field(default_factory=list)
    p99s: list[float] = field(default_factory=list)

    def add(self, accepted: dict[str, Any]) -> None:
        """Keep a round."""
        self.rates.append(accepted["rate"])
        self.p50s.append(percentile(accepted["latencies_ms"], 0.5))
        self.p99s.append(percentile(accepted["latencies_ms"], 0.99))

    def report(self, env: Environment, bare: list[float], how: str) -> None:
        """Show the rate, its ratio to the `bare` one round by round, and the waits."""
        ratios = [mine / theirs for mine, theirs in zip(self.rates, bare, strict=True)]
        env.report.add(of_rounds(self.name, self.rates, "requests/s", how=how))
        env.report.add(of_rounds(f"{self.name} to the bare view", ratios, "of bare", target=0.6, how="round by round"))
        env.report.add(of_rounds(f"{self.name}, p50", self.p50s, "ms", how=how))
        env.report.add(of_rounds(f"{self.name}, p99", self.p99s, "ms", target=100, at_most=True, how=how))


def measure(env: Environment) -> None:
    """The rates of signups, phase events and webhooks, each to that of the bare view, and how long their senders
    wait."""
    seconds, warmup = env.size(6, 2), env.size(2, 1)
    rounds = env.size(4, 1)
    env.clear()
    load = {"connections": CONNECTIONS, "seconds": seconds, "warmup": warmup}
    keys = _customers(_SENDERS)
    bare: list[float] = []
    signups, phases, events = _Measured("signup intake"), _Measured("phase intake"), _Measured("webhook intake")
    for number in range(1, rounds + 1):
        env.report.doing(f"intake: the bare view, round {number} of {rounds}")
        with _gunicorn(env, "bench.bare_web:app") as port:
            bare.append(send_signups(port, **load)["rate"])
        env.report.doing(f"intake: signups, round {number} of {rounds}")
        with _gunicorn(env, "web:app") as port:
            signups.add(send_signups(port, **load))
        env.report.doing(f"intake: phase events, round {number} of {rounds}")
        with _gunicorn(env, "web:app") as port:
            phases.add(_send(port, ["--api-keys", *keys], load))
        env.report.doing(f"intake: webhooks, round {number} of {rounds}")
        with _gunicorn(env, "web:app") as port:
            events.add(_send(port, ["--webhook-secret", _SECRET], load))
    kept = (
        (signups, "signups", "create_customer"),
        (phases, "phase_results", "track_fix"),
        (events, "job_keys WHERE starts_with(key, 'stripe:')", "stripe_event"),
    )
    for accepted, table, job in kept:
        stored = env.database.value(f"SELECT count(*) FROM {table}")
        jobs = env.database.value(f"SELECT count(*) FROM jobs WHERE name = '{job}'")
        assert stored == jobs >= sum(accepted.rates) * seconds, f"{stored} {table}, {jobs} jobs: fewer than accepted"
    how = f"gunicorn as in the Procfile, {CONNECTIONS} keep-alive connections, {seconds} s a round, no workers"
    env.report.add(of_rounds("bare Flask view, one committed row", bare, "requests/s", how=how))
    signups.report(env, bare, how)
    phases.report(env, bare, f"{how}; distinct fixes of {_SENDERS} customers")
    events.report(env, bare, f"{how}; signed events of 4 KB")
