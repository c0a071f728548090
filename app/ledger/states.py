"""What a job can be, and which moves there are. The database enforces the same table (a trigger)."""

from enum import StrEnum


class State(StrEnum):
    """The states of a job (architecture.md, "A job's life")."""

    QUEUED = "queued"
    HELD = "held"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"


MOVES: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.HELD, State.CANCELLED}),
    State.HELD: frozenset({State.QUEUED, State.CANCELLED}),
    State.RETRYING: frozenset({State.RUNNING, State.HELD, State.CANCELLED}),
    State.RUNNING: frozenset({State.SUCCEEDED, State.RETRYING, State.QUEUED, State.HELD, State.DEAD}),
    State.DEAD: frozenset({State.QUEUED}),
    State.CANCELLED: frozenset({State.QUEUED}),
    State.SUCCEEDED: frozenset(),
}
"""From a state to the states that may follow it. A move to `queued` from `dead` or `cancelled` is a requeue."""

FINISHED = frozenset({State.SUCCEEDED, State.DEAD, State.CANCELLED})
