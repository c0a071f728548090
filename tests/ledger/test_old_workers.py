"""failures.md 45: a migration while old workers run; old and new both work for one version."""

from tests.conftest import wait_until
from tests.ledger.commands import Act, NewerAct
from tests.ledger.scene import (
    WORKER,
    drain,
    effects,
    lose_wakeups,
    relay_running,
    sql,
    state,
    states,
    submit,
    sweep,
    wait_for_state,
)
from tests.processes import Processes


def test_a_worker_leaves_kinds_of_job_alone_that_it_does_not_know() -> None:
    [newer] = submit(NewerAct(n=1))
    [known] = submit(Act(n=1))
    drain()
    assert (state(newer), state(known)) == ("queued", "succeeded")
    assert sql("SELECT attempt FROM jobs WHERE id = %(id)s", id=newer) == [(0,)]


def test_an_unknown_kind_at_the_head_of_a_queue_does_not_stop_the_known_ones_behind_it(processes: Processes) -> None:
    """The wake-up must reach workers that do not know the kind of the oldest job."""
    [newer] = submit(NewerAct(n=1))
    sweep()
    processes.start_worker(WORKER)
    [known] = submit(Act(n=1))
    lose_wakeups()  # only the relay can wake a worker for it
    with relay_running():
        wait_for_state(known, "succeeded")
    assert state(newer) == "queued"
    assert effects(1) == 1


def test_a_payload_with_a_field_of_the_next_release_is_not_killed_by_a_worker_of_this_one() -> None:
    [job_id] = submit(Act(n=1))
    sql("""UPDATE jobs SET payload = payload || '{"field_of_the_next_release": 1}' WHERE id = %(id)s""", id=job_id)
    drain()
    assert state(job_id) != "dead"


def test_columns_of_the_next_release_do_not_disturb_workers_of_this_one(processes: Processes) -> None:
    processes.start_worker(WORKER)
    with relay_running():
        submit(*(Act(n=n) for n in range(100)))
        wait_until(lambda: states().get("succeeded", 0) > 10, what="work under way")
        try:
            sql("ALTER TABLE jobs ADD COLUMN newer text NOT NULL DEFAULT 'x'")
            submit(*(Act(n=n, acts=("transient", "succeed")) for n in range(100, 110)))
            wait_until(lambda: states() == {"succeeded": 110}, what="every job done")
        finally:
            sql("ALTER TABLE jobs DROP COLUMN newer")
