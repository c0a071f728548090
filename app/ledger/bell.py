"""Redis rings the bell: wake-ups for workers, over Dramatiq's own queues (law 3).

A wake-up says "this queue has work" and nothing else. What is lost with Redis is a wake-up, never a
job: the relay rings again for whatever is due.
"""

import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import dramatiq
import redis
from dramatiq.broker import MessageProxy
from dramatiq.brokers.redis import RedisBroker
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.logs import log
from app.settings import SettingsError, get_settings

_MUTE_S = 1.0
"""After a failed ring, seconds in which nobody in this process tries again: a dead Redis must not
slow the intake down by a time-out a request."""


class _BellConsumer:
    """Dramatiq's Redis consumer, blocking on the bell in place of polling.

    Dramatiq polls an idle queue with a backoff up to `worker_timeout`, which costs either latency or
    idle CPU. This waits in BLPOP for whoever rings next, and still looks once a second.
    """

    def __init__(self, inner: Any, client: redis.Redis, key: str, idle_s: float) -> None:
        self._inner, self._client, self._key, self._idle_s = inner, client, key, idle_s

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        message = next(self._inner)
        if message is not None:
            return self._understood(message)
        if self._inner.outstanding_message_count >= self._inner.prefetch:
            time.sleep(0.02)  # every thread is at work and more wake-ups lie ready: nothing to wait for
            return None
        try:
            self._client.blpop([self._key], timeout=self._idle_s)
        except redis.ConnectionError as error:
            raise dramatiq.ConnectionClosed(error) from None  # type: ignore[no-untyped-call]
        message = next(self._inner)
        return None if message is None else self._understood(message)

    def _understood(self, message: MessageProxy) -> MessageProxy:
        """A wake-up by a kind of job that only a newer release knows is as good as any of this queue's."""
        actors = self._inner.broker.actors
        if message.actor_name in actors:
            return message
        substitute = next(name for name, actor in actors.items() if actor.queue_name == self._inner.queue_name)
        return MessageProxy(message._message.copy(actor_name=substitute))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class BellBroker(RedisBroker):
    """A Redis broker whose idle workers are woken at once. Delay queues, which nothing uses, are not polled."""

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 1000) -> Any:
        # 1 ms: the inner consumer's own nap between two looks; the waiting is done on the bell.
        inner = super().consume(queue_name, prefetch, 1)
        return _BellConsumer(inner, self.client, _bell_key(queue_name), timeout / 1000)

    def declare_queue(self, queue_name: str) -> None:
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)


def make_redis(timeout_s: float) -> redis.Redis:
    """A client on REDIS_URL that gives up after `timeout_s` seconds and tries a broken connection once more.

    Raises:
        SettingsError: REDIS_URL is not set.
    """
    url = get_settings().redis_url
    if url is None:
        raise SettingsError(["REDIS_URL is not set and `tallyhook up` is not running here"])
    client: redis.Redis = redis.Redis.from_url(
        url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 1)
    )
    return client


@cache
def get_redis() -> redis.Redis:
    """The client for what may be skipped when Redis is away: rings, caches. Gives up after 0.5 s."""
    return make_redis(0.5)


@cache
def _ringer() -> RedisBroker:
    return BellBroker(client=get_redis(), middleware=[])  # type: ignore[no-untyped-call]


def _bell_key(queue: str) -> str:
    return f"tallyhook:bell:{queue}"


_muted_until = 0.0


def ring(queue: str, name: str) -> bool:
    """Wake a worker of `queue` through the actor `name`, unless a wake-up is pending there already.

    A pending wake-up is one that no worker has fetched yet: whoever fetches it claims after now, and
    so sees whatever was committed before now. Returns False when Redis could not be reached; the
    relay then rings within its sweep (failures.md 11).
    """
    global _muted_until
    if time.monotonic() < _muted_until:
        return False
    try:
        client = get_redis()
        if client.llen(f"dramatiq:{queue}") == 0:
            _ringer().enqueue(dramatiq.Message(queue_name=queue, actor_name=name, args=(), kwargs={}, options={}))
            with client.pipeline(transaction=False) as pipe:
                pipe.lpush(_bell_key(queue), b"1")
                pipe.ltrim(_bell_key(queue), 0, 63)
                pipe.execute()
    except redis.RedisError as error:
        _muted_until = time.monotonic() + _MUTE_S
        log.warning("bell.silent", queue=queue, error=type(error).__name__)
        return False
    return True
