"""Law 3: PostgreSQL is the queue; Redis rings the bell, and may lose everything at any time."""

from dramatiq import Message

from app.ledger.bell import get_redis
from tests.conftest import wait_until
from tests.ledger.commands import Act
from tests.ledger.scene import (
    WORKER,
    drain,
    effects_per_job,
    give_signal,
    lose_wakeups,
    outcomes,
    relay_running,
    states,
    submit,
    sweep,
    time_passes,
    wait_for_state,
)
from tests.processes import Processes


def test_a_wake_up_says_that_there_is_work_and_nothing_else() -> None:
    submit(Act(n=1), Act(n=2), Act(n=3))
    redis = get_redis()
    wait_until(lambda: redis.llen("dramatiq:test"), what="the ring")
    [message_id] = redis.lrange("dramatiq:test", 0, -1)
    message = Message.decode(redis.hget("dramatiq:test.msgs", message_id))
    assert message.args == ()
    assert message.kwargs == {}
    assert message.queue_name == "test"


def test_jobs_that_wait_when_redis_is_emptied_all_run_once(processes: Processes) -> None:
    """failures.md 10."""
    submit(*(Act(n=n) for n in range(300)))
    wait_until(lambda: get_redis().llen("dramatiq:test"), what="the ring")  # or it would come after the loss
    lose_wakeups()
    processes.start_worker(WORKER, threads=4)
    with relay_running():
        wait_until(lambda: states() == {"succeeded": 300}, what="300 jobs done")
    assert effects_per_job() == dict.fromkeys(range(300), 1)


def test_redis_emptied_again_and_again_while_jobs_run_loses_none_and_doubles_none(processes: Processes) -> None:
    processes.start_worker(WORKER, threads=4)
    with relay_running():
        for batch in range(10):
            submit(*(Act(n=batch * 50 + n) for n in range(50)))
            lose_wakeups()
        wait_until(lambda: states() == {"succeeded": 500}, what="500 jobs done")
    assert effects_per_job() == dict.fromkeys(range(500), 1)


def test_a_wake_up_that_comes_twice_or_for_nothing_does_nothing(processes: Processes) -> None:
    processes.start_worker(WORKER, threads=4)
    redis = get_redis()
    [job_id] = submit(Act(n=1))
    wait_for_state(job_id, "succeeded")
    for copy in range(5):
        message = Message(
            queue_name="test", actor_name="act", args=(), kwargs={}, options={"redis_message_id": f"{copy}"}
        )
        redis.hset("dramatiq:test.msgs", f"{copy}", message.encode())
        redis.rpush("dramatiq:test", f"{copy}")
    wait_until(lambda: redis.hlen("dramatiq:test.msgs") == 0, what="every wake-up heard")
    assert outcomes(job_id) == ["succeeded"]
    assert effects_per_job() == {1: 1}


def test_a_retry_waits_in_the_ledger_and_not_in_redis() -> None:
    [job_id] = submit(Act(n=1, acts=("transient", "succeed")))
    drain()
    lose_wakeups()
    assert states() == {"retrying": 1}
    time_passes()
    wait_until(lambda: sweep() or get_redis().llen("dramatiq:test") == 1, what="the relay's ring for what is due")
    drain()
    assert outcomes(job_id) == ["retrying", "succeeded"]


def test_the_relay_does_not_pile_up_wake_ups_that_nobody_fetches() -> None:
    submit(*(Act(n=n) for n in range(20)))
    wait_until(lambda: get_redis().llen("dramatiq:test"), what="the ring")
    for _ in range(10):
        sweep()
    assert get_redis().llen("dramatiq:test") == 1


def test_a_job_is_not_kept_waiting_by_a_worker_that_sits_on_its_wake_ups(processes: Processes) -> None:
    """Dramatiq fetches ahead of its threads: a worker with no thread to spare takes wake-ups that it cannot heed."""
    [long] = submit(Act(n=1, acts=("wait",)))
    processes.start_worker(WORKER, threads=1)
    with relay_running():
        wait_for_state(long, "running")
        processes.start_worker(WORKER, threads=1)
        for n in range(2, 12):
            [short] = submit(Act(n=n))
            wait_for_state(short, "succeeded")
        assert states() == {"running": 1, "succeeded": 10}
        give_signal()
        wait_for_state(long, "succeeded")
