"""Redis rings the bell: wake-ups for workers, over Dramatiq's own queues (law 3).

A wake-up says "this queue has work" and nothing else. What is lost with Redis is a wake-up, never a
job: the relay rings again for whatever is due.
"""

import atexit
import os
import threading
import time
from functools import cache
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.logs import log
from app.settings import SettingsError, get_settings

_MUTE_S = 1.0
"""After a failed ring, seconds in which this process does not try again."""


def make_redis(timeout_s: float, *, retries: int = 1, **options: Any) -> redis.Redis:
    """A client on REDIS_URL that gives up after `timeout_s` seconds, and tries a failed command `retries` times more.

    Raises:
        SettingsError: REDIS_URL is not set.
    """
    url = get_settings().redis_url
    if url is None:
        raise SettingsError(["REDIS_URL is not set and `tallyhook up` is not running here"])
    retry = Retry(NoBackoff(), retries)
    client: redis.Redis = redis.Redis.from_url(
        url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=retry, **options
    )
    return client


_connected_at = 0.0


def connected_at() -> float:
    """When a client of `note_connection` last connected here (seconds since 1970): before, Redis may have been
    away."""
    return _connected_at


def note_connection(connection: redis.Connection) -> None:
    """For a client's `redis_connect_func`: what `connected_at` tells."""
    global _connected_at
    _connected_at = time.time()
    connection.on_connect()  # type: ignore[no-untyped-call]


@cache
def get_redis() -> redis.Redis:
    """The client for what may be skipped when Redis is away: rings, caches, limits. Gives up after 0.5 s."""
    return make_redis(0.5, redis_connect_func=note_connection)


def bell_key(queue: str) -> str:
    """The Redis list that idle workers of `queue` wait on."""
    return f"tallyhook:bell:{queue}"


def ring(queue: str, name: str) -> None:
    """Wake a worker of `queue` through the actor `name`; returns at once and never fails.

    A thread of its own talks to Redis: nobody who has just committed waits for it, and rings that come
    while it talks become one.
    """
    _ringer.ask(queue, name)


class _Ringer:
    def __init__(self) -> None:
        self._asked: dict[str, str] = {}
        self._changed = threading.Condition()
        self._at_work = False
        self._started = False

    def ask(self, queue: str, name: str) -> None:
        with self._changed:
            self._asked[queue] = name
            if not self._started:
                threading.Thread(target=self._run, name="ringer", daemon=True).start()
                self._started = True
            self._changed.notify_all()

    def flush(self, timeout_s: float = 1.0) -> None:
        """Wait until everything asked for has been rung; a process that ends does."""
        with self._changed:
            self._changed.wait_for(lambda: not self._asked and not self._at_work, timeout_s)

    def _run(self) -> None:
        broker = RedisBroker(client=get_redis(), middleware=[])  # type: ignore[no-untyped-call]
        while True:
            with self._changed:
                self._at_work = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._asked)
                asked, self._asked = self._asked, {}
                self._at_work = True
            try:
                for queue, name in asked.items():
                    _ring(broker, queue, name)
            except redis.RedisError as error:
                log.warning("bell.silent", queues=sorted(asked), error=type(error).__name__)
                time.sleep(_MUTE_S)  # the relay rings for what was asked for meanwhile (failures.md 11)


def _ring(broker: RedisBroker, queue: str, name: str) -> None:
    """Send a wake-up unless one is pending: one that no worker has fetched yet. Whoever fetches that one claims
    after now, and so sees whatever was committed before now."""
    client = broker.client
    if client.llen(f"dramatiq:{queue}") == 0:
        broker.enqueue(dramatiq.Message(queue_name=queue, actor_name=name, args=(), kwargs={}, options={}))
        with client.pipeline(transaction=False) as pipe:
            pipe.lpush(bell_key(queue), b"1")
            pipe.ltrim(bell_key(queue), 0, 63)
            pipe.execute()


_ringer = _Ringer()


def _begin_anew() -> None:
    """A forked process has no threads: its first ring starts one."""
    global _ringer
    _ringer = _Ringer()


os.register_at_fork(after_in_child=_begin_anew)
atexit.register(lambda: _ringer.flush())
