"""Rate limits, counted in Redis for all web processes together; in each process alone while Redis is away.

In the notation of Flask-Limiter, read by the library under it. The extension looks through its registry three
times a request, and the library asks Redis once for each budget, and again when one is used up: here a request
asks Redis once (docs/decisions.md).
"""

import hashlib
import time
from functools import cache
from typing import Any, NamedTuple

import redis
from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage

from app.intake.problems import Problem
from app.ledger.bell import make_redis, note_connection
from app.settings import get_settings

_AWAY_S = 1.0
"""Seconds without asking a Redis that has just failed."""

_alone = MemoryStorage()
_away_until = 0.0


class Budget(NamedTuple):
    """What `who` may send under `limit`, in Flask-Limiter's notation: `10/hour`, `5/minute;50/day`."""

    limit: str
    scope: str
    who: str


@cache
def _shared() -> redis.Redis:
    """What is counted must not be sent again because its answer was late."""
    return make_redis(0.5, retries=0, redis_connect_func=note_connection)


@cache
def _parsed(limit: str) -> list[RateLimitItem]:
    return parse_many(limit)


def digest(secret: str) -> str:
    """What stands in Redis in place of a key or an address."""
    return hashlib.sha256(secret.encode()).hexdigest()[:32]


def spend(*budgets: Budget, read: str | None = None) -> Any:
    """Count a request against each of `budgets`, in windows that begin with the clock's hour, minute and so on.

    Args:
        read: a name in Redis to be read in the same round trip.

    Returns:
        what stands under `read`; None without it, and while Redis is away.

    Raises:
        Problem: 429 with Retry-After: one of them is used up until its window ends.
    """
    now = time.time()
    spent = [(item, scope, who) for limit, scope, who in budgets for item in _parsed(limit)]
    windows = {
        item.key_for("tallyhook", scope, who, str(int(now // item.get_expiry()))): item.get_expiry()
        for item, scope, who in spent
    }
    counts, found = _count(windows, read)
    for (item, _, _), count in zip(spent, counts, strict=True):
        if count > item.amount:
            wait = item.get_expiry() - int(now % item.get_expiry())
            raise Problem(429, f"Too many requests: the limit is {item}.", headers={"Retry-After": str(wait)})
    return found


def _count(windows: dict[str, int], read: str | None) -> tuple[list[int], Any]:
    """Count one in each window (by its name, with its length in seconds); returns how many each has now."""
    global _away_until
    if get_settings().redis_url is not None and time.monotonic() >= _away_until:
        try:
            with _shared().pipeline(transaction=False) as pipe:
                for name, length_s in windows.items():
                    pipe.incr(name)
                    pipe.expire(name, length_s)
                if read is not None:
                    pipe.get(read)
                answers = pipe.execute()
            return [int(count) for count in answers[: 2 * len(windows) : 2]], answers[-1] if read is not None else None
        except redis.RedisError:
            _away_until = time.monotonic() + _AWAY_S
    return [_alone.incr(name, length_s) for name, length_s in windows.items()], None
