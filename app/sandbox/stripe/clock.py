"""The sandbox's clock: real time, moved forward by as much as was asked for."""

import time

from app.sandbox.stripe.store import Store


class Clock:
    """Runs as real time does; the distance that it was moved is kept in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ahead = float(store.state("clock_ahead") or 0)

    def time(self) -> float:
        """Seconds since 1970 in the sandbox, with fractions."""
        return time.time() + self._ahead

    def now(self) -> int:
        """Seconds since 1970 in the sandbox."""
        return int(self.time())

    def move_to(self, moment: float) -> None:
        """Sets the time; it then runs on. Moving back is not possible and changes nothing."""
        if moment > self.time():
            self._ahead = moment - time.time()
            self._store.set_state("clock_ahead", str(self._ahead))

    def reset(self) -> None:
        """Back to real time, as `Store.clear` leaves it."""
        self._ahead = 0.0
