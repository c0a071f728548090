"""Idempotency keys as Stripe's v1 keeps them.

A key remembers the request it was first used for and that request's result, 402 and 500 included, for 24
hours of the sandbox's clock; after that it is as good as new. What failed validation, hit a rate limit or ran
at the same time as another with the key is not remembered (`ApiError.stored`).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from app.sandbox.stripe.clock import Clock
from app.sandbox.stripe.errors import KeyInUse, KeyReused
from app.sandbox.stripe.store import Store

KEPT_S = 24 * 3600


@dataclass(frozen=True)
class Result:
    status: int
    headers: dict[str, str]
    body: bytes


def fingerprint(path: str, tree: dict[str, Any]) -> str:
    """What has to be the same for a key to be used again: where the request went and its parameters."""
    return path + " " + orjson.dumps(tree, option=orjson.OPT_SORT_KEYS).decode()


class IdempotencyKeys:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._in_use: set[tuple[bool, str]] = set()

    @contextmanager
    def held(self, livemode: bool, key: str | None) -> Iterator[None]:
        """Keeps a key for one request. Raises `KeyInUse` where another has it."""
        if key is None:
            yield
            return
        with self._lock:
            if (livemode, key) in self._in_use:
                raise KeyInUse(key)
            self._in_use.add((livemode, key))
        try:
            yield
        finally:
            with self._lock:
                self._in_use.discard((livemode, key))

    def recall(self, livemode: bool, key: str, request: str) -> Result | None:
        """The result that a key remembers. Raises `KeyReused` where it was for another request."""
        rows = self._store.execute(
            "SELECT request, status, headers, body FROM idempotency WHERE livemode = ? AND key = ? AND first_used > ?",
            (livemode, key, self._clock.time() - KEPT_S),
        )
        if not rows:
            return None
        first_request, status, headers, body = rows[0]
        if first_request != request:
            raise KeyReused(key)
        return Result(status, orjson.loads(headers), body.encode())

    def remember(self, livemode: bool, key: str, request: str, result: Result) -> None:
        self._store.execute(
            "INSERT OR REPLACE INTO idempotency (livemode, key, first_used, request, status, headers, body) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                livemode,
                key,
                self._clock.time(),
                request,
                result.status,
                orjson.dumps(result.headers).decode(),
                result.body.decode(),
            ),
        )
