"""How fast workers empty a queue of one-write jobs, beside bare Dramatiq doing the same."""

from functools import cache

from app.db import transaction
from app.ledger.enqueue import enqueue
from bench.commands import BenchWrite
from bench.environment import WORKER_ENV, Database, Environment, Process, wait_for, worker_command
from bench.report import of_rounds

PROCESSES = 2
HOW = "first to last 10 % of the rows left out; 2 worker processes, relay, log lines to a file"

# Both sides are timed alike: by the clock of the database, as their rows are written, from the first
# tenth to the last one, so that neither the start of the processes nor the last stragglers count.
_RATE = """
WITH placed AS (SELECT written_at, percent_rank() OVER (ORDER BY written_at) AS place FROM bench_rows)
SELECT count(*) / extract(epoch FROM max(written_at) - min(written_at))::float8
FROM placed WHERE place BETWEEN 0.1 AND 0.9
"""


def fill(database: Database, first: int, jobs: int) -> None:
    """Enqueue BenchWrite number `first`, `first` + 1, …, a thousand a transaction."""
    with database.engine.connect() as db:
        for start in range(first, first + jobs, 1000):
            with transaction(db):
                for n in range(start, min(start + 1000, first + jobs)):
                    enqueue(db, BenchWrite(n=n))


def wait_for_rows(database: Database, rows: int, process: Process) -> None:
    """Wait until that many rows are written."""

    def written() -> bool:
        process.check()
        return bool(database.value("SELECT count(*) >= %(rows)s FROM bench_rows", {"rows": rows}))

    wait_for(written, f"{rows} rows", timeout_s=600, every_s=0.2)


def drain_ledger(env: Environment, database: Database, jobs: int, threads: int, first: int = 0) -> float:
    """Jobs a second through the ledger's workers."""
    env.redis.flushdb()
    with database.engine.begin() as db:
        db.exec_driver_sql("TRUNCATE bench_rows")
    fill(database, first, jobs)
    database.tidy()
    command = worker_command("bench.ledger_worker", processes=PROCESSES, threads=threads)
    with env.relay(database), env.process(*command, DATABASE_URL=database.url, **WORKER_ENV) as workers:
        wait_for_rows(database, jobs, workers)
    done = database.value("SELECT count(*) FROM jobs WHERE name = 'bench_write' AND state <> 'succeeded'")
    assert done == 0, f"{done} jobs have not succeeded"
    return float(database.value(_RATE))


def drain_bare(env: Environment, jobs: int, threads: int) -> float:
    """Jobs a second through Dramatiq alone."""
    from bench.bare_worker import write

    env.clear()
    for n in range(jobs):
        write.send(n)
    with env.process(*worker_command("bench.bare_worker", processes=PROCESSES, threads=threads)) as workers:
        wait_for_rows(env.database, jobs, workers)
    return float(env.database.value(_RATE))


@cache
def best_threads(env: Environment) -> int:
    """Threads a process with which the ledger drains faster: 4 or 8."""
    jobs = env.size(6000, 800)
    rates = {}
    for threads in (4, 8):
        env.report.doing(f"drain: trying {PROCESSES} processes of {threads} threads")
        env.clear()
        rates[threads] = drain_ledger(env, env.database, jobs, threads)
    return max(rates, key=lambda threads: rates[threads])


def measure(env: Environment) -> None:
    """The drain of the ledger, of bare Dramatiq, and their ratio."""
    threads = best_threads(env)
    jobs = env.size(12_000, 1500)
    ledger, bare = [], []
    rounds = env.size(4, 1)
    for number in range(1, rounds + 1):
        env.report.doing(f"drain: {jobs} jobs by bare Dramatiq, round {number} of {rounds}")
        bare.append(drain_bare(env, jobs, threads))
        env.report.doing(f"drain: {jobs} jobs by the ledger, round {number} of {rounds}")
        env.clear()
        ledger.append(drain_ledger(env, env.database, jobs, threads))
    how = f"{HOW}; {threads} threads each; {jobs} jobs a round"
    ratios = [ours / theirs for ours, theirs in zip(ledger, bare, strict=True)]
    env.report.add(of_rounds("drain of a one-write job, full ledger", ledger, "jobs/s", target=1200, how=how))
    env.report.add(of_rounds("bare Dramatiq, the same job", bare, "jobs/s", how=how))
    env.report.add(of_rounds("full ledger to bare Dramatiq", ratios, "of bare", target=0.7, how="round by round"))
