"""What a test of the ledger does and asks, in a line each."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from app.db import get_engine, transaction
from app.ledger import bell, ops
from app.ledger.command import Command
from app.ledger.enqueue import enqueue
from app.ledger.executor import Executor
from app.ledger.relay import Relay
from tests.conftest import wait_until
from tests.ledger.commands import TABLES

WORKER = "tests.ledger.worker"


def make_tables() -> None:
    """Make the tables in which the tests' jobs leave their traces, where they are not there yet."""
    with transaction() as db:
        db.exec_driver_sql(TABLES)


def lose_wakeups() -> None:
    """As a FLUSHALL does, to every ring so far: one that is still on its way would come after it."""
    bell._ringer.flush()
    bell.get_redis().flushdb()


def sql(statement: str, **parameters: Any) -> list[Any]:
    """The rows of one statement, in a transaction of its own."""
    with transaction() as db:
        result = db.exec_driver_sql(statement, parameters)
        return list(result.all()) if result.returns_rows else []


def submit(*commands: Command) -> list[UUID]:
    """Enqueue them, in one transaction."""
    with transaction() as db:
        return [enqueue(db, command).job_id for command in commands]


def show(job_id: UUID) -> dict[str, Any]:
    """What ops see of a job."""
    with transaction() as db:
        return ops.show_job(db, job_id)


def state(job_id: UUID) -> str:
    return str(sql("SELECT state FROM jobs WHERE id = %(id)s", id=job_id)[0][0])


def states() -> dict[str, int]:
    """How many of the tests' jobs are in each state."""
    return dict(sql("SELECT state, count(*) FROM jobs WHERE queue LIKE 'test%%' GROUP BY state"))


def outcomes(job_id: UUID) -> list[str]:
    """How its attempts went, in their order."""
    return [attempt["outcome"] for attempt in show(job_id)["history"]]


def effects(n: int) -> int:
    """How often job `n` had its effect."""
    return int(sql("SELECT count(*) FROM test_effects WHERE n = %(n)s", n=n)[0][0])


def begun(n: int) -> int:
    """How many attempts at job `n` have begun."""
    return int(sql("SELECT count(*) FROM test_begun WHERE n = %(n)s", n=n)[0][0])


def effects_per_job() -> dict[int, int]:
    return dict(sql("SELECT n, count(*) FROM test_effects GROUP BY n"))


def give_signal(name: str = "go") -> None:
    """Let the jobs that wait for it go on."""
    sql("INSERT INTO test_signals VALUES (%(name)s)", name=name)


def drain(queue: str = "test", closed: tuple[str, ...] = ()) -> None:
    """Be a worker in this thread until nothing of `queue` can be claimed."""
    executor = Executor(list(closed))
    while True:
        before = _attempts()
        executor.drain(queue)
        if _attempts() == before:
            return


def _attempts() -> int:
    return int(sql("SELECT coalesce(sum(attempt), 0) FROM jobs")[0][0])


def sweep(closed: tuple[str, ...] = ()) -> None:
    """One round of a relay."""
    with get_engine().connect() as db:
        Relay(list(closed)).sweep(db)


def time_passes() -> None:
    """Whatever waits for its time is due."""
    sql("UPDATE jobs SET run_at = clock_timestamp() WHERE state IN ('queued', 'retrying')")


def leases_expire(which: str = "", **parameters: Any) -> None:
    """As after `LEASE_S` without a heartbeat; `which` is one more condition on `jobs`."""
    sql(
        f"UPDATE jobs SET lease_until = clock_timestamp() - interval '1 ms' WHERE state = 'running' {which}",
        **parameters,
    )


def wait_for_state(job_id: UUID, wanted: str, timeout_s: float = 30.0) -> None:
    wait_until(lambda: state(job_id) == wanted, timeout_s, f"{wanted} of the job")


@contextmanager
def relay_running(closed: tuple[str, ...] = ()) -> Iterator[Relay]:
    """A relay in a thread of this process."""
    relay = Relay(list(closed))
    thread = threading.Thread(target=relay.run, name="relay")
    thread.start()
    try:
        yield relay
    finally:
        relay.stop()
        thread.join()


@contextmanager
def in_threads(count: int, target: Any, *args: Any) -> Iterator[None]:
    """Run `target` in `count` threads that begin together; an error in one of them fails the test."""
    barrier = threading.Barrier(count)
    errors: list[BaseException] = []

    def begin() -> None:
        barrier.wait()
        try:
            target(*args)
        except BaseException as error:  # reported below, in the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=begin) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
