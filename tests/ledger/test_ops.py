"""What a person may do to a job: requeue, cancel, release; and what they may not."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest

from app.db import transaction
from app.ledger import ops
from app.ledger.bell import get_redis
from tests.conftest import wait_until
from tests.ledger.commands import Act, OtherAct
from tests.ledger.scene import (
    begun,
    drain,
    effects,
    effects_per_job,
    give_signal,
    in_threads,
    outcomes,
    show,
    sql,
    state,
    states,
    submit,
    time_passes,
)


def _requeue(job_id: UUID) -> None:
    with transaction() as db:
        ops.requeue(db, job_id, actor="ada")


def _cancel(job_id: UUID) -> None:
    with transaction() as db:
        ops.cancel(db, job_id, actor="ada")


def test_a_requeue_gives_a_dead_job_a_new_budget_and_keeps_its_history() -> None:
    [job_id] = submit(Act(n=1, acts=("transient",) * 5 + ("succeed",)))
    for _ in range(3):
        time_passes()
        drain()
    assert state(job_id) == "dead"
    _requeue(job_id)
    wait_until(lambda: get_redis().llen("dramatiq:test") == 1, what="the ring that wakes a worker")
    assert show(job_id)["attempts"] == 0
    for _ in range(3):
        time_passes()
        drain()
    assert outcomes(job_id) == ["retrying", "retrying", "dead", "retrying", "retrying", "succeeded"]
    assert [attempt["attempt"] for attempt in show(job_id)["history"]] == [1, 2, 3, 4, 5, 6]
    assert show(job_id)["attempts"] == 3
    assert effects(1) == 1


@pytest.mark.usefixtures("real_backoff")
def test_a_requeued_job_that_fails_once_is_tried_again_as_soon_as_a_new_one() -> None:
    [job_id] = submit(Act(n=1, acts=("transient",)))
    for _ in range(3):
        time_passes()
        drain()
    for requeues in range(1, 4):
        _requeue(job_id)
        drain()
        assert show(job_id)["attempts"] == 1
        assert sql("SELECT run_at - clock_timestamp() <= interval '1 s' FROM jobs WHERE id = %(id)s", id=job_id) == [
            (True,)
        ], f"after {requeues} requeues"
        for _ in range(2):
            time_passes()
            drain()
        assert state(job_id) == "dead"


def test_a_job_that_succeeded_cannot_be_requeued() -> None:
    """failures.md 39."""
    [job_id] = submit(Act(n=1))
    drain()
    with pytest.raises(ops.NotAllowed, match="it has succeeded"):
        _requeue(job_id)
    drain()
    assert effects(1) == 1


@pytest.mark.parametrize("act", ["transient", "held", "busy_later"])
def test_a_job_that_is_not_over_cannot_be_requeued(act: str) -> None:
    [job_id] = submit(Act(n=1, acts=(act,)))
    drain()
    before = state(job_id)
    with pytest.raises(ops.NotAllowed):
        _requeue(job_id)
    assert state(job_id) == before


def test_a_running_job_can_be_neither_requeued_nor_cancelled_nor_released() -> None:
    [job_id] = submit(Act(n=1, acts=("wait",)))
    with in_threads(1, drain):
        wait_until(lambda: begun(1) == 1, what="the attempt")
        for do in (ops.requeue, ops.cancel, ops.release):
            with pytest.raises(ops.NotAllowed, match="running"), transaction() as db:
                do(db, job_id, actor="ada")
        give_signal()
    assert outcomes(job_id) == ["succeeded"]


def test_two_operators_who_requeue_the_same_job_at_once_requeue_it_once() -> None:
    [job_id] = submit(Act(n=1, acts=("permanent", "succeed")))
    drain()

    def requeue(_: int) -> str:
        try:
            _requeue(job_id)
        except ops.NotAllowed:
            return "refused"
        return "requeued"

    with ThreadPoolExecutor(8) as pool:
        answers = Counter(pool.map(requeue, range(8)))
    assert answers == {"requeued": 1, "refused": 7}
    drain()
    assert outcomes(job_id) == ["dead", "succeeded"]
    assert effects(1) == 1
    assert len(show(job_id)["operators"]) == 1


def test_a_cancelled_job_does_not_run_until_a_requeue_undoes_it() -> None:
    [queued, retrying, held] = submit(
        Act(n=1), Act(n=2, acts=("transient", "succeed")), Act(n=3, acts=("held", "succeed"))
    )
    _cancel(queued)
    drain()
    _cancel(retrying)
    _cancel(held)
    time_passes()
    drain()
    assert states() == {"cancelled": 3}
    assert effects_per_job() == {}
    for job_id in (queued, retrying, held):
        _requeue(job_id)
    drain()
    assert effects_per_job() == {1: 1, 2: 1, 3: 1}


def test_a_cancelled_job_still_refuses_a_duplicate() -> None:
    [job_id] = submit(Act(n=1))
    _cancel(job_id)
    assert submit(Act(n=1)) == [job_id]
    assert states() == {"cancelled": 1}


def test_what_is_done_to_a_job_that_does_not_exist_is_said_so() -> None:
    for do in (ops.requeue, ops.cancel, ops.release):
        with pytest.raises(ops.NoSuchJob), transaction() as db:
            do(db, uuid4(), actor="ada")


def test_a_paced_requeue_is_due_later() -> None:
    """failures.md 39: a bulk requeue is spread by giving each job its delay."""
    ids = submit(*(Act(n=n, acts=("permanent", "succeed")) for n in range(5)))
    drain()
    with transaction() as db:
        found = ops.matching(db, ops.JobFilter(state="dead", queue="test"))
        assert found == ids
        for place, job_id in enumerate(found):
            ops.requeue(db, job_id, actor="ada", delay_s=place * 3600)
    drain()
    assert states() == {"succeeded": 1, "queued": 4}
    time_passes()
    drain()
    assert effects_per_job() == dict.fromkeys(range(5), 1)


def test_jobs_are_found_by_what_ops_know_of_them() -> None:
    submit(Act(n=1, acts=("permanent",)), Act(n=2, acts=("bug",)), OtherAct(n=3))
    drain()

    def keys(wanted: ops.JobFilter) -> list[str]:
        with transaction() as db:
            return [job["key"] for job in ops.list_jobs(db, wanted)]

    assert keys(ops.JobFilter(state="dead")) == ["act:1"]
    assert keys(ops.JobFilter(error="permanent")) == ["act:1"]
    assert keys(ops.JobFilter(error="MISTAKE")) == ["act:2"]
    assert keys(ops.JobFilter(error="100%")) == []
    assert keys(ops.JobFilter(queue="test_other")) == ["other_act:3"]
    assert keys(ops.JobFilter(name="act")) == ["act:2", "act:1"], "newest first"


def test_the_queues_are_counted_as_they_are() -> None:
    submit(Act(n=1, acts=("permanent",)), Act(n=2, acts=("held",)), Act(n=3, acts=("bug",)))
    drain()
    submit(Act(n=4))
    with transaction() as db:
        ops.pause_queue(db, "test", actor="ada")
        [queue] = [queue for queue in ops.overview(db) if queue["name"] == "test"]
    assert queue.pop("oldest_age_s") > 0
    assert queue == {
        "name": "test",
        "state": "paused",
        "waiting": 1,
        "scheduled": 1,
        "running": 0,
        "held": 1,
        "dead": 1,
    }
