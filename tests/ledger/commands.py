"""Jobs that do what a test tells them to, and leave traces in tables of their own.

A worker process imports this module, so it needs nothing of pytest.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from sqlalchemy import Connection

from app.db import get_engine, transaction
from app.ledger.command import Command
from app.ledger.enqueue import enqueue
from app.ledger.errors import AlreadyDone, Busy, Held, Permanent, Transient, Unavailable
from app.ledger.run import Run, handles

TABLES = """
CREATE TABLE IF NOT EXISTS test_begun (
    n integer, attempt integer, pid integer, at timestamptz DEFAULT clock_timestamp());
CREATE TABLE IF NOT EXISTS test_effects (
    n integer, attempt integer, at timestamptz DEFAULT clock_timestamp());
CREATE TABLE IF NOT EXISTS test_spans (
    key text, n integer, began timestamptz DEFAULT clock_timestamp(), ended timestamptz);
CREATE TABLE IF NOT EXISTS test_signals (name text PRIMARY KEY);
"""
"""`test_begun`: attempts that began, committed as they begin. `test_effects`: what jobs are for; nothing
makes its rows unique, so that a second effect shows. `test_spans`: when a job with a key was at work.
`test_signals`: what waiting jobs wait for."""

EVENT = threading.Event()
"""What `wait_for_event` waits for, where test and worker are one process."""

OPAQUE_SECRET = "gAAAAABkVerySealedThing"  # in the form of no secret that redaction knows


class Act(Command, queue="test", max_attempts=3):
    """Do `acts[0]` at the first attempt, `acts[1]` at the second, …, and the last one from then on."""

    n: int
    acts: tuple[str, ...] = ("succeed",)
    line: str | None = None
    """Its `serialize_by`."""

    @property
    def dedup_key(self) -> str:
        return f"{self.name}:{self.n}"

    @property
    def serialize_by(self) -> str | None:
        return self.line


class OtherAct(Act, queue="test_other", max_attempts=3):
    """The same on another queue."""


class GatedAct(Act, queue="test", max_attempts=3, gate="test_gate"):
    """The same behind a kill switch."""


class BriefAct(Act, queue="test", max_attempts=1):
    """The same with one attempt only."""


class Turn(Command, queue="test"):
    """Be at work for 5 ms, as one of a line of jobs."""

    n: int
    line: str

    @property
    def dedup_key(self) -> str:
        return f"turn:{self.line}:{self.n}"

    @property
    def serialize_by(self) -> str:
        return self.line


class NewerAct(Command, queue="test"):
    """A kind of job that this release has no handler for, as an old worker sees the next release's."""

    n: int

    @property
    def dedup_key(self) -> str:
        return f"newer_act:{self.n}"


def leave_effect(db: Connection, run: Run[Act]) -> None:
    """What the job is for."""
    db.exec_driver_sql(
        "INSERT INTO test_effects (n, attempt) VALUES (%(n)s, %(attempt)s)",
        {"n": run.payload.n, "attempt": run.claim.attempt},
    )


def wait_for_signal(name: str, timeout_s: float = 30.0) -> None:
    """Return once the test has given the signal; on a connection of its own."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with get_engine().connect() as other, transaction(other):
            if other.exec_driver_sql("SELECT 1 FROM test_signals WHERE name = %(name)s", {"name": name}).first():
                return
        time.sleep(0.01)
    raise RuntimeError(f"nobody gave the signal {name}")


def _succeed(run: Run[Act]) -> None:
    with run.finish() as db:
        leave_effect(db, run)


def _wait(run: Run[Act]) -> None:
    wait_for_signal("go")
    _succeed(run)


def _wait_for_event(run: Run[Act]) -> None:
    if not EVENT.wait(timeout=30):
        raise RuntimeError("nobody set the event")
    _succeed(run)


def _take_a_while(run: Run[Act]) -> None:
    with run.transaction() as db:
        db.exec_driver_sql("SELECT pg_sleep(1)")
    _succeed(run)


def _wait_in_finish(run: Run[Act]) -> None:
    with run.finish() as db:
        leave_effect(db, run)
        enqueue(db, Act(n=run.payload.n + 1000))
        wait_for_signal("go")


def _wait_then_write_early(run: Run[Act]) -> None:
    wait_for_signal("go")
    with run.transaction() as db:
        leave_effect(db, run)
    with run.finish():
        pass


def _fail_with_effect(run: Run[Act]) -> None:
    with run.finish() as db:
        leave_effect(db, run)
        enqueue(db, Act(n=run.payload.n + 1000))
        raise RuntimeError("after the effect")


def _enqueue_next(run: Run[Act]) -> None:
    with run.finish() as db:
        leave_effect(db, run)
        enqueue(db, Act(n=run.payload.n + 1000))


def _do_nothing(run: Run[Act]) -> None:
    return


def _die(run: Run[Act]) -> None:
    """Kill this worker and Dramatiq's parent, as a container's end does; a test starts both in a group of their own."""
    os.killpg(0, signal.SIGKILL)


def _die_in_company(run: Run[Act]) -> None:
    """Die when eight jobs run, or after a second in which that was not so."""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        with run.transaction() as db:
            if db.exec_driver_sql("SELECT count(*) FROM jobs WHERE state = 'running'").scalar_one() == 8:
                break
        time.sleep(0.01)
    _die(run)


def _exit(run: Run[Act]) -> None:
    sys.exit("a library that thinks it owns the process")


def _break_a_constraint(run: Run[Act]) -> None:
    with run.finish() as db:
        db.exec_driver_sql(
            "INSERT INTO job_keys (key, job_id) VALUES (%(sealed)s, NULL)",
            {"sealed": OPAQUE_SECRET},
        )


def _raiser(error: Callable[[], BaseException]) -> Callable[[Run[Act]], None]:
    def fail(run: Run[Act]) -> None:
        raise error()

    return fail


ACTS: dict[str, Callable[[Run[Act]], None]] = {
    "succeed": _succeed,
    "wait": _wait,
    "take_a_while": _take_a_while,
    "wait_for_event": _wait_for_event,
    "wait_in_finish": _wait_in_finish,
    "wait_then_write_early": _wait_then_write_early,
    "fail_with_effect": _fail_with_effect,
    "enqueue_next": _enqueue_next,
    "do_nothing": _do_nothing,
    "die": _die,
    "die_in_company": _die_in_company,
    "exit": _exit,
    "break_a_constraint": _break_a_constraint,
    "transient": _raiser(lambda: Transient("the line was cut")),
    "bug": _raiser(lambda: KeyError("somebody's mistake")),
    "permanent": _raiser(lambda: Permanent("the plan does not exist")),
    "permanent_with_nul": _raiser(lambda: Permanent("a sender's byte: \x00")),
    "permanent_with_surrogate": _raiser(lambda: Permanent("half a character: \ud800")),
    "already_done": _raiser(lambda: AlreadyDone("it is there")),
    "busy": _raiser(lambda: Busy("somebody else holds it")),
    "busy_later": _raiser(lambda: Busy("come back in an hour", retry_after=3600)),
    "busy_for_an_hour_at_most": _raiser(lambda: Busy("still not there", give_up_after=3600)),
    "unavailable": _raiser(lambda: Unavailable("503")),
    "held": _raiser(lambda: Held("approval")),
    "held_by_gate": _raiser(lambda: Held("test_gate")),
    "leak": _raiser(
        lambda: RuntimeError(
            "rsolv_abcdefghijklmnop sk_live_51Habcdefgh whsec_abcdef12345 4242 4242 4242 4242"
            " ada.lovelace@example.com postgresql://root:hunter2@db/x Bearer abcdefgh12345678"
        )
    ),
}


@handles(OtherAct)
@handles(BriefAct)
@handles(GatedAct)
@handles(Act)
def act(run: Run[Act]) -> None:
    """Say that the attempt has begun, then do as told."""
    with run.transaction() as db:
        db.exec_driver_sql(
            "INSERT INTO test_begun (n, attempt, pid) VALUES (%(n)s, %(attempt)s, %(pid)s)",
            {"n": run.payload.n, "attempt": run.claim.attempt, "pid": os.getpid()},
        )
    acts = run.payload.acts
    ACTS[acts[min(run.claim.attempt, len(acts)) - 1]](run)


@handles(Turn)
def turn(run: Run[Turn]) -> None:
    """Write down from when to when it was at work."""
    job = run.payload.model_dump()
    with run.transaction() as db:
        db.exec_driver_sql("INSERT INTO test_spans (key, n) VALUES (%(line)s, %(n)s)", job)
        db.exec_driver_sql("SELECT pg_sleep(0.005)")
    with run.finish() as db:
        db.exec_driver_sql(
            "UPDATE test_spans SET ended = clock_timestamp() WHERE key = %(line)s AND n = %(n)s AND ended IS NULL", job
        )
