"""Rate limits, counted in Redis for all web processes together; in each process alone while Redis is away.

On `limits`, the library under Flask-Limiter: the extension looks through its registry three times a
request, which costs a signup more than committing it does (docs/decisions.md).
"""

import hashlib
import time
from functools import cache

from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import FixedWindowRateLimiter
from redis import RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.intake.problems import Problem
from app.settings import get_settings

_PATIENCE_S = 0.3
_AWAY_S = 1.0
"""Seconds without asking a Redis that has just failed."""

_alone = FixedWindowRateLimiter(MemoryStorage())
_away_until = 0.0


@cache
def _shared() -> FixedWindowRateLimiter:
    url = get_settings().redis_url
    if url is None:
        return _alone
    storage = storage_from_string(
        url,
        socket_timeout=_PATIENCE_S,
        socket_connect_timeout=_PATIENCE_S,
        retry=Retry(NoBackoff(), 0),  # type: ignore[arg-type]
    )
    return FixedWindowRateLimiter(storage)


@cache
def _parsed(limit: str) -> list[RateLimitItem]:
    return parse_many(limit)


def digest(secret: str) -> str:
    """What stands in Redis in place of a key or an address."""
    return hashlib.sha256(secret.encode()).hexdigest()[:32]


def spend(limit: str, scope: str, who: str) -> None:
    """Count a request of `who` against `limit` (Flask-Limiter's notation: `10/hour`, `5/minute;50/day`).

    Raises:
        Problem: 429 with Retry-After: the budget of this window is used up.
    """
    for item in _parsed(limit):
        seconds = _count(item, scope, who)
        if seconds:
            raise Problem(429, f"Too many requests: the limit is {item}.", headers={"Retry-After": str(seconds)})


def _count(item: RateLimitItem, scope: str, who: str) -> int:
    """Count one; returns the seconds until a used-up budget is renewed, 0 while it is not used up."""
    global _away_until
    if time.monotonic() >= _away_until:
        try:
            return _count_with(_shared(), item, scope, who)
        except RedisError:
            _away_until = time.monotonic() + _AWAY_S
    return _count_with(_alone, item, scope, who)


def _count_with(limiter: FixedWindowRateLimiter, item: RateLimitItem, scope: str, who: str) -> int:
    if limiter.hit(item, scope, who):
        return 0
    return max(1, int(limiter.get_window_stats(item, scope, who).reset_time - time.time()) + 1)
