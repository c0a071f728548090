"""How fast signups are accepted, beside a bare Flask view that commits one row."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from app.sandbox.embedded import free_port
from bench.environment import WORKER_ENV, Environment
from bench.report import of_rounds, percentile

_numbers = count(0, 10_000_000)
"""Every load sends signups that nobody has sent before."""

CONNECTIONS = 32


def send_signups(port: int, **options: float) -> dict[str, Any]:
    """Run `bench.load` with `options`; returns what it printed, and `first`, the number of its first signup.

    Raises:
        RuntimeError: an answer was not 202.
    """
    first = next(_numbers)
    arguments = [f"--{name}={value}" for name, value in {"port": port, "first": first, **options}.items()]
    done = subprocess.run([sys.executable, "-m", "bench.load", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout) | {"first": first}
    return result


@contextmanager
def _gunicorn(env: Environment, app: str) -> Iterator[int]:
    """gunicorn with the Procfile's settings; the block gets its port."""
    port = free_port()
    command = ["-m", "gunicorn", "-c", "python:app.intake.server", app]
    with env.process(*command, PORT=str(port), **WORKER_ENV) as server:
        server.wait_for_output("Booting worker", times=2)
        yield port


def measure(env: Environment) -> None:
    """The rate of both, their ratio, and how long a sender of signups waits."""
    seconds, warmup = env.size(6, 2), env.size(2, 1)
    rounds = env.size(4, 1)
    bare, ours, middle, slow = [], [], [], []
    env.clear()
    load = {"connections": CONNECTIONS, "seconds": seconds, "warmup": warmup}
    for number in range(1, rounds + 1):
        env.report.doing(f"intake: the bare view, round {number} of {rounds}")
        with _gunicorn(env, "bench.bare_web:app") as port:
            bare.append(send_signups(port, **load)["rate"])
        env.report.doing(f"intake: signups, round {number} of {rounds}")
        with _gunicorn(env, "web:app") as port:
            accepted = send_signups(port, **load)
        ours.append(accepted["rate"])
        middle.append(percentile(accepted["latencies_ms"], 0.5))
        slow.append(percentile(accepted["latencies_ms"], 0.99))
    stored, jobs = (env.database.value(f"SELECT count(*) FROM {table}") for table in ("signups", "jobs"))
    assert stored == jobs >= sum(ours) * seconds, f"{stored} signups, {jobs} jobs: fewer than were accepted"
    how = f"gunicorn as in the Procfile, {CONNECTIONS} keep-alive connections, {seconds} s a round, no workers"
    ratios = [mine / theirs for mine, theirs in zip(ours, bare, strict=True)]
    env.report.add(of_rounds("signup intake", ours, "requests/s", how=how))
    env.report.add(of_rounds("bare Flask view, one committed row", bare, "requests/s", how=how))
    env.report.add(of_rounds("signup intake to the bare view", ratios, "of bare", target=0.6, how="round by round"))
    env.report.add(of_rounds("signup intake, p50", middle, "ms", how=how))
    env.report.add(of_rounds("signup intake, p99", slow, "ms", target=100, at_most=True, how=how))
