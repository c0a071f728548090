"""Group commit: what requests want to keep at the same time is kept by one transaction (docs/decisions.md)."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.db import transaction

_TOGETHER = 64
"""Items in one transaction, at most."""
_COMPANY_S = 0.002
"""While requests come faster than they can be kept one by one, how long the first waits for others."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class GroupCommit(Generic[Item, Result]):
    """Keeps items by `keep`, in a thread of its own that takes whatever has come since its last commit.

    Args:
        keep: writes items to the database, and nothing else; returns one result for each, in their order. A
            result that is an exception is raised to whoever brought the item. It may be called again with
            items of a transaction that was rolled back.
    """

    def __init__(self, keep: Callable[[Connection, Sequence[Item]], Sequence[Result | Exception]]) -> None:
        self._keep = keep
        self._begin()
        os.register_at_fork(after_in_child=self._begin)  # a forked process has no threads

    def _begin(self) -> None:
        self._queue: SimpleQueue[tuple[Item, Future[Result]]] = SimpleQueue()
        self._starting = threading.Lock()
        self._started = False

    def commit(self, item: Item) -> Result:
        """The result of `item`, once it is committed.

        Raises:
            whatever `keep` raises or returns for it, or the commit raises.
        """
        with self._starting:
            if not self._started:
                threading.Thread(target=self._run, name="group-commit", daemon=True).start()
                self._started = True
        future: Future[Result] = Future()
        self._queue.put((item, future))
        return future.result()

    def _run(self) -> None:
        shared = False
        while True:
            batch = [self._queue.get()]
            if shared:
                time.sleep(_COMPANY_S)
            try:
                while len(batch) < _TOGETHER:
                    batch.append(self._queue.get_nowait())
            except Empty:
                pass
            shared = len(batch) > 1
            self._commit(batch)

    def _commit(self, batch: list[tuple[Item, "Future[Result]"]]) -> None:
        try:
            with transaction() as db:
                results = self._keep(db, [item for item, _ in batch])
        except BaseException as error:
            if len(batch) == 1 or isinstance(error, (OperationalError, PoolTimeout)):  # the database is away for all
                for _, future in batch:
                    future.set_exception(error)
            else:
                for one in batch:  # so that nobody's item is refused for another's
                    self._commit([one])
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
