"""Law 7: jobs with the same `serialize_by` never run at once, on any machine; others never wait for them."""

import psycopg
import pytest
from sqlalchemy.exc import IntegrityError

from app.db import transaction
from app.ledger import ops
from app.ledger.executor import Executor
from tests.conftest import wait_until
from tests.ledger.commands import EVENT, Act, Turn
from tests.ledger.scene import (
    WORKER,
    begun,
    drain,
    effects,
    give_signal,
    in_threads,
    leases_expire,
    outcomes,
    relay_running,
    sql,
    state,
    states,
    submit,
    sweep,
    time_passes,
    wait_for_state,
)
from tests.processes import Processes

_OVERLAPS = """
SELECT a.key, a.n, b.n FROM test_spans a JOIN test_spans b ON a.key = b.key AND a.n < b.n
WHERE tstzrange(a.began, a.ended) && tstzrange(b.began, b.ended)
"""


def test_two_processes_of_eight_threads_never_run_two_of_one_line_at_once(processes: Processes) -> None:
    lines = [f"customer:{c}" for c in range(5)]
    submit(*(Turn(n=n, line=line) for n in range(40) for line in lines))
    processes.start_worker(WORKER, processes=2, threads=8)
    with relay_running():
        wait_until(lambda: states() == {"succeeded": 200}, what="200 turns taken")
    assert sql("SELECT count(*), count(ended) FROM test_spans") == [(200, 200)]
    assert sql(_OVERLAPS) == []
    crossing = sql(_OVERLAPS.replace("a.key = b.key", "a.key < b.key"))
    assert crossing, "different lines do run at once, else this test has shown nothing"


def test_many_threads_that_claim_one_line_at_the_same_instant_get_one_job() -> None:
    for round_ in range(10):
        line = f"customer:{round_}"
        submit(*(Act(n=round_ * 100 + n, acts=("wait_for_event",), line=line) for n in range(20)))
    EVENT.clear()
    executor = Executor([])
    with in_threads(15, executor.drain, "test"):
        wait_until(lambda: states().get("running") == 10, what="one of each line at work")
        assert sql("SELECT serialize_by FROM jobs WHERE state = 'running' GROUP BY 1 HAVING count(*) > 1") == []
        EVENT.set()
    with relay_running():
        wait_until(lambda: drain() or states() == {"succeeded": 200}, what="every job done")
    assert sql("SELECT count(*) FROM test_effects") == [(200,)]


def test_the_database_itself_refuses_a_second_of_one_line() -> None:
    submit(Act(n=1, line="customer:1"), Act(n=2, line="customer:1"))
    with pytest.raises(IntegrityError) as caught:
        sql(
            "UPDATE jobs SET state = 'running', lease_owner = 'x', lease_until = clock_timestamp() WHERE queue = 'test'"
        )
    assert isinstance(caught.value.orig, psycopg.errors.UniqueViolation)


def test_ten_thousand_jobs_of_one_customer_do_not_delay_another_s() -> None:
    """failures.md 41: told by what is claimed, not by a clock."""
    sql(
        """INSERT INTO jobs (id, name, queue, key, payload, max_attempts, serialize_by)
           SELECT gen_random_uuid(), 'act', 'test', 'crowd:' || n,
                  jsonb_build_object('n', 100000 + n, 'acts', jsonb_build_array('wait'), 'line', 'crowd'), 3, 'crowd'
           FROM generate_series(1, 10000) AS n"""
    )
    others = submit(*(Act(n=n, line=f"customer:{n}") for n in range(20)))
    with in_threads(1, drain):
        wait_until(lambda: states().get("running") == 1, what="the first of the crowd at work")
        drain()
        assert [state(other) for other in others] == ["succeeded"] * 20
        assert states()["running"] == 1
        [late] = submit(Act(n=30, line="customer:30"))
        drain()
        assert state(late) == "succeeded"
        sql(
            "UPDATE jobs SET state = 'cancelled', blocked = false, finished_at = now()"
            " WHERE serialize_by = 'crowd' AND state = 'queued'"
        )
        give_signal()
    assert states() == {"succeeded": 22, "cancelled": 9999}


def test_a_line_goes_on_by_itself_when_one_ends_however_it_ends() -> None:
    """Without a relay: the end of a job lets the next one go."""
    submit(Act(n=1, acts=("permanent",), line="c"))
    submit(Act(n=2, acts=("busy_later",), line="c"))
    submit(Act(n=3, acts=("held",), line="c"))
    submit(Act(n=4, acts=("bug",), line="c"))
    submit(Act(n=5, line="c"))
    drain()
    assert states() == {"dead": 1, "queued": 1, "held": 1, "retrying": 1, "succeeded": 1}


def test_a_line_goes_on_when_the_one_at_its_head_crashed() -> None:
    [first] = submit(Act(n=1, acts=("wait", "succeed"), line="c"))
    [second] = submit(Act(n=2, line="c"))
    with in_threads(1, drain):
        wait_until(lambda: begun(1) == 1, what="the first of the line")
        drain()
        assert state(second) == "queued", "its turn has not come"
        leases_expire()
        sweep()
        drain()
        assert state(second) == "succeeded"
        time_passes()
        drain()
        give_signal()
    assert outcomes(first) == ["crashed", "succeeded"]
    assert (effects(1), effects(2)) == (1, 1)


def test_a_line_goes_on_when_what_stood_first_in_it_is_cancelled_or_held() -> None:
    [first] = submit(Act(n=1, acts=("wait",), line="c"))
    middle = submit(*(Act(n=n, line="c") for n in (2, 3, 4)))
    with relay_running():
        with in_threads(1, drain):
            wait_until(lambda: begun(1) == 1, what="the first of the line")
            drain()
            with transaction() as db:
                ops.cancel(db, middle[0], actor="ada")
            give_signal()
        wait_until(lambda: drain() or states() == {"succeeded": 3, "cancelled": 1}, what="the rest of the line")
    assert state(first) == "succeeded"


def test_a_job_parked_while_the_one_before_it_ended_is_not_forgotten() -> None:
    [job_id] = submit(Act(n=1, line="c"))
    sql("UPDATE jobs SET blocked = true WHERE id = %(id)s", id=job_id)  # parked too late to be called up
    drain()
    assert state(job_id) == "queued"
    sweep()
    drain()
    wait_for_state(job_id, "succeeded", timeout_s=1)
