"""Dramatiq's side of the bell: workers that wait for a ring in place of polling."""

import time
from collections.abc import Iterator
from typing import Any

import dramatiq
import redis
from dramatiq.broker import MessageProxy
from dramatiq.brokers.redis import RedisBroker

from app.ledger.bell import bell_key


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
        except (redis.ConnectionError, redis.TimeoutError) as error:
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
        return _BellConsumer(inner, self.client, bell_key(queue_name), timeout / 1000)

    def declare_queue(self, queue_name: str) -> None:
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)
