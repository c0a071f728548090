"""Whether a ledger with a million finished jobs drains as fast as an empty one."""

from bench.drain import HOW, best_threads, drain_ledger
from bench.environment import Database, Environment
from bench.report import of_rounds

# As a month of work leaves it: ids, keys and attempts in the order of time, nothing of it due.
_FINISHED = """
WITH made AS (
    SELECT n, clock_timestamp() - make_interval(secs => (%(count)s - n + 1) * 2.5) AS at
    FROM generate_series(1, %(count)s) AS n
), numbered AS (
    SELECT n, at, (lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0')
                   || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid AS id
    FROM made
), job AS (
    INSERT INTO jobs (id, name, queue, key, payload, state, attempt, max_attempts, run_at, correlation_id,
                      enqueued_by, created_at, started_at, finished_at)
    SELECT id, 'bench_write', 'bench', 'bench_write:old:' || n, jsonb_build_object('n', -n), 'succeeded', 1, 20, at,
           md5(n::text), 'POST /api/v1/customers', at, at + interval '5 ms', at + interval '9 ms'
    FROM numbered
), attempt AS (
    INSERT INTO job_attempts (job_id, attempt, started_at, ended_at, worker, outcome)
    SELECT id, 1, at + interval '5 ms', at + interval '9 ms', 'worker-1:4711:abcdef', 'succeeded' FROM numbered
)
INSERT INTO job_keys (key, job_id, created_at) SELECT 'bench_write:old:' || n, id, at FROM numbered
"""


def _grow(database: Database, count: int) -> None:
    with database.engine.begin() as db:
        db.exec_driver_sql("SET LOCAL statement_timeout = 0")
        db.exec_driver_sql(_FINISHED, {"count": count})
    database.tidy()


def measure(env: Environment) -> None:
    """Both drains, in turns, and the slower one's share of the other."""
    threads = best_threads(env)
    finished, jobs, rounds = env.size(1_000_000, 20_000), env.size(10_000, 1500), env.size(3, 1)
    empty, full = [], []
    with env.scratch_database("bench_million") as old:
        env.report.doing(f"million: writing {finished:,} finished jobs")
        _grow(old, finished)
        for number in range(1, rounds + 1):
            env.report.doing(f"million: {jobs} jobs on an empty ledger, round {number} of {rounds}")
            env.clear()
            empty.append(drain_ledger(env, env.database, jobs, threads))
            env.report.doing(f"million: {jobs} jobs beside {finished:,} finished ones, round {number} of {rounds}")
            full.append(drain_ledger(env, old, jobs, threads, first=number * jobs))
    how = f"{HOW}; {threads} threads each; {jobs} jobs a round"
    ratios = [beside / alone for beside, alone in zip(full, empty, strict=True)]
    env.report.add(of_rounds("drain of an empty ledger", empty, "jobs/s", how=how))
    env.report.add(of_rounds(f"drain beside {finished:,} finished jobs", full, "jobs/s", how=how))
    env.report.add(of_rounds("the same, to the empty ledger", ratios, "of empty", target=0.9, how="round by round"))
