"""Law 1, where it concerns the ledger: a job exists if, and only if, the caller's transaction committed."""

import psycopg
import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.db import after_commit, get_engine, transaction
from app.ledger.enqueue import enqueue
from app.settings import get_settings
from tests.ledger.commands import Act, OtherAct
from tests.ledger.scene import drain, effects, relay_running, sql, states, submit, wait_for_state
from tests.processes import Processes


def test_a_job_is_seen_by_others_once_the_caller_has_committed_and_not_before() -> None:
    with transaction() as db:
        enqueue(db, Act(n=1))
        assert states() == {}, "another session sees a job that nobody has committed"
    assert states() == {"queued": 1}


def _enqueue_and_fail() -> None:
    with transaction() as db:
        enqueue(db, Act(n=1))
        raise ZeroDivisionError


def test_enqueue_rolls_back_with_its_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        _enqueue_and_fail()
    assert states() == {}
    assert sql("SELECT key FROM job_keys") == [], "the key of a job that does not exist would refuse the next"
    submit(Act(n=1))
    assert states() == {"queued": 1}


def _enqueue_and_lose_the_session() -> None:
    url = get_settings().database_url
    assert url is not None
    with transaction() as db:
        enqueue(db, Act(n=1))
        backend = db.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        with psycopg.connect(url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])


def test_a_commit_that_fails_is_an_error_to_the_caller_and_leaves_nothing() -> None:
    with pytest.raises(DBAPIError):
        _enqueue_and_lose_the_session()
    assert states() == {}
    assert sql("SELECT key FROM job_keys") == []


def test_nothing_is_done_after_a_rollback_not_even_by_the_next_transaction_of_that_connection() -> None:
    rung: list[str] = []

    def fail(db: Connection) -> None:
        with transaction(db):
            after_commit(db, lambda: rung.append("rolled back"))
            raise ZeroDivisionError

    with get_engine().connect() as db:
        with pytest.raises(ZeroDivisionError):
            fail(db)
        with transaction(db):
            after_commit(db, lambda: rung.append("committed"))
            assert rung == []
    assert rung == ["committed"]


def test_a_job_whose_bell_cannot_be_rung_is_kept_all_the_same_and_runs(processes: Processes) -> None:
    """failures.md 11: the commit succeeds and the Redis publish fails."""
    processes.start_worker("tests.ledger.worker")
    sender = processes.start_python(
        "from tests.ledger.scene import submit; from tests.ledger.commands import Act; print(submit(Act(n=1)))",
        REDIS_URL="redis://127.0.0.1:1/0",
    )
    assert sender.wait() == 0, sender.output
    assert "bell.silent" in sender.output
    [(job_id,)] = sql("SELECT id FROM jobs WHERE queue = 'test'")
    with relay_running():
        wait_for_state(job_id, "succeeded")
    assert effects(1) == 1


def test_a_job_that_many_callers_accept_at_once_is_there_for_each_of_them() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        accepted = list(pool.map(lambda n: submit(Act(n=n), OtherAct(n=n)), range(100)))
    kept = {job_id for (job_id,) in sql("SELECT id FROM jobs WHERE queue LIKE 'test%%'")}
    assert {job_id for ids in accepted for job_id in ids} == kept
    drain("test")
    drain("test_other")
    assert states() == {"succeeded": 200}
