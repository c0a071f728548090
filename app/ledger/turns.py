"""Turns of a process's threads: many share one, or one has it alone.

A job that crashed its worker twice runs alone in its process, so that one which does it again takes no
other job with it (failures.md 15).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Shared turns run side by side; whoever waits to be alone goes before new shared ones."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sharing = 0
        self._alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """A turn beside others. Waits while somebody is, or is about to be, alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._sharing += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self, timeout_s: float) -> Iterator[bool]:
        """A turn without others; False if another has it, or the others do not end within `timeout_s` seconds."""
        with self._changed:
            first = not self._alone
            self._alone = True
            free = first and self._changed.wait_for(lambda: not self._sharing, timeout_s)
        try:
            yield free
        finally:
            if first:
                with self._changed:
                    self._alone = False
                    self._changed.notify_all()
