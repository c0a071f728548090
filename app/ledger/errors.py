"""The kinds of error. A handler raises one of these classes; anything else that it raises is transient.

Law 8: an error has a kind, and the kind alone decides what happens to the job.
"""

import random
from dataclasses import dataclass


class JobError(Exception):
    """A handler could not do its job. `kind` is what the history and the metrics call it."""

    kind = "transient"


class Transient(JobError):
    """Failed, and may succeed later: uses an attempt, then backoff."""


class Permanent(JobError):
    """Will never succeed: dead at once, with the message as its reason."""

    kind = "permanent"


class AlreadyDone(JobError):
    """The effect is there already: the job succeeds."""

    kind = "already_done"


class Busy(JobError):
    """Not now, through no fault of the job: waits without using an attempt.

    Args:
        retry_after: seconds to wait at least, where the other side named a time.
        give_up_after: seconds of nothing but waiting after which the job is dead for this reason.
    """

    kind = "busy"

    def __init__(self, message: str, *, retry_after: float | None = None, give_up_after: float = 3 * 86400) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.give_up_after = give_up_after


class Unavailable(Busy):
    """A service we depend on is down or refuses for load. A storm burns no attempts (failures.md 6)."""

    kind = "unavailable"


class Held(JobError):
    """A switch is off: the job is parked under `reason` until it is released, using no attempt."""

    kind = "held"

    def __init__(self, reason: str) -> None:
        super().__init__(f"held: {reason}")
        self.reason = reason


class LostLease(Exception):
    """This worker's attempt is over: another holds the job, or ops moved it. Nothing was committed."""

    def __init__(self, job_id: object, attempt: int) -> None:
        self.job_id, self.attempt = job_id, attempt
        super().__init__(f"attempt {attempt} of job {job_id} has lost its lease; its commit was refused")


@dataclass(frozen=True)
class Backoff:
    """How long to wait, in seconds, with jitter: between half of what is due and all of it."""

    base: float
    cap: float

    def after_tries(self, tries: int) -> float:
        """Exponential: `base * 2**(tries - 1)` at most, where `tries >= 1` attempts have failed."""
        return self._spread(self.base * 2 ** min(tries - 1, 30))

    def after_waiting(self, waited_s: float) -> float:
        """As long again as it has been waiting already, which is exponential, too, and needs no count."""
        return self._spread(max(self.base, waited_s))

    def _spread(self, seconds: float) -> float:
        return min(self.cap, seconds) * random.uniform(0.5, 1)  # noqa: S311


BACKOFF = {
    "transient": Backoff(base=1, cap=600),
    "busy": Backoff(base=0.25, cap=30),
    "unavailable": Backoff(base=1, cap=120),
    "crashed": Backoff(base=0.25, cap=2),
}
"""By kind of error. What is busy is looked at again soon; what is down is left alone for longer."""
