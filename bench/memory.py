"""Whether a worker's memory grows with the jobs that it has done."""

import re
from pathlib import Path

from bench.drain import PROCESSES, best_threads, fill, wait_for_rows
from bench.environment import WORKER_ENV, Environment, worker_command
from bench.report import Figure


def measure(env: Environment) -> None:
    """Resident memory of each worker process after the first jobs and after ten times as many more."""
    first, more = env.size(10_000, 500), env.size(100_000, 1000)
    command = worker_command("bench.ledger_worker", processes=PROCESSES, threads=best_threads(env))
    env.clear()
    with env.relay(), env.process(*command, **WORKER_ENV) as workers:
        env.report.doing(f"memory: the first {first:,} jobs")
        fill(env.database, 0, first)
        wait_for_rows(env.database, first, workers)
        before = resident(env)
        env.report.doing(f"memory: {more:,} jobs more")
        fill(env.database, first, more)
        wait_for_rows(env.database, first + more, workers)
        after = resident(env)
    assert before.keys() == after.keys(), "a worker process has ended on the way"
    growth = [100 * (after[pid] / before[pid] - 1) for pid in before]
    how = f"{PROCESSES} worker processes; from {first:,} to {first + more:,} jobs; the one that grew most"
    sizes = list(before.values())
    env.report.add(Figure("worker memory after the first jobs", max(sizes), "MiB", sizes, how=how))
    env.report.add(Figure("its growth over the others", max(growth), "%", growth, target=5, at_most=True, how=how))


def resident(env: Environment) -> dict[int, float]:
    """MiB by process, of every worker that has done a job."""
    pids = [int(owner.split(":")[-2]) for owner in env.database.column("SELECT DISTINCT worker FROM job_attempts")]
    found = {}
    for pid in pids:
        match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        assert match is not None
        found[pid] = int(match[1]) / 1024
    return found
