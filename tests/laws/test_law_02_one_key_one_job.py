"""Law 2: a deduplication key is unique in the database."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from app.db import transaction
from app.ledger.enqueue import Enqueued, enqueue
from app.ledger.retention import JOBS_KEPT, prune_jobs
from tests.conftest import wait_until
from tests.ledger.commands import Act, OtherAct
from tests.ledger.scene import drain, effects, sql, state, states, submit


def test_a_second_submission_answers_with_the_first_ones_job() -> None:
    with transaction() as db:
        first = enqueue(db, Act(n=1))
    with transaction() as db:
        second = enqueue(db, Act(n=1, acts=("transient",)))
    assert first == Enqueued(first.job_id, duplicate=False)
    assert second == Enqueued(first.job_id, duplicate=True)
    drain()
    assert effects(1) == 1
    with transaction() as db:
        assert enqueue(db, Act(n=1)) == Enqueued(first.job_id, duplicate=True), "also when it has been done"
    assert state(first.job_id) == "succeeded"


def test_twice_in_one_transaction_is_one_job() -> None:
    with transaction() as db:
        assert enqueue(db, Act(n=1)).job_id == enqueue(db, Act(n=1)).job_id
    assert states() == {"queued": 1}


def test_a_key_is_one_job_whatever_kind_of_job_it_is_given_for() -> None:
    with transaction() as db:
        first = enqueue(db, Act(n=1), key="the same")
        second = enqueue(db, OtherAct(n=2), key="the same")
    assert second == Enqueued(first.job_id, duplicate=True)


def test_submissions_at_the_same_instant_make_one_row() -> None:
    for round_ in range(20):
        barrier = threading.Barrier(8)

        def submit_at_once(key: str, barrier: threading.Barrier = barrier) -> Enqueued:
            with transaction() as db:
                barrier.wait()
                return enqueue(db, Act(n=1), key=key)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(submit_at_once, [f"round {round_}"] * 8))
        assert len({answer.job_id for answer in answers}) == 1
        assert [answer.duplicate for answer in answers].count(False) == 1
    assert states() == {"queued": 20}


def test_a_second_submission_waits_for_the_first_and_takes_its_place_when_that_one_rolls_back() -> None:
    with ThreadPoolExecutor(1) as pool:
        try:
            with transaction() as db:
                abandoned = enqueue(db, Act(n=1))
                waiting = pool.submit(submit, Act(n=1))
                wait_until(
                    lambda: sql(
                        "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                        " AND query LIKE '%%job_keys%%' AND datname = current_database()"
                    ),
                    what="the second submission's wait",
                )
                raise ZeroDivisionError
        except ZeroDivisionError:
            [kept] = waiting.result(timeout=30)
    assert kept != abandoned.job_id
    assert states() == {"queued": 1}
    assert state(kept) == "queued"


def test_a_key_outlives_its_job_so_that_a_late_duplicate_is_still_refused() -> None:
    [job_id] = submit(Act(n=1))
    drain()
    with transaction() as db:
        prune_jobs(db, now=datetime.now(UTC) + JOBS_KEPT + timedelta(hours=1))
    assert states() == {}
    with transaction() as db:
        assert enqueue(db, Act(n=1)) == Enqueued(job_id, duplicate=True)
    assert states() == {}
