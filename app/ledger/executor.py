"""Run what was claimed: one handler at a time on each worker thread, its outcome by the kind of its error."""

import os
import socket
import threading
import time
from dataclasses import dataclass
from uuid import UUID, uuid4

import psycopg
import sqlalchemy.exc
from pydantic import ValidationError
from sqlalchemy import Connection
from structlog.contextvars import bound_contextvars

from app.db import get_database_url, get_engine, make_engine, transaction
from app.ledger.bell import ring
from app.ledger.claim import LEASE_S, Claim, claim, extend_leases
from app.ledger.command import COMMANDS
from app.ledger.errors import BACKOFF, AlreadyDone, Busy, Held, JobError, LostLease, Permanent
from app.ledger.finish import finish
from app.ledger.run import HANDLERS, Run
from app.ledger.states import State
from app.ledger.turns import Turns
from app.logs import describe, describe_with_frames, log
from app.metrics import ATTEMPTS, DURATION, REFUSED, WAITED

_BATCH = 20
"""Jobs claimed at once at most."""
_BATCH_S = 0.2
"""A claim takes about this much work, in seconds, so that slow jobs are claimed one at a time."""
_TURN_S = 1.0
"""Seconds that a thread stays with one queue before it lets the other queues have a turn."""
_BEAT_S = LEASE_S / 3
_ALONE_WAIT_S = 1.0
"""Seconds that a job which must run alone waits for those that run; no other begins meanwhile."""
_ALONE_AGAIN_S = 4.0
"""Seconds until it waits again."""


@dataclass
class _Ending:
    """What is to become of an attempt that its handler did not finish."""

    state: State
    outcome: str
    kind: str | None = None
    error: BaseException | None = None
    delay_s: float | None = None
    spare: bool = False
    busy: bool = False
    hold: str | None = None


def judge(claimed: Claim, error: BaseException) -> _Ending:
    """By the kind of `error`, what becomes of the job (law 8)."""
    match error:
        case AlreadyDone():
            return _Ending(State.SUCCEEDED, "succeeded", error.kind)
        case Held():
            return _Ending(State.HELD, "held", error.kind, error, spare=True, hold=error.reason)
        case Busy() if claimed.busy_s > error.give_up_after:
            return _Ending(State.DEAD, "dead", error.kind, error)
        case Busy():
            delay = max(BACKOFF[error.kind].after_waiting(claimed.busy_s), error.retry_after or 0)
            return _Ending(State.QUEUED, "busy", error.kind, error, delay_s=delay, spare=True, busy=True)
        case Permanent() | ValidationError():
            return _Ending(State.DEAD, "dead", "permanent", error)
        case _ if claimed.tries >= claimed.max_attempts:
            return _Ending(State.DEAD, "dead", "transient", error)
        case _:
            delay = BACKOFF["transient"].after_tries(claimed.tries)
            return _Ending(State.RETRYING, "retrying", "transient", error, delay_s=delay)


@dataclass
class _Held:
    """What a thread holds: the job that it runs, and those that it claimed along and has not begun."""

    claims: list[Claim]
    began: float
    """When the job at hand began (monotonic seconds)."""
    renewed: float
    """When the leases were last taken or extended (monotonic seconds)."""


class Executor:
    """The worker of one process: its name, its leases and their heartbeat.

    `drain` is what every Dramatiq actor does when it is woken. Threads share one executor.
    """

    def __init__(self, closed_gates: list[str]) -> None:
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:6]}"
        self._closed = closed_gates
        self._names = sorted(HANDLERS)
        self._mean_s: dict[str, float] = {}
        self._turns = Turns()
        self._lock = threading.Lock()
        self._held: dict[int, _Held] = {}
        self._stopping = threading.Event()
        self._stopped = threading.Event()
        self._heart: threading.Thread | None = None
        # Connections of its own: while busy threads have taken all of the pool, leases must not run out.
        self._engine = make_engine(get_database_url(), pool_size=2)

    def start(self) -> None:
        """Begin to beat. Until `stop`, jobs of this executor keep their leases while they run."""
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._heart.start()

    def request_stop(self) -> None:
        """Claim nothing more; running jobs go on."""
        self._stopping.set()

    def stop(self) -> None:
        """Hand back, without using an attempt, what is still claimed; then stop beating.

        A handler that is still at work is fenced off: its commit will be refused.
        """
        self.request_stop()
        with self._lock:
            held = [c for h in self._held.values() for c in h.claims]
            self._held.clear()
        self._hand_back(held, "handed back: the worker is shutting down")
        self._stopped.set()
        if self._heart is not None:
            self._heart.join(timeout=LEASE_S)
        self._engine.dispose()

    def drain(self, queue: str) -> None:
        """Claim and run the due jobs of `queue` until there are none, or it is the other queues' turn."""
        until = time.monotonic() + _TURN_S
        with get_engine().connect() as db:
            while not self._stopping.is_set():
                mean = self._mean_s.get(queue, _BATCH_S)
                limit = max(1, min(_BATCH, int(_BATCH_S / mean)))
                with self._turns.shared():
                    claims = claim(
                        db, queue=queue, names=self._names, closed=self._closed, owner=self.owner, limit=limit
                    )
                    if not claims:
                        return
                    if len(claims) == limit:
                        ring(queue, claims[0].name)  # there may be more: enlist another thread
                    if not claims[0].alone:
                        self._run_batch(db, claims)
                if claims[0].alone:
                    self._run_alone(db, claims)
                if time.monotonic() > until:
                    ring(queue, claims[0].name)
                    return

    def _run_alone(self, db: Connection, claims: list[Claim]) -> None:
        """Run a job that crashed again and again, with nothing beside it in this process. While a long job runs here
        it waits, in turns: nothing else could begin meanwhile."""
        with self._turns.alone(_ALONE_WAIT_S) as free:
            if free:
                self._run_batch(db, claims)
            else:
                self._hand_back(claims, "handed back: it must run alone, and others run", delay_s=_ALONE_AGAIN_S)

    def _run_batch(self, db: Connection, claims: list[Claim]) -> None:
        now = time.monotonic()
        mine = _Held(list(claims), began=now, renewed=now)
        me = threading.get_ident()
        with self._lock:
            self._held[me] = mine
        try:
            for claimed in claims:
                with self._lock:
                    now = mine.began = time.monotonic()
                    if claimed not in mine.claims:
                        continue  # handed back meanwhile
                    if now - mine.renewed > LEASE_S:
                        break  # this process was frozen: the rest belongs to others by now
                self._run_one(db, claimed)
                with self._lock:
                    if claimed in mine.claims:
                        mine.claims.remove(claimed)
                if self._stopping.is_set():
                    break
        finally:
            with self._lock:
                if self._held.get(me) is mine:
                    del self._held[me]
                left = list(mine.claims)
            self._hand_back(left, "handed back: not begun")

    def _run_one(self, db: Connection, claimed: Claim) -> None:
        with bound_contextvars(correlation_id=claimed.correlation_id, origin=f"job:{claimed.name}:{claimed.job_id}"):
            started = time.perf_counter()
            ending = self._attempt(db, claimed)
            duration = time.perf_counter() - started
            mean = self._mean_s.get(claimed.queue, duration)
            self._mean_s[claimed.queue] = mean + 0.1 * (duration - mean)
            WAITED.labels(claimed.queue).observe(max(claimed.wait_s, 0))
            DURATION.labels(claimed.queue, claimed.name).observe(duration)
            ATTEMPTS.labels(claimed.queue, claimed.name, ending.outcome, ending.kind or "").inc()
            log.info(
                "job." + ending.outcome,
                job=str(claimed.job_id),
                name=claimed.name,
                attempt=claimed.attempt,
                ms=round(duration * 1000, 1),
                **({"kind": ending.kind, "error": describe(ending.error)} if ending.error else {}),
            )

    def _attempt(self, db: Connection, claimed: Claim) -> _Ending:
        since = time.perf_counter()
        try:
            payload = COMMANDS[claimed.name].model_validate(claimed.payload)
            run = Run(db, claimed, payload, self.owner)
            HANDLERS[claimed.name](run)
            if not run.finished:
                with run.finish():
                    pass
            return _Ending(State.SUCCEEDED, "succeeded")
        except LostLease as error:
            REFUSED.labels(claimed.queue).inc()
            return _Ending(State.RUNNING, "refused", "lost_lease", error)
        except (Exception, SystemExit) as error:  # a library that calls sys.exit() fails its job, not the worker
            ending = judge(claimed, error)
            try:
                self._end(db, claimed, ending, time.perf_counter() - since)
            except LostLease as lost:
                REFUSED.labels(claimed.queue).inc()
                return _Ending(State.RUNNING, "refused", "lost_lease", lost)
            except (sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError, psycopg.Error) as lost_db:
                # The database is away. The lease runs out, and the relay gives the job back.
                return _Ending(State.RUNNING, "abandoned", "database", lost_db)
            return ending

    def _end(self, db: Connection, claimed: Claim, ending: _Ending, duration_s: float) -> None:
        unexpected = ending.error is not None and not isinstance(ending.error, JobError)
        with transaction(db):
            finish(
                db,
                claimed,
                worker=self.owner,
                duration_s=duration_s,
                state=ending.state,
                outcome=ending.outcome,
                delay_s=ending.delay_s,
                spare=ending.spare,
                hold=ending.hold,
                error_kind=ending.kind,
                busy=ending.busy,
                error_message=None if ending.error is None else describe(ending.error),
                traceback=describe_with_frames(ending.error) if unexpected and ending.error else None,
            )

    def _hand_back(self, claims: list[Claim], why: str, delay_s: float = 0) -> None:
        for claimed in claims:
            try:
                with self._engine.connect() as db, transaction(db):
                    finish(
                        db,
                        claimed,
                        worker=self.owner,
                        duration_s=0,
                        state=State.QUEUED,
                        outcome="handed_back",
                        delay_s=delay_s,
                        spare=True,
                        error_kind="crashed" if claimed.crashed else None,
                        error_message=why,
                    )
                ring(claimed.queue, claimed.name)
            except LostLease:
                continue  # it has ended in the meantime
            except (sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError) as error:
                log.warning("handback.failed", job=str(claimed.job_id), error=type(error).__name__)

    def _beat(self) -> None:
        while not self._stopped.wait(_BEAT_S):
            try:
                self._extend()
            except (sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError) as error:
                log.warning("heartbeat.failed", error=type(error).__name__)

    def _extend(self) -> None:
        now = time.monotonic()
        waiting: list[Claim] = []
        with self._lock:
            for held in self._held.values():
                if len(held.claims) > 1 and now - held.began > _BEAT_S:
                    # The job at hand is slow: let others have what was claimed along with it.
                    waiting += held.claims[1:]
                    del held.claims[1:]
            leases: list[tuple[UUID, int]] = [
                (c.job_id, c.attempt) for held in self._held.values() for c in held.claims
            ]
        self._hand_back(waiting, "handed back: the job before it is slow")
        if leases:
            with self._engine.connect() as db:
                kept = extend_leases(db, leases)
            with self._lock:
                for held in self._held.values():
                    if any(c.job_id in kept for c in held.claims):
                        held.renewed = now
