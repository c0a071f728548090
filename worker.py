"""Dramatiq's entry point: `dramatiq worker --processes 1 --threads 8`.

Every kind of job is an actor by its name, and every actor does the same when a message wakes it: drain
its queue in the ledger. There is no retry middleware on purpose: retries live in the ledger (law 3).
"""

from functools import partial

import dramatiq
from dramatiq.middleware import Middleware
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

import jobs  # noqa: F401  (registers every handler)
from app.ledger.bell import make_redis
from app.ledger.broker import BellBroker
from app.ledger.command import COMMANDS
from app.ledger.executor import Executor
from app.ledger.gates import closed_gates
from app.ledger.run import HANDLERS
from app.logs import configure_logs, log
from app.settings import settings_or_exit


class _Lifecycle(Middleware):
    """Ties the executor to its Dramatiq worker: it beats while the worker lives, and hands back at the end."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def after_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        self._executor.start()

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        self._executor.request_stop()

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        self._executor.stop()


def make_broker() -> BellBroker:
    """A broker with one actor for each kind of job that `jobs/` handles."""
    executor = Executor(closed_gates())

    def drain(queue: str) -> None:
        try:
            executor.drain(queue)
        except (DBAPIError, PoolTimeout) as error:
            log.warning("drain.failed", queue=queue, error=type(error).__name__)  # the relay rings again

    broker = BellBroker(client=make_redis(5.0), middleware=[_Lifecycle(executor)])  # type: ignore[no-untyped-call]
    for name in HANDLERS:
        queue = COMMANDS[name].queue
        dramatiq.actor(broker=broker, actor_name=name, queue_name=queue)(partial(drain, queue))
    return broker


configure_logs()
settings_or_exit()
dramatiq.set_broker(make_broker())
