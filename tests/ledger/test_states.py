"""The moves that a job may make: the same in the code and in the database."""

from itertools import product
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from app.db import transaction
from app.ledger.states import FINISHED, MOVES, State
from tests.ledger.scene import sql

_COLUMNS = {
    "lease_owner": (State.RUNNING, "'somebody'"),
    "lease_until": (State.RUNNING, "now()"),
    "hold": (State.HELD, "'paused'"),
}


def _values(state: State) -> str:
    """What a row in `state` must have, as assignments."""
    parts = [f"{column} = {value if state is owner else 'NULL'}" for column, (owner, value) in _COLUMNS.items()]
    parts.append(f"finished_at = {'now()' if state in FINISHED else 'NULL'}")
    return ", ".join([f"state = '{state}'", *parts])


def _make(state: State) -> None:
    """A job in `state`, however it came there."""
    values = dict(part.split(" = ") for part in _values(state).split(", "))
    sql(
        "INSERT INTO jobs (id, name, queue, key, payload, max_attempts, " + ", ".join(values) + ")"
        " VALUES (gen_random_uuid(), 'act', 'test', 'k', '{}', 3, " + ", ".join(values.values()) + ")"
    )


@pytest.mark.parametrize(("before", "after"), [pair for pair in product(State, State) if pair[0] is not pair[1]])
def test_the_database_allows_a_move_exactly_when_the_code_does(before: State, after: State) -> None:
    _make(before)
    move = f"UPDATE jobs SET {_values(after)}"
    if after in MOVES[before]:
        sql(move)
        assert sql("SELECT state FROM jobs") == [(after,)]
    else:
        with pytest.raises(IntegrityError) as caught:
            sql(move)
        assert caught.value.orig is not None
        assert caught.value.orig.diag.constraint_name == "job_moves"


@pytest.mark.parametrize(
    "change",
    [
        "state = 'running', lease_owner = 'x'",
        "state = 'running', lease_until = now()",
        "state = 'held'",
        "hold = 'paused'",
        "finished_at = now()",
        "blocked = true",
        "spared = 1",
        "state = 'cancelled'",
        "max_attempts = 0",
    ],
)
def test_a_row_that_contradicts_itself_is_refused(change: str) -> None:
    _make(State.QUEUED)
    with pytest.raises(IntegrityError):
        sql(f"UPDATE jobs SET {change}")


def test_every_state_has_its_moves() -> None:
    assert set(MOVES) == set(State)
    reachable: set[State] = {State.QUEUED}
    while more := {to for at in reachable for to in MOVES[at]} - reachable:
        reachable |= more
    assert reachable == set(State)


def test_history_has_one_row_an_attempt() -> None:
    insert: Any = (
        "INSERT INTO job_attempts (job_id, attempt, started_at, ended_at, worker, outcome)"
        " VALUES ('00000000-0000-0000-0000-000000000001', 1, now(), now(), 'w', 'succeeded')"
    )
    sql(insert)
    with pytest.raises(IntegrityError), transaction() as db:
        db.exec_driver_sql(insert)
