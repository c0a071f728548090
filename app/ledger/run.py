"""One attempt as its handler sees it, and the register of handlers."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection

from app.db import transaction
from app.ledger.claim import Claim
from app.ledger.command import Command
from app.ledger.finish import finish, hold_lease
from app.ledger.states import State

C = TypeVar("C", bound=Command)


class Run(Generic[C]):
    """One attempt at a job, as its handler sees it: the payload, and the transactions that it may open."""

    def __init__(self, db: Connection, claimed: Claim, payload: C, worker: str) -> None:
        self.payload = payload
        self.claim = claimed
        self.finished = False
        self._db = db
        self._worker = worker
        self._since = time.perf_counter()

    @property
    def duration_s(self) -> float:
        """Seconds since this attempt started."""
        return time.perf_counter() - self._since

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A short transaction before the last one: to read, or to keep what a network call is about to use.

        Close it before any call over the network (law 6).

        Raises:
            LostLease: another worker has the job. While the block lasts, nobody can take it.
        """
        with transaction(self._db) as db:
            hold_lease(db, self.claim)
            yield db

    @contextmanager
    def finish(self, result: dict[str, Any] | None = None) -> Iterator[Connection]:
        """The last transaction: what is written in it, and the job's success, commit together (law 4).

        Args:
            result: what the job came to; shown to the customer whose job it is.

        Raises:
            LostLease: another worker has the job; nothing of this block is kept.
        """
        with transaction(self._db) as db:
            yield db
            finish(
                db,
                self.claim,
                worker=self._worker,
                duration_s=self.duration_s,
                state=State.SUCCEEDED,
                outcome="succeeded",
                result=result,
            )
        self.finished = True


Handler = Callable[[Run[Any]], None]
HANDLERS: dict[str, Handler] = {}
"""By name of command: what `jobs/` registered."""


def handles(command: type[C]) -> Callable[[Callable[[Run[C]], None]], Callable[[Run[C]], None]]:
    """Register a function as the handler of `command`.

    It returns after `run.finish()`, or without it when there is no effect to commit; it raises one of
    the classes of `app.ledger.errors` to say what kind of failure it met.
    """

    def register(handler: Callable[[Run[C]], None]) -> Callable[[Run[C]], None]:
        HANDLERS[command.name] = handler
        return handler

    return register
