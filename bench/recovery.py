"""How soon a killed worker's jobs run again: from SIGKILL to the first line of the second attempt."""

import os
import random
import time
from contextlib import ExitStack

from app.db import transaction
from app.ledger.enqueue import enqueue
from bench.commands import BenchLong
from bench.environment import WORKER_ENV, Environment, Process, wait_for, worker_command
from bench.report import Figure

_JOBS = 4
"""Long jobs at once; those that the killed worker held count."""


def measure(env: Environment) -> None:
    """Seconds until the surviving worker runs the job; the worst of all rounds."""
    rounds = env.size(5, 1)
    env.clear()
    waits: list[float] = []
    with ExitStack() as processes:
        processes.enter_context(env.relay())

        def start_worker() -> Process:
            command = worker_command("bench.ledger_worker", processes=1, threads=8)
            return processes.enter_context(env.process(*command, **WORKER_ENV))

        workers = [start_worker(), start_worker()]
        for number in range(1, rounds + 1):
            env.report.doing(f"recovery: a worker is killed at work, round {number} of {rounds}")
            waits += _round(env, workers, number * _JOBS)
            workers = [worker for worker in workers if worker.alive] + [start_worker()]
        for worker in workers:
            worker.kill()  # it would wait for the first attempts of the others, which never end
    how = f"from SIGKILL to the handler of the second attempt; worst of {len(waits)} jobs in {rounds} rounds"
    env.report.add(
        Figure("recovery of a killed worker's job", max(waits), "s", waits, target=10, at_most=True, how=how)
    )


def _round(env: Environment, workers: list[Process], first: int) -> list[float]:
    with transaction() as db:
        for n in range(first, first + _JOBS):
            enqueue(db, BenchLong(n=n))
    running = "SELECT id::text, lease_owner FROM jobs WHERE state = 'running' AND attempt = 1"
    wait_for(lambda: len(env.database.rows(running)) == _JOBS, "the long jobs", 30)
    time.sleep(random.uniform(0, 3))  # at any phase of the heartbeat
    owners = dict(env.database.rows(running))
    group = {owner: os.getpgid(int(owner.split(":")[-2])) for owner in set(owners.values())}
    victim = next(worker for worker in workers if worker.pid in group.values())
    killed = time.monotonic()
    victim.kill()
    lost = [job for job, owner in owners.items() if group[owner] == victim.pid]
    query = (
        "SELECT monotonic_s FROM bench_starts JOIN jobs ON n = (payload ->> 'n')::bigint AND name = 'bench_long'"
        " WHERE id = ANY(%(lost)s::uuid[])"
    )

    def second_attempts() -> list[float] | None:
        found = env.database.column(query, {"lost": lost})
        return found if len(found) == len(lost) else None

    return [at - killed for at in wait_for(second_attempts, "the second attempt", 60)]
