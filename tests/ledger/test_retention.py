"""How long the ledger remembers what."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from app.db import transaction
from app.ledger.ops import cancel
from app.ledger.retention import JOBS_KEPT, KEYS_KEPT, prune_jobs, prune_keys
from tests.ledger.commands import Act
from tests.ledger.scene import drain, sql, states, submit

_LATER = datetime.now(UTC) + JOBS_KEPT + timedelta(hours=1)
_MUCH_LATER = datetime.now(UTC) + KEYS_KEPT + timedelta(hours=1)


def _prune(now: datetime | None = None) -> None:
    with transaction() as db:
        prune_jobs(db, now)
        prune_keys(db, now)


def _one_in_every_state() -> dict[str, UUID]:
    acts = {"succeeded": "succeed", "dead": "permanent", "retrying": "bug", "held": "held"}
    ids = {name: submit(Act(n=n, acts=(act,)))[0] for n, (name, act) in enumerate(acts.items())}
    drain()
    ids["cancelled"] = submit(Act(n=8))[0]
    with transaction() as db:
        cancel(db, ids["cancelled"], actor="ada")
    ids["queued"] = submit(Act(n=9))[0]
    return ids


def test_nothing_is_pruned_before_its_time() -> None:
    _one_in_every_state()
    before = (sql("TABLE jobs"), sql("TABLE job_attempts"), sql("TABLE job_keys"))
    _prune()
    assert (sql("TABLE jobs"), sql("TABLE job_attempts"), sql("TABLE job_keys")) == before


def test_what_succeeded_or_was_cancelled_goes_with_its_history_and_all_else_stays() -> None:
    ids = _one_in_every_state()
    _prune(_LATER)
    assert states() == {"dead": 1, "retrying": 1, "held": 1, "queued": 1}
    left = {row.job_id for row in sql("SELECT job_id FROM job_attempts")}
    assert left == {ids["dead"], ids["retrying"], ids["held"]}
    assert sql("SELECT count(*) FROM job_keys") == [(6,)], "keys outlive their jobs"


def test_a_key_goes_after_its_time_and_never_before_its_job() -> None:
    _one_in_every_state()
    _prune(_MUCH_LATER)
    assert sql("SELECT count(*) FROM job_keys") == [(4,)]
    submit(Act(n=0))
    assert states()["queued"] == 2, "after 90 days it is a new job"


def test_a_job_that_took_long_is_kept_from_its_end_on() -> None:
    [job_id] = submit(Act(n=1, acts=("busy_later", "succeed")))
    sql("UPDATE job_keys SET created_at = created_at - interval '40 days'")
    drain()
    sql("UPDATE jobs SET run_at = clock_timestamp()")
    drain()
    assert states() == {"succeeded": 1}
    _prune(datetime.now(UTC) + JOBS_KEPT - timedelta(days=1))
    assert sql("SELECT id FROM jobs") == [(job_id,)]


def test_a_batch_of_jobs_without_any_attempt_does_not_look_like_the_end() -> None:
    """The upkeep job goes on until a batch prunes nothing."""
    ids = submit(*(Act(n=n) for n in range(3)))
    with transaction() as db:
        for job_id in ids:
            cancel(db, job_id, actor="ada")
    with transaction() as db:
        assert prune_jobs(db, _LATER), "three jobs were deleted"
    with transaction() as db:
        assert not prune_jobs(db, _LATER)
