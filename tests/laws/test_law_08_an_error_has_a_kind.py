"""Law 8: the kind of an error alone decides what happens to the job."""

import pytest

from app.db import transaction
from app.ledger import ops
from tests.conftest import wait_until
from tests.ledger.commands import Act, GatedAct, OtherAct
from tests.ledger.scene import (
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
    sweep,
    time_passes,
    wait_for_state,
)


@pytest.mark.parametrize("act", ["transient", "bug"])
def test_transient_is_tried_again_later_and_dead_when_its_attempts_are_used_up(act: str) -> None:
    [job_id] = submit(Act(n=1, acts=(act,)))
    for used in (1, 2, 3):
        time_passes()
        drain()
        shown = show(job_id)
        assert shown["attempts"] == used
        if used < 3:
            assert shown["state"] == "retrying"
            assert sql("SELECT run_at > clock_timestamp() FROM jobs WHERE id = %(id)s", id=job_id) == [(True,)]
    assert outcomes(job_id) == ["retrying", "retrying", "dead"]
    assert show(job_id)["error"]["kind"] == "transient"


def test_permanent_is_dead_at_once_with_its_reason() -> None:
    [job_id] = submit(Act(n=1, acts=("permanent",)))
    drain()
    shown = show(job_id)
    assert shown["state"] == "dead"
    assert shown["attempts"] == 1
    assert shown["error"] == {"kind": "permanent", "message": "the plan does not exist"}


def test_a_mistake_of_ours_is_on_record_by_its_class() -> None:
    [job_id] = submit(Act(n=1, acts=("bug",)))
    drain()
    assert show(job_id)["error"] == {"kind": "transient", "message": 'KeyError: "somebody\'s mistake"'}


@pytest.mark.parametrize("act", ["permanent_with_nul", "permanent_with_surrogate"])
def test_permanent_is_dead_at_once_whatever_characters_its_reason_has(act: str) -> None:
    """A reason may quote what a sender sent (failures.md 43); PostgreSQL's text cannot hold all of it."""
    [job_id] = submit(Act(n=1, acts=(act,)))
    [neighbour] = submit(Act(n=2))
    drain()
    assert state(job_id) == "dead"
    assert show(job_id)["error"]["kind"] == "permanent"
    assert state(neighbour) == "succeeded"


def test_a_payload_that_is_not_valid_is_dead_at_once_with_its_reason() -> None:
    [job_id] = submit(Act(n=1))
    sql("""UPDATE jobs SET payload = '{"n": "seven"}' WHERE id = %(id)s""", id=job_id)
    drain()
    assert state(job_id) == "dead"
    assert show(job_id)["error"]["kind"] == "permanent"
    assert begun(1) == 0


def test_already_done_succeeds() -> None:
    [job_id] = submit(Act(n=1, acts=("already_done",)))
    drain()
    assert outcomes(job_id) == ["succeeded"]
    assert state(job_id) == "succeeded"


@pytest.mark.parametrize("act", ["busy", "unavailable"])
def test_busy_waits_without_using_an_attempt(act: str) -> None:
    [job_id] = submit(Act(n=1, acts=(act,) * 10 + ("succeed",)))
    for _ in range(10):
        time_passes()
        drain()
        assert show(job_id)["attempts"] == 0
        assert state(job_id) == "queued"
    time_passes()
    drain()
    assert outcomes(job_id) == ["busy"] * 10 + ["succeeded"]
    assert show(job_id)["attempts"] == 1
    assert effects(1) == 1


def test_busy_waits_for_as_long_as_the_other_side_said() -> None:
    [job_id] = submit(Act(n=1, acts=("busy_later",)))
    drain()
    assert sql(
        "SELECT run_at - clock_timestamp() BETWEEN interval '59 minutes' AND interval '1 hour' FROM jobs"
        " WHERE id = %(id)s",
        id=job_id,
    ) == [(True,)]


def _grow_older(hours: int) -> None:
    """As if every job had been there, and waiting if it waits, for `hours` more."""
    sql(
        "UPDATE jobs SET created_at = created_at - make_interval(hours => %(h)s),"
        " busy_since = busy_since - make_interval(hours => %(h)s),"
        " finished_at = finished_at - make_interval(hours => %(h)s)",
        h=hours,
    )


def test_busy_gives_up_after_its_age_and_says_why() -> None:
    [job_id] = submit(Act(n=1, acts=("busy_for_an_hour_at_most",)))
    drain()
    assert state(job_id) == "queued"
    _grow_older(2)
    time_passes()
    drain()
    assert state(job_id) == "dead"
    assert show(job_id)["error"] == {"kind": "busy", "message": "still not there"}


def test_busy_that_gave_up_and_was_requeued_waits_again() -> None:
    """A requeue is a new budget: ops requeue when the other side is back, and it may be busy once more."""
    [job_id] = submit(Act(n=1, acts=("busy_for_an_hour_at_most",)))
    drain()
    _grow_older(2)
    time_passes()
    drain()
    assert state(job_id) == "dead"
    with transaction() as db:
        ops.requeue(db, job_id, actor="ada")
    drain()
    assert outcomes(job_id) == ["busy", "dead", "busy"]
    assert state(job_id) == "queued"


def test_time_that_a_job_was_held_is_not_time_that_it_was_busy() -> None:
    """failures.md 38: held for a day, released; the first busy answer must not kill it for its age."""
    [job_id] = submit(Act(n=1, acts=("held", "busy_for_an_hour_at_most")))
    drain()
    _grow_older(24)
    with transaction() as db:
        ops.release(db, job_id, actor="ada")
    drain()
    assert state(job_id) == "queued"
    assert outcomes(job_id) == ["held", "busy"]


@pytest.mark.usefixtures("real_backoff")
def test_the_waits_of_a_busy_job_do_not_lengthen_the_backoff_of_its_first_failure() -> None:
    """A storm burns no budget (failures.md 6); nor may it make one small error cost ten minutes."""
    [job_id] = submit(Act(n=1, acts=("busy",) * 12 + ("transient",)))
    for _ in range(13):
        time_passes()
        drain()
    assert outcomes(job_id)[-1] == "retrying"
    assert show(job_id)["attempts"] == 1
    assert sql("SELECT run_at - clock_timestamp() <= interval '1 s' FROM jobs WHERE id = %(id)s", id=job_id) == [
        (True,)
    ]


def test_held_is_parked_until_it_is_released_using_no_attempt() -> None:
    [job_id] = submit(Act(n=1, acts=("held", "succeed")))
    drain()
    shown = show(job_id)
    assert (shown["state"], shown["hold"], shown["attempts"]) == ("held", "approval", 0)
    sweep()
    drain()
    assert state(job_id) == "held", "the relay does not release what waits for a person"
    with transaction() as db:
        ops.release(db, job_id, actor="ada", reason="they called")
    drain()
    assert outcomes(job_id) == ["held", "succeeded"]
    assert effects(1) == 1


def test_a_closed_gate_holds_its_jobs_and_no_others_and_an_open_one_releases_them_to_run_once() -> None:
    """failures.md 38."""
    gated = submit(*(GatedAct(n=n) for n in range(20)))
    [free] = submit(Act(n=100))
    closed = ("test_gate",)
    drain(closed=closed)
    assert [state(job_id) for job_id in gated] == ["queued"] * 20, "not run by a worker that knows the gate closed"
    assert state(free) == "succeeded"
    sweep(closed)
    assert states() == {"held": 20, "succeeded": 1}
    drain()
    assert states() == {"held": 20, "succeeded": 1}, "nor by one that does not"
    with relay_running():
        wait_until(lambda: drain() or states() == {"succeeded": 21}, what="every held job done")
    assert effects_per_job() == dict.fromkeys([*range(20), 100], 1)
    assert {tuple(outcomes(job_id)) for job_id in gated} == {("succeeded",)}


def test_a_gate_that_closes_in_mid_job_lets_the_job_hold_itself_and_releases_it() -> None:
    [job_id] = submit(GatedAct(n=1, acts=("held_by_gate", "succeed")))
    drain()
    assert (state(job_id), show(job_id)["hold"]) == ("held", "test_gate")
    sweep(("test_gate",))
    assert state(job_id) == "held"
    sweep()
    drain()
    assert outcomes(job_id) == ["held", "succeeded"]
    assert show(job_id)["attempts"] == 1
    assert effects(1) == 1


def test_a_retry_that_falls_due_behind_a_closed_gate_is_held_and_keeps_its_count() -> None:
    [job_id] = submit(GatedAct(n=1, acts=("transient", "transient", "succeed")))
    drain()
    time_passes()
    sweep(("test_gate",))
    assert state(job_id) == "held"
    sweep()
    drain()
    time_passes()
    drain()
    assert outcomes(job_id) == ["retrying", "retrying", "succeeded"]
    assert show(job_id)["attempts"] == 3


def test_a_paused_queue_holds_its_jobs_and_no_others_until_it_is_resumed() -> None:
    with transaction() as db:
        ops.pause_queue(db, "test", actor="ada")
    [job_id] = submit(Act(n=1))
    [other] = submit(OtherAct(n=2))
    drain()
    drain("test_other")
    assert (state(job_id), state(other)) == ("queued", "succeeded")
    sweep()
    assert (state(job_id), show(job_id)["hold"]) == ("held", "paused")
    with relay_running():
        with transaction() as db:
            ops.resume_queue(db, "test", actor="ada")
        wait_for_state(job_id, "queued")
    drain()
    assert outcomes(job_id) == ["succeeded"]
    assert effects(1) == 1


def test_a_queue_paused_in_mid_job_lets_the_job_finish() -> None:
    [job_id] = submit(Act(n=1, acts=("wait",)))
    with in_threads(1, drain):
        wait_until(lambda: begun(1) == 1, what="the attempt")
        with transaction() as db:
            ops.pause_queue(db, "test", actor="ada")
        sweep()
        give_signal()
    assert outcomes(job_id) == ["succeeded"]


def test_what_is_held_for_two_reasons_waits_for_both() -> None:
    with transaction() as db:
        ops.pause_queue(db, "test", actor="ada")
    [job_id] = submit(GatedAct(n=1))
    sweep(("test_gate",))
    with transaction() as db:
        ops.resume_queue(db, "test", actor="ada")
    sweep(("test_gate",))
    drain(closed=("test_gate",))
    sweep(("test_gate",))
    assert state(job_id) == "held"
    sweep()
    drain()
    assert outcomes(job_id) == ["succeeded"]
