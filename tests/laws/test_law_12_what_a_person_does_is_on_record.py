"""Law 12, where it concerns the ledger: who did what to which job or queue, when and why."""

from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.db import transaction
from app.ledger import ops
from tests.ledger.commands import Act
from tests.ledger.scene import drain, show, sql, state, submit


def _recorded() -> list[tuple[str, str, str, str | None]]:
    return [tuple(row) for row in sql("SELECT actor, action, subject, reason FROM operator_actions ORDER BY id")]


@pytest.mark.parametrize(
    ("act", "action", "do"),
    [
        ("permanent", "requeue", ops.requeue),
        ("held", "release", ops.release),
        ("held", "cancel", ops.cancel),
        ("transient", "cancel", ops.cancel),
    ],
)
def test_what_is_done_to_a_job_stands_with_the_job(act: str, action: str, do: Callable[..., None]) -> None:
    [job_id] = submit(Act(n=1, acts=(act,)))
    drain()
    with transaction() as db:
        do(db, job_id, actor="ada@example.com", reason="they called")
    assert _recorded() == [("ada@example.com", action, f"job:{job_id}", "they called")]
    [shown] = show(job_id)["operators"]
    assert (shown["actor"], shown["action"], shown["reason"]) == ("ada@example.com", action, "they called")
    assert shown["at"]


def test_pausing_and_resuming_a_queue_is_on_record() -> None:
    with transaction() as db:
        assert ops.pause_queue(db, "test", actor="ada", reason="Stripe is down")
    with transaction() as db:
        assert ops.resume_queue(db, "test", actor="bob")
    assert _recorded() == [("ada", "pause", "queue:test", "Stripe is down"), ("bob", "resume", "queue:test", None)]


@pytest.mark.parametrize("do", [ops.requeue, ops.release, ops.cancel])
def test_what_is_refused_is_not_recorded_as_done(do: Callable[[Connection, UUID], None]) -> None:
    [job_id] = submit(Act(n=1))
    drain()
    with pytest.raises(ops.NotAllowed), transaction() as db:
        do(db, job_id, actor="ada")
    assert _recorded() == []
    assert state(job_id) == "succeeded"


def test_what_rolls_back_is_not_recorded() -> None:
    [job_id] = submit(Act(n=1))

    def cancel_and_fail() -> None:
        with transaction() as db:
            ops.cancel(db, job_id, actor="ada")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cancel_and_fail()
    assert _recorded() == []
    assert state(job_id) == "queued"


@pytest.mark.parametrize("forge", ["UPDATE operator_actions SET actor = 'eve'", "DELETE FROM operator_actions"])
def test_the_record_cannot_be_changed(forge: str) -> None:
    [job_id] = submit(Act(n=1))
    with transaction() as db:
        ops.cancel(db, job_id, actor="ada")
    with pytest.raises(DBAPIError, match="append-only"):
        sql(forge)
    assert [entry[0] for entry in _recorded()] == ["ada"]
