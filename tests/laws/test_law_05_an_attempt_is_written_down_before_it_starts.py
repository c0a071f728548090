"""Law 5: claiming raises the attempt and takes a lease; the attempt number is the fence."""

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID

import psycopg
import pytest

from app.db import get_engine, transaction
from app.ledger.claim import LEASE_S, Claim, claim
from app.ledger.errors import LostLease
from app.ledger.executor import Executor
from app.ledger.run import Run
from app.settings import get_settings
from tests.conftest import wait_until
from tests.ledger.commands import EVENT, Act, leave_effect
from tests.ledger.scene import (
    WORKER,
    begun,
    drain,
    effects,
    effects_per_job,
    give_signal,
    in_threads,
    leases_expire,
    outcomes,
    relay_running,
    show,
    sql,
    state,
    states,
    submit,
    sweep,
    time_passes,
    wait_for_state,
)
from tests.processes import Process, Processes


def _claim(limit: int = 1, owner: str = "somebody") -> list[Claim]:
    with get_engine().connect() as db:
        return claim(db, queue="test", names=["act"], closed=[], owner=owner, limit=limit)


def _finish(claimed: Claim) -> None:
    with get_engine().connect() as db:
        run = Run(db, claimed, Act.model_validate(claimed.payload), "somebody")
        with run.finish() as inner:
            leave_effect(inner, run)


def test_a_claim_raises_the_attempt_and_takes_a_lease_before_anything_runs() -> None:
    [job_id] = submit(Act(n=1))
    before = datetime.now(UTC)
    [claimed] = _claim(owner="worker 7")
    [(attempt, owner, until)] = sql("SELECT attempt, lease_owner, lease_until FROM jobs WHERE id = %(id)s", id=job_id)
    assert (claimed.attempt, attempt, owner) == (1, 1, "worker 7")
    assert until > before + timedelta(seconds=LEASE_S - 1)
    assert show(job_id)["history"][0]["outcome"] == "running"
    assert _claim() == [], "it is taken"


def test_a_job_is_claimed_by_one_of_many_who_ask_at_once() -> None:
    count = 200
    submit(*(Act(n=n) for n in range(count)))
    taken: list[Claim] = []

    def take() -> None:
        while claims := _claim(limit=7):
            taken.extend(claims)

    with in_threads(8, take):
        pass
    assert len(taken) == len({claimed.job_id for claimed in taken}) == count
    assert {claimed.attempt for claimed in taken} == {1}


def test_a_killed_worker_s_job_runs_beside_the_long_job_of_the_worker_that_is_left() -> None:
    [lost] = submit(Act(n=2))
    _claim()
    [long] = submit(Act(n=1, acts=("wait",)))
    executor = Executor([])
    with in_threads(1, lambda: executor.drain("test")):
        wait_until(lambda: begun(1) == 1, what="the long job")
        leases_expire("AND id = %(lost)s", lost=lost)
        sweep()
        time_passes()
        executor.drain("test")
        assert (state(lost), state(long)) == ("succeeded", "running")
        give_signal()


def test_a_worker_that_lost_its_lease_inside_its_last_transaction_commits_nothing_of_it() -> None:
    [job_id] = submit(Act(n=1, acts=("wait_in_finish", "succeed")))
    with in_threads(1, drain):
        wait_until(lambda: begun(1) == 1, what="the first attempt")
        leases_expire()
        sweep()
        assert outcomes(job_id) == ["crashed"]
        time_passes()
        executor = Executor([])
        executor.drain("test")
        assert outcomes(job_id) == ["crashed", "succeeded"]
        give_signal()
    assert effects_per_job() == {1: 1}
    assert sql("SELECT attempt FROM test_effects") == [(2,)]
    assert sql("SELECT key FROM job_keys WHERE key = 'act:1001'") == [], "nor the jobs that it enqueued"
    assert outcomes(job_id) == ["crashed", "succeeded"]


def test_a_worker_that_lost_its_lease_commits_nothing_before_its_last_transaction_either() -> None:
    [job_id] = submit(Act(n=1, acts=("wait_then_write_early", "succeed")))
    with in_threads(1, drain):
        wait_until(lambda: begun(1) == 1, what="the first attempt")
        leases_expire()
        sweep()
        time_passes()
        Executor([]).drain("test")
        assert state(job_id) == "succeeded"
        give_signal()
    assert sql("SELECT attempt FROM test_effects") == [(2,)]


def test_an_old_attempt_cannot_end_a_newer_one() -> None:
    [job_id] = submit(Act(n=1))
    [first] = _claim()
    leases_expire()
    sweep()
    time_passes()
    [second] = _claim()
    with pytest.raises(LostLease):
        _finish(first)
    assert state(job_id) == "running", "the second attempt goes on"
    _finish(second)
    assert effects_per_job() == {1: 1}
    with pytest.raises(LostLease):
        _finish(second)
    assert effects_per_job() == {1: 1}
    assert outcomes(job_id) == ["crashed", "succeeded"]


def test_a_job_that_went_back_to_the_queue_cannot_be_ended_by_the_attempt_that_was_handed_back() -> None:
    [job_id] = submit(Act(n=1, acts=("wait",)))
    executor = Executor([])
    with in_threads(1, executor.drain, "test"):
        wait_until(lambda: begun(1) == 1, what="the attempt")
        executor.stop()
        assert state(job_id) == "queued"
        give_signal()
    assert effects(1) == 0
    assert outcomes(job_id) == ["handed_back"]
    drain()
    assert effects_per_job() == {1: 1}
    assert show(job_id)["attempts"] == 1, "the one that was handed back does not count"


@pytest.mark.usefixtures("real_backoff")  # the promise is one about the real waits
def test_a_killed_worker_s_job_runs_again_on_another_within_10_s_and_has_its_effect_once(processes: Processes) -> None:
    """failures.md 13, once; the fault runs kill many times."""
    [job_id] = submit(Act(n=1, acts=("wait", "succeed")))
    with relay_running():
        first = processes.start_worker(WORKER)
        wait_until(lambda: begun(1) == 1, what="the first attempt")
        processes.start_worker(WORKER)
        first.kill()
        wait_for_state(job_id, "succeeded", timeout_s=10)  # the law's own promise
    assert effects_per_job() == {1: 1}
    history = show(job_id)["history"]
    assert [(a["attempt"], a["outcome"]) for a in history] == [(1, "crashed"), (2, "succeeded")]
    assert history[0]["worker"] != history[1]["worker"]
    assert history[0]["error_kind"] == "crashed"


def _keep_killing(processes: Processes, threads: int) -> None:
    """Be the supervisor that restarts a worker which job 99 kills at each of its three attempts."""
    worker = processes.start_worker(WORKER, threads=threads, ready=False)
    for attempt in (1, 2, 3):
        wait_until(lambda attempt=attempt: begun(99) == attempt, what=f"attempt {attempt} at the killer")
        worker.wait()
        leases_expire()
        worker = processes.start_worker(WORKER, threads=threads, ready=False)


@pytest.mark.usefixtures("real_backoff")
def test_a_job_that_always_kills_its_worker_ends_dead_and_its_neighbours_succeed(processes: Processes) -> None:
    """failures.md 15."""
    neighbours = submit(*(Act(n=n) for n in range(40)))
    [killer] = submit(Act(n=99, acts=("die",)))
    neighbours += submit(*(Act(n=n) for n in range(40, 80)))
    with relay_running():
        _keep_killing(processes, threads=1)
        wait_until(lambda: states() == {"succeeded": 80, "dead": 1}, what="the killer dead, its neighbours done")
    assert set(outcomes(killer)) == {"crashed"}
    assert show(killer)["attempts"] == 3
    assert len(outcomes(killer)) <= 4, "once, at most, it was killed in a batch before its start was written down"
    assert effects_per_job() == dict.fromkeys(range(80), 1)
    assert max(len(outcomes(job_id)) for job_id in neighbours) <= 2, "it takes nobody with it a second time"


@pytest.mark.usefixtures("real_backoff")
def test_a_job_that_kills_its_worker_does_not_take_those_on_other_threads_with_it_to_the_end(
    processes: Processes,
) -> None:
    """They crash with it, are due again with it, and must not run beside it until they are dead with it."""
    [killer] = submit(Act(n=99, acts=("die_in_company",)))
    neighbours = submit(*(Act(n=n, acts=("take_a_while",)) for n in range(7)))
    with relay_running():
        _keep_killing(processes, threads=8)
        wait_for_state(killer, "dead")
        wait_until(lambda: {state(n) for n in neighbours} <= {"succeeded", "dead"}, what="their ends")
    assert [state(n) for n in neighbours] == ["succeeded"] * 7


def test_a_handler_that_exits_is_an_attempt_like_any_other_and_not_a_loop() -> None:
    [job_id] = submit(Act(n=1, acts=("exit",)))
    [neighbour] = submit(Act(n=2))
    for _ in range(3):
        time_passes()
        leases_expire()
        sweep()
        try:
            drain()
        except SystemExit:
            continue  # Dramatiq's threads survive it, too
    leases_expire()
    sweep()
    assert state(job_id) == "dead"
    assert show(job_id)["attempts"] == 3
    drain()
    assert state(neighbour) == "succeeded"


def _frozen_past_its_lease(worker: Process, job_id: UUID) -> bool:
    """Pause the worker until its job is taken back; not if that met its heartbeat in mid-statement, holding the row."""
    worker.pause()
    leases_expire("AND id IN (SELECT id FROM jobs FOR UPDATE SKIP LOCKED)")
    sweep()
    if outcomes(job_id)[0] == "crashed":
        return True
    worker.resume()
    return False


@pytest.mark.usefixtures("real_backoff")
def test_a_worker_paused_past_its_lease_wakes_up_and_its_commit_is_refused(processes: Processes) -> None:
    """failures.md 14."""
    [job_id] = submit(Act(n=1, acts=("wait", "succeed")))
    with relay_running():
        first = processes.start_worker(WORKER)
        wait_until(lambda: begun(1) == 1, what="the first attempt")
        wait_until(lambda: _frozen_past_its_lease(first, job_id), what="the end of the frozen worker's lease")
        processes.start_worker(WORKER)
        wait_for_state(job_id, "succeeded")
        give_signal()
        first.resume()
        first.wait_for_output("job.refused")
    assert sql("SELECT n, attempt FROM test_effects") == [(1, 2)]
    assert outcomes(job_id) == ["crashed", "succeeded"]


def test_a_heartbeat_keeps_the_lease_of_what_runs_and_not_of_a_claim_whose_answer_was_lost() -> None:
    """Rows that a living worker has claimed and never heard of must be taken back like a dead worker's."""
    executor = Executor([])
    [running] = submit(Act(n=1, acts=("wait",)))
    with in_threads(1, executor.drain, "test"):
        wait_until(lambda: begun(1) == 1, what="the attempt")
        [lost] = submit(Act(n=2))
        _claim(owner=executor.owner)
        first = _leases()
        executor.start()
        try:
            wait_until(lambda: _leases()[running] > first[running], what="a heartbeat")
            wait_until(lambda: _leases()[running] - first[running] > timedelta(seconds=3), what="another")
            assert _leases()[lost] == first[lost]
            leases_expire("AND lease_until = %(lost)s", lost=first[lost])
            sweep()
            assert (state(running), state(lost)) == ("running", "retrying")
            give_signal()
            wait_for_state(running, "succeeded")
        finally:
            executor.stop()
    time_passes()
    drain()
    assert (outcomes(running), outcomes(lost)) == (["succeeded"], ["crashed", "succeeded"])
    assert effects_per_job() == {1: 1, 2: 1}


def _leases() -> dict[UUID, datetime]:
    return dict(sql("SELECT id, lease_until FROM jobs WHERE state = 'running'"))


def test_a_heartbeat_needs_no_connection_that_busy_threads_have_taken() -> None:
    """failures.md 42: while running jobs exhaust the pool (20 threads do), their leases must not run out."""
    [job_id] = submit(Act(n=1, acts=("wait_for_event",)))
    url = get_settings().database_url
    assert url is not None
    executor = Executor([])
    EVENT.clear()
    with in_threads(1, executor.drain, "test"), psycopg.connect(url, autocommit=True) as outside, ExitStack() as pool:
        wait_until(lambda: begun(1) == 1, what="the attempt")

        def lease() -> datetime:
            row = outside.execute("SELECT lease_until FROM jobs WHERE id = %s", [job_id]).fetchone()
            assert row is not None
            return cast(datetime, row[0])

        first = lease()
        while get_engine().pool.checkedout() < 20:
            pool.enter_context(get_engine().connect())
        executor.start()
        try:
            wait_until(lambda: lease() > first, timeout_s=LEASE_S, what="a renewed lease")
        finally:
            pool.close()
            EVENT.set()
    executor.stop()
    assert outcomes(job_id) == ["succeeded"]


def test_sigterm_lets_a_short_job_finish(processes: Processes) -> None:
    """failures.md 16."""
    [job_id] = submit(Act(n=1, acts=("wait",)))
    worker = processes.start_worker(WORKER, threads=2)
    wait_until(lambda: begun(1) == 1, what="the attempt")
    worker.terminate()
    worker.wait_for_output("Sending signal")
    [later] = submit(Act(n=2))
    give_signal()
    wait_for_state(job_id, "succeeded")
    worker.wait()
    assert outcomes(job_id) == ["succeeded"]
    assert effects(1) == 1
    drain()
    assert {*outcomes(later)} <= {"handed_back", "succeeded"}, "whether it was begun or not"
    assert effects_per_job() == {1: 1, 2: 1}


def test_sigterm_hands_a_long_job_back_and_no_attempt_is_lost(processes: Processes) -> None:
    [job_id] = submit(Act(n=1, acts=("wait", "succeed")))
    others = submit(*(Act(n=n) for n in range(2, 12)))
    worker = processes.start_worker(WORKER, threads=1, shutdown_timeout_s=0.5)
    wait_until(lambda: begun(1) == 1, what="the attempt")
    worker.terminate()
    worker.wait()
    assert state(job_id) == "queued"
    assert outcomes(job_id) == ["handed_back"]
    drain()
    assert states() == {"succeeded": 1 + len(others)}
    assert outcomes(job_id) == ["handed_back", "succeeded"]
    assert show(job_id)["attempts"] == 1
    assert {show(other)["attempts"] for other in others} == {1}
    assert effects_per_job() == dict.fromkeys(range(1, 12), 1)


def test_what_was_claimed_along_with_a_slow_job_is_handed_to_others() -> None:
    """A claim takes several quick jobs; when the first turns out slow, the others do not wait for it."""
    executor = Executor([])
    submit(*(Act(n=n) for n in range(100)))
    while states() != {"succeeded": 100}:
        executor.drain("test")  # it learns that these are quick
    executor._mean_s["test"] = min(executor._mean_s["test"], 0.03)  # also where this machine paused meanwhile
    [slow] = submit(Act(n=100, acts=("wait",)))
    submit(*(Act(n=n) for n in range(101, 106)))
    executor.start()
    try:
        with in_threads(1, executor.drain, "test"):
            wait_until(lambda: begun(100) == 1, what="the slow job")
            assert sql("SELECT sum(attempt) FROM jobs WHERE state <> 'succeeded'")[0][0] > 1, "this test wants a batch"
            wait_until(lambda: states().get("queued") == 5, what="the others handed back")
            drain()
            assert states() == {"succeeded": 105, "running": 1}
            give_signal()
    finally:
        executor.stop()
    assert outcomes(slow) == ["succeeded"]
    assert effects_per_job() == dict.fromkeys(range(106), 1)


def test_a_transaction_is_open_for_no_longer_than_a_handler_opens_it() -> None:
    [job_id] = submit(Act(n=1, acts=("wait",)))
    with in_threads(1, drain):
        wait_until(lambda: begun(1) == 1, what="the attempt")
        wait_until(
            lambda: (
                not sql(
                    "SELECT 1 FROM pg_stat_activity"
                    " WHERE state = 'idle in transaction' AND datname = current_database()"
                )
            ),
            what="no open transaction while the handler waits",
        )
        give_signal()
    with transaction() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM jobs WHERE state = 'succeeded'").scalar_one() == 1
    assert state(job_id) == "succeeded"
