"""API keys: random, stored as their SHA-256, checked through a cache of 60 s that a revocation overrules.

The cache is Redis', shared by all web processes. A revocation writes a tombstone there before it
commits; filling the cache never overwrites it, so a process that read the key just before the
revocation cannot put it back. Without Redis every request asks PostgreSQL, and what was
cached before a process (re)connected to Redis it does not believe: a revocation may have missed it.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import redis
from sqlalchemy import Connection, Row, func, insert, select, update

from app.contracts.upkeep import BuryApiKey
from app.customers.seal import seal, unseal
from app.customers.tables import api_keys
from app.db import transaction
from app.ledger.bell import connected_at, get_redis
from app.ledger.enqueue import enqueue
from app.logs import log

PREFIX = "rsolv_"
CACHED_S = 60
_TOMBSTONE = b"revoked"


@dataclass(frozen=True)
class ApiKey:
    """A key as its owner sees it once: `secret` is not kept."""

    id: int
    secret: str


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _cache_name(digest: str) -> str:
    return f"tallyhook:api_key:{digest}"


def issue(db: Connection, customer_id: int) -> ApiKey:
    """A new key for the customer, 256 random bits."""
    secret = PREFIX + secrets.token_urlsafe(32)
    key_id = db.execute(
        insert(api_keys).values(customer_id=customer_id, hash=_hash(secret), first=False).returning(api_keys.c.id)
    ).scalar_one()
    return ApiKey(key_id, secret)


def issue_first(db: Connection, customer_id: int) -> bool:
    """The key of provisioning, sealed for the welcome mail. Returns False if the customer has had one."""
    if db.execute(select(api_keys.c.id).where(api_keys.c.customer_id == customer_id, api_keys.c.first)).first():
        return False
    secret = PREFIX + secrets.token_urlsafe(32)
    db.execute(insert(api_keys).values(customer_id=customer_id, hash=_hash(secret), first=True, sealed=seal(secret)))
    return True


def sealed_first(db: Connection, customer_id: int) -> str | None:
    """The first key, while its welcome mail has not been handed over; None afterwards."""
    sealed = db.execute(
        select(api_keys.c.sealed).where(
            api_keys.c.customer_id == customer_id, api_keys.c.first, api_keys.c.revoked_at.is_(None)
        )
    ).scalar_one_or_none()
    return None if sealed is None else unseal(sealed)


def wipe_sealed(db: Connection, customer_id: int) -> None:
    """Forget the readable first key."""
    db.execute(update(api_keys).where(api_keys.c.customer_id == customer_id, api_keys.c.first).values(sealed=None))


def active(db: Connection, customer_id: int) -> Sequence[Row[int, datetime]]:
    """The customer's keys that work, oldest first: `id` and `created_at`. What they are is not kept."""
    return db.execute(
        select(api_keys.c.id, api_keys.c.created_at)
        .where(api_keys.c.customer_id == customer_id, api_keys.c.revoked_at.is_(None))
        .order_by(api_keys.c.id)
    ).all()


def revoke(db: Connection, customer_id: int, key_id: int) -> bool:
    """Revoke the customer's key at once, for every web process. Returns False if there is no such key of theirs."""
    digest = db.execute(
        update(api_keys)
        .where(api_keys.c.id == key_id, api_keys.c.customer_id == customer_id)
        .values(revoked_at=func.coalesce(api_keys.c.revoked_at, func.clock_timestamp()), sealed=None)
        .returning(api_keys.c.hash)
    ).scalar_one_or_none()
    if digest is None:
        return False
    try:
        bury(digest)
    except redis.RedisError as error:
        # Others may still reach the cache that we cannot: a worker goes on trying.
        log.warning("api_key.tombstone_failed", error=type(error).__name__)
        enqueue(db, BuryApiKey(digest=digest))
    return True


def bury(digest: str) -> None:
    """Write the tombstone of a revoked key, for longer than any request that has read the key and not yet
    cached it can take.

    Raises:
        redis.RedisError: it could not be written.
    """
    get_redis().set(_cache_name(digest), _TOMBSTONE, ex=2 * CACHED_S)


def _read(name: str) -> Any:
    return get_redis().get(name)


def plausible(secret: str) -> bool:
    """Whether it looks like one of our keys, so that it is worth looking for."""
    return secret.startswith(PREFIX) and len(secret) <= 100


def authenticate(secret: str, read: Callable[[str], Any] = _read) -> int | None:
    """The id of the customer whose key this is; None for an unknown or revoked one.

    Args:
        read: reads a name in Redis; a caller who asks Redis for something else as well does both at once.
    """
    if not plausible(secret):
        return None
    digest = _hash(secret)
    try:
        cached = read(_cache_name(digest))
        if cached == _TOMBSTONE:
            return None
        if isinstance(cached, bytes):
            customer_id, cached_at = cached.split(b":")
            if float(cached_at) > connected_at():
                return int(customer_id)
        found = _look_up(digest)
        if found is not None:
            _fill(digest, cached, f"{found}:{time.time()}")
    except redis.RedisError as error:
        log.warning("api_key.cache_failed", error=type(error).__name__)
        return _look_up(digest)
    return found


# Nothing where nothing is, or in place of exactly what was read and not believed: never over a tombstone.
_REPLACE = """
local now = redis.call('GET', KEYS[1])
if (now or '') == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end
"""


def _fill(digest: str, was: bytes | None, becomes: str) -> None:
    get_redis().eval(_REPLACE, 1, _cache_name(digest), was or b"", becomes, CACHED_S)


def _look_up(digest: str) -> int | None:
    with transaction() as db:
        return db.execute(
            select(api_keys.c.customer_id).where(api_keys.c.hash == digest, api_keys.c.revoked_at.is_(None))
        ).scalar_one_or_none()
