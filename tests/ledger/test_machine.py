"""The ledger against a model of it: any order of what callers, workers, the relay and ops can do.

The model keeps, of each job, what a person would say of it: its state, the attempts that it has used and
how often it had its effect. Workers that crash keep their claim, and try to commit it later.
"""

from dataclasses import dataclass
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.db import get_engine, transaction
from app.ledger import ops
from app.ledger.claim import Claim, claim
from app.ledger.enqueue import enqueue
from app.ledger.errors import AlreadyDone, Busy, Held, JobError, LostLease, Permanent, Transient
from app.ledger.executor import judge
from app.ledger.finish import finish
from app.ledger.relay import Relay
from app.ledger.run import Run
from tests.ledger.commands import Act, BriefAct, GatedAct, leave_effect
from tests.ledger.scene import make_tables, sql

_GATE = "test_gate"


@dataclass
class _Job:
    """What the model knows of a job. `used`: attempts of its present budget; `claims`: all of them."""

    line: str | None
    gated: bool
    max_attempts: int
    state: str = "queued"
    used: int = 0
    claims: int = 0
    ended: int = 0
    effects: int = 0
    hold: str | None = None


class LedgerMachine(RuleBasedStateMachine):
    """Each rule does one thing to the ledger and says what must come of it."""

    @initialize()
    def begin(self) -> None:
        make_tables()
        sql("TRUNCATE jobs, job_keys, job_attempts, queue_pauses, operator_actions, test_effects")
        self.jobs: dict[UUID, _Job] = {}
        self.keys: dict[str, UUID] = {}
        self.gate_closed = False
        self.paused = False
        self.current: dict[UUID, Claim] = {}
        self.stale: list[Claim] = []
        for n in range(3):
            self.submit(n=n, line=None, kind=Act)

    @rule(n=st.integers(0, 8), line=st.sampled_from([None, "a", "b"]), kind=st.sampled_from([Act, GatedAct, BriefAct]))
    def submit(self, n: int, line: str | None, kind: type[Act]) -> None:
        command = kind(n=n, line=line)
        with transaction() as db:
            answer = enqueue(db, command)
        known = self.keys.get(command.dedup_key)
        assert answer.duplicate == (known is not None)
        assert known in (None, answer.job_id)
        if known is None:
            self.keys[command.dedup_key] = answer.job_id
            self.jobs[answer.job_id] = _Job(line, kind is GatedAct, kind.max_attempts)

    @rule(limit=st.integers(1, 4))
    def claim(self, limit: int) -> None:
        closed = [_GATE] if self.gate_closed else []
        with get_engine().connect() as db:
            claims = claim(
                db, queue="test", names=["act", "gated_act", "brief_act"], closed=closed, owner="w", limit=limit
            )
        # However long this machine pauses, a lease runs out when a rule says so.
        sql("UPDATE jobs SET lease_until = clock_timestamp() + interval '1 hour' WHERE state = 'running'")
        for claimed in claims:
            job = self.jobs[claimed.job_id]
            assert job.state in ("queued", "retrying")
            assert not (self.gate_closed and job.gated)
            assert not self.paused
            job.state, job.used, job.claims = "running", job.used + 1, job.claims + 1
            assert claimed.attempt == job.claims
            assert (claimed.tries, claimed.max_attempts) == (job.used, job.max_attempts)
            self.current[claimed.job_id] = claimed

    def _commit(self, claimed: Claim) -> None:
        with get_engine().connect() as db:
            run = Run(db, claimed, Act.model_validate(claimed.payload), "w")
            with run.finish() as inner:
                leave_effect(inner, run)

    @precondition(lambda self: self.current)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        claimed = self.current[data.draw(st.sampled_from(sorted(self.current)))]
        self._commit(claimed)
        self._end(claimed, "succeeded")
        self.jobs[claimed.job_id].effects += 1

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def wake_up_too_late(self, data: st.DataObject) -> None:
        """Preferably while another has the job: then the number of the attempt alone tells them apart."""
        running = [claimed for claimed in self.stale if claimed.job_id in self.current]
        with pytest.raises(LostLease):
            self._commit(data.draw(st.sampled_from(running or self.stale)))

    @precondition(lambda self: self.current)
    @rule(
        data=st.data(),
        error=st.sampled_from(
            [
                Transient("x"),
                ValueError("x"),
                Permanent("x"),
                AlreadyDone("x"),
                Busy("x"),
                Busy("x", give_up_after=-1),
                Held("approval"),
                Held(_GATE),
            ]
        ),
    )
    def fail(self, data: st.DataObject, error: Exception) -> None:
        claimed = self.current[data.draw(st.sampled_from(sorted(self.current)))]
        ending = judge(claimed, error)
        with get_engine().connect() as db, transaction(db):
            finish(
                db,
                claimed,
                worker="w",
                duration_s=0,
                state=ending.state,
                outcome=ending.outcome,
                delay_s=None if ending.delay_s is None else 0,
                spare=ending.spare,
                hold=ending.hold,
                error_kind=ending.kind,
                busy=ending.busy,
                error_message=str(error),
            )
        job = self.jobs[claimed.job_id]
        waits = isinstance(error, Held) or (isinstance(error, Busy) and error.give_up_after > 0)
        if isinstance(error, Held):
            self._end(claimed, "held")
            job.hold = error.reason
        elif waits:
            self._end(claimed, "queued")
        elif isinstance(error, AlreadyDone):
            self._end(claimed, "succeeded")
        elif isinstance(error, Permanent | Busy) or job.used >= job.max_attempts:
            self._end(claimed, "dead")
        else:
            assert not isinstance(error, JobError) or isinstance(error, Transient)
            self._end(claimed, "retrying")
        job.used -= waits

    def _after_a_crash(self, claimed: Claim, begun: bool) -> str:
        """What was claimed along with another job, and not begun, has used nothing."""
        job = self.jobs[claimed.job_id]
        job.used -= not begun
        return "dead" if begun and job.used >= job.max_attempts else "retrying"

    def _begun(self) -> set[UUID]:
        return {job_id for (job_id,) in sql("SELECT id FROM jobs WHERE state = 'running' AND started_at IS NOT NULL")}

    def _end(self, claimed: Claim, state: str) -> None:
        del self.current[claimed.job_id]
        job = self.jobs[claimed.job_id]
        job.state, job.ended = state, job.ended + 1

    @precondition(lambda self: self.current)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """A worker stops for long enough to lose its lease, and may try to commit after that."""
        job_id = data.draw(st.sampled_from(sorted(self.current)))
        sql("UPDATE jobs SET lease_until = clock_timestamp() - interval '1 s' WHERE id = %(id)s", id=job_id)
        claimed, begun = self.current[job_id], job_id in self._begun()
        self.stale.append(claimed)
        self._sweep()
        self._end(claimed, self._after_a_crash(claimed, begun))
        sql("UPDATE jobs SET run_at = clock_timestamp() WHERE id = %(id)s", id=job_id)

    def _sweep(self) -> None:
        with get_engine().connect() as db:
            Relay([_GATE] if self.gate_closed else []).sweep(db)
        for job in self.jobs.values():
            stopped = self.paused or (self.gate_closed and job.gated)
            if job.state in ("queued", "retrying") and stopped:
                job.state, job.hold = "held", _GATE if self.gate_closed and job.gated else "paused"
            elif job.state == "held" and not stopped and (job.hold == "paused" or (job.gated and job.hold == _GATE)):
                job.state, job.hold = "queued", None

    @rule()
    def sweep(self) -> None:
        self._sweep()

    @rule(closed=st.sampled_from([False, False, True]))
    def flip_the_gate(self, closed: bool) -> None:
        self.gate_closed = closed

    @rule(paused=st.sampled_from([False, False, True]))
    def pause_or_resume(self, paused: bool) -> None:
        with transaction() as db:
            changed = (ops.pause_queue if paused else ops.resume_queue)(db, "test", actor="ada")
        assert changed == (paused != self.paused)
        self.paused = paused

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), what=st.sampled_from(["requeue", "cancel", "release"]))
    def operate(self, data: st.DataObject, what: str) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.jobs)))
        job = self.jobs[job_id]
        allowed = {
            "requeue": job.state in ("dead", "cancelled"),
            "cancel": job.state in ("queued", "retrying", "held"),
            "release": job.state == "held",
        }[what]
        try:
            with transaction() as db:
                getattr(ops, what)(db, job_id, actor="ada")
        except ops.NotAllowed:
            assert not allowed
            return
        assert allowed, f"{what} of a job that is {job.state}"
        job.state, job.hold = "cancelled" if what == "cancel" else "queued", None
        if what == "requeue":
            job.used = 0

    @invariant()
    def the_ledger_is_as_the_model_says(self) -> None:
        rows = sql(
            """SELECT id, state, attempt - spared AS used, attempt, hold, blocked,
                      (SELECT count(*) FROM job_attempts a WHERE a.job_id = jobs.id) AS history,
                      (SELECT count(*) FROM test_effects e
                       WHERE e.n = (payload ->> 'n')::int AND (jobs.name || ':' || e.n) = key
                         AND EXISTS (SELECT FROM job_attempts a WHERE a.job_id = jobs.id AND a.attempt = e.attempt
                                     AND a.outcome = 'succeeded')) AS effects
               FROM jobs WHERE queue = 'test'"""
        )
        kept = {r.id: (r.state, r.used, r.attempt, r.history, r.hold) for r in rows}
        assert kept == {i: (j.state, j.used, j.claims, j.ended, j.hold) for i, j in self.jobs.items()}
        lines = [self.jobs[job_id].line for job_id in self.current if self.jobs[job_id].line]
        assert len(lines) == len(set(lines)), "two of one line at once"
        assert sql("SELECT count(*) FROM test_effects") == [(sum(j.effects for j in self.jobs.values()),)]
        assert all(job.effects <= 1 for job in self.jobs.values())

    def teardown(self) -> None:
        """Whatever has happened: with everything open and no worker left, every job that may run does."""
        if not hasattr(self, "jobs"):
            return
        self.gate_closed = False
        self.pause_or_resume(paused=False)
        sql("UPDATE jobs SET lease_until = clock_timestamp() - interval '1 s' WHERE state = 'running'")
        begun = self._begun()
        for claimed in list(self.current.values()):
            self._end(claimed, self._after_a_crash(claimed, claimed.job_id in begun))
        self._sweep()
        sql("UPDATE jobs SET run_at = clock_timestamp() WHERE state = 'retrying'")
        for _ in range(3 * len(self.jobs)):
            self.claim(limit=10)
            for claimed in list(self.current.values()):
                self._commit(claimed)
                self._end(claimed, "succeeded")
                self.jobs[claimed.job_id].effects += 1
            self._sweep()
        self.the_ledger_is_as_the_model_says()
        left = {job.state for job in self.jobs.values()} - {"succeeded", "dead", "cancelled"}
        assert left <= {"held"}
        assert {job.hold for job in self.jobs.values() if job.state == "held"} <= {"approval", _GATE}


# Not shrunk: the long run below finds the short way to what this one finds in seconds.
LedgerMachine.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
TestLedger = LedgerMachine.TestCase


@pytest.mark.slow
def test_the_ledger_against_its_model_for_longer() -> None:
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=600, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
