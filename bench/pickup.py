"""How soon an idle worker begins a job: from before the enqueuing transaction to the handler's first line."""

import random
import time
from functools import partial

from app.db import transaction
from app.ledger.enqueue import enqueue
from bench.commands import BenchStart
from bench.environment import WORKER_ENV, Environment, wait_for, worker_command
from bench.report import Figure, percentile


def measure(env: Environment) -> None:
    """Milliseconds from enqueue to handler, one job at a time, with two idle workers as `up` starts them."""
    jobs, first = env.size(300, 30), 10
    env.clear()
    command = worker_command("bench.ledger_worker", processes=1, threads=8)
    with env.relay(), env.process(*command, **WORKER_ENV) as one, env.process(*command, **WORKER_ENV) as other:
        waits = []
        env.report.doing(f"pickup: {jobs} single jobs, each when everything is idle")
        for n in range(first + jobs):
            one.check()
            other.check()
            began = time.monotonic()
            with transaction() as db:
                enqueue(db, BenchStart(n=n))
            started = wait_for(partial(_started, env, n), f"the start of job {n}", 30, every_s=0.01)
            if n >= first:
                waits.append(1000 * (started - began))
            time.sleep(random.uniform(0.02, 0.08))  # at no fixed phase of whatever ticks in a worker
    how = f"from before the enqueuing transaction; {jobs} single jobs, 2 idle workers of 8 threads"
    for share, target in ((0.5, 10), (0.99, 30)):
        name = f"idle pickup, p{share * 100:.0f}"
        env.report.add(Figure(name, percentile(waits, share), "ms", target=target, at_most=True, how=how))


def _started(env: Environment, n: int) -> float | None:
    started: float | None = env.database.value("SELECT monotonic_s FROM bench_starts WHERE n = %(n)s", {"n": n})
    return started
