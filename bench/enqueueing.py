"""How fast one client enqueues, each job in a transaction of its own."""

import time

from app.db import transaction
from app.ledger.enqueue import enqueue
from bench.commands import BenchWrite
from bench.environment import Environment
from bench.report import of_rounds


def measure(env: Environment) -> None:
    """Jobs a second, each committed, and the bell rung for it."""
    jobs = env.size(4000, 500)
    rates = []
    for number in range(env.size(5, 1)):
        env.report.doing(f"enqueue: {jobs} jobs, round {number + 1}")
        env.clear()
        for n in range(100):
            _one(-n - 1)
        began = time.perf_counter()
        for n in range(jobs):
            _one(n)
        rates.append(jobs / (time.perf_counter() - began))
    how = f"one client, a transaction a job, {jobs} jobs a round"
    env.report.add(of_rounds("enqueue", rates, "jobs/s", target=1000, how=how))


def _one(n: int) -> None:
    with transaction() as db:
        enqueue(db, BenchWrite(n=n))
