"""The relay: one leads, any may; the calendar; what it survives."""

from contextlib import ExitStack
from datetime import datetime

import psycopg
import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.contracts.upkeep import PruneLedger
from app.db import get_engine
from app.ledger.bell import get_redis
from app.ledger.relay import Relay
from app.settings import get_settings
from tests.conftest import wait_until
from tests.ledger.commands import Act
from tests.ledger.scene import in_threads, lose_wakeups, relay_running, sql, submit
from tests.processes import Process, Processes

_RELAY = "import app.contracts.upkeep, tests.ledger.commands; from app.ledger.relay import Relay; Relay([]).run()"
_LEADERS = """
SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def _leader() -> str | None:
    rows = sql("SELECT leader FROM relay_status WHERE swept_at > clock_timestamp() - interval '2 s'")
    return str(rows[0][0]) if rows else None


def _leads(process: Process) -> bool:
    return (_leader() or "").endswith(f":{process.pid}")


def test_only_one_relay_leads_and_another_takes_over_when_it_is_killed(processes: Processes) -> None:
    first = processes.start_python(_RELAY)
    wait_until(lambda: _leads(first), what="the first to lead")
    second = processes.start_python(_RELAY)
    first.wait_for_output("relay.leads")
    with in_threads(1, second.wait_for_output, "relay.leads"):
        assert len(sql(_LEADERS)) == 1
        first.kill()
        wait_until(lambda: _leads(second), what="the second to lead")
    lose_wakeups()
    submit(Act(n=1))
    lose_wakeups()
    wait_until(lambda: get_redis().llen("dramatiq:test") == 1, what="the second's ring")


@pytest.mark.slow
def test_another_takes_over_from_a_relay_that_is_frozen(processes: Processes) -> None:
    """A frozen or unplugged machine keeps its session, and with it the lock, for as long as PostgreSQL lets it."""
    first = processes.start_python(_RELAY)
    wait_until(lambda: _leads(first), what="the first to lead")
    second = processes.start_python(_RELAY)
    first.pause()
    wait_until(lambda: _leads(second), timeout_s=20, what="the second to lead")


def test_a_relay_leads_again_after_its_session_was_cut() -> None:
    with relay_running():
        wait_until(_leader, what="a leader")
        url = get_settings().database_url
        assert url is not None
        with psycopg.connect(url, autocommit=True) as db:
            db.execute(_LEADERS.replace("SELECT pid", "SELECT pg_terminate_backend(pid, 5000)"))
        get_engine().dispose()
        sql("TRUNCATE relay_status")
        wait_until(_leader, what="a leader again")


def test_a_relay_survives_a_pool_that_has_no_connection_for_it() -> None:
    """failures.md 42: the pool is exhausted, then recovers."""
    relay = Relay([])
    with ExitStack() as pool:
        for _ in range(20):
            pool.enter_context(get_engine().connect())
        with in_threads(1, relay.run):
            try:
                with pytest.raises(PoolTimeout):  # it asks after the relay, and so is refused after the relay
                    get_engine().connect()
                pool.close()
                wait_until(_leader, what="a leader")
            finally:
                relay.stop()


def test_two_schedulers_make_one_job_a_period() -> None:
    def sweep_afresh() -> None:
        with get_engine().connect() as db:
            for _ in range(3):
                Relay([]).sweep(db)

    with in_threads(4, sweep_afresh):
        pass
    keys = [key for (key,) in sql("SELECT key FROM jobs WHERE name = 'prune_ledger'")]
    assert len(keys) == len(set(keys))
    hours = {datetime.fromisoformat(key.split(":", 1)[1]) for key in keys}
    assert all((hour.minute, hour.second) == (0, 0) for hour in hours)
    assert len(keys) <= 2, "one, or two when this test runs over the hour"
    assert {row.enqueued_by for row in sql("SELECT enqueued_by FROM jobs WHERE name = 'prune_ledger'")} == {"calendar"}
    assert PruneLedger.every == 3600


def test_a_relay_wakes_for_what_falls_due_between_two_sweeps() -> None:
    submit(Act(n=1))
    lose_wakeups()
    relay = Relay([])

    def wakes_for_it() -> bool:
        """Unless this machine took longer than those 300 ms to look."""
        sql("UPDATE jobs SET run_at = clock_timestamp() + interval '300 ms' WHERE queue = 'test'")
        with get_engine().connect() as db:
            return 0 < relay.sweep(db) <= 0.3

    wait_until(wakes_for_it, what="a wait that ends when the job is due")
