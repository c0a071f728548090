"""Law 4: a job's writes, the jobs that it enqueues and its own success are one transaction."""

import psycopg
from structlog.contextvars import bound_contextvars

from app.db import get_engine
from app.settings import get_settings
from tests.conftest import cut_all_sessions, wait_until
from tests.ledger.commands import Act
from tests.ledger.scene import (
    WORKER,
    begun,
    drain,
    effects,
    effects_per_job,
    give_signal,
    in_threads,
    outcomes,
    relay_running,
    show,
    sql,
    state,
    states,
    submit,
    time_passes,
)
from tests.processes import Processes


def test_an_attempt_that_fails_leaves_neither_its_effect_nor_the_jobs_it_enqueued() -> None:
    [job_id] = submit(Act(n=1, acts=("fail_with_effect", "enqueue_next")))
    drain()
    assert states() == {"retrying": 1}
    assert effects(1) == 0
    assert sql("SELECT key FROM job_keys WHERE key = 'act:1001'") == []
    time_passes()
    drain()
    assert outcomes(job_id) == ["retrying", "succeeded"]
    assert effects_per_job() == {1: 1, 1001: 1}


def test_nobody_sees_the_effect_before_the_success() -> None:
    [job_id] = submit(Act(n=1, acts=("wait_in_finish",)))
    with in_threads(1, drain):
        wait_until(lambda: begun(1) == 1, what="the attempt")
        wait_until(
            lambda: sql(
                "SELECT 1 FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()"
            ),
            what="the handler's last transaction",
        )
        assert (effects(1), state(job_id)) == (0, "running")
        assert sql("SELECT id FROM jobs WHERE key = 'act:1001'") == []
        give_signal()
    assert effects_per_job() == {1: 1, 1001: 1}
    assert states() == {"succeeded": 2}


def test_a_handler_without_an_effect_succeeds_all_the_same() -> None:
    [job_id] = submit(Act(n=1, acts=("do_nothing",)))
    drain()
    assert outcomes(job_id) == ["succeeded"]


def test_the_correlation_id_runs_from_the_request_through_every_job_that_follows() -> None:
    with bound_contextvars(correlation_id="req-7", origin="POST /signups"):
        [first] = submit(Act(n=1, acts=("enqueue_next",)))
    drain()
    [(second,)] = sql("SELECT id FROM jobs WHERE key = 'act:1001'")
    assert show(first)["correlation_id"] == show(second)["correlation_id"] == "req-7"
    assert show(first)["enqueued_by"] == "POST /signups"
    assert show(second)["enqueued_by"] == f"job:act:{first}"


def test_postgresql_sessions_cut_in_mid_load_leave_every_job_done_and_each_effect_once(processes: Processes) -> None:
    """failures.md 12, without the senders."""
    count = 400
    submit(*(Act(n=n, acts=("enqueue_next",)) for n in range(count)))
    processes.start_worker(WORKER, threads=4)
    with relay_running():
        for done in (20, 150, 400):
            wait_until(lambda done=done: _succeeded() >= done, what=f"{done} jobs done")
            cut_all_sessions()
            get_engine().dispose()
        wait_until(lambda: _succeeded() == 2 * count, 60, "every job done")
    assert effects_per_job() == dict.fromkeys([*range(count), *range(1000, 1000 + count)], 1)


def _succeeded() -> int:
    url = get_settings().database_url
    assert url is not None
    with psycopg.connect(url) as db:
        row = db.execute("SELECT count(*) FROM jobs WHERE queue = 'test' AND state = 'succeeded'").fetchone()
    assert row is not None
    return int(row[0])
