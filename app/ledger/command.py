"""A job is a payload class, a `Command`, and a handler that `jobs/` registers for it."""

import re
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

COMMANDS: dict[str, type["Command"]] = {}
"""Every kind of job that this code knows, by name."""


class Command(BaseModel):
    """What a job is to do: its payload, and the rules of its kind.

    A subclass names its queue in its class statement; its job's name is the class's in snake case:

        class IssueApiKey(Command, queue="provisioning"):
            customer_id: int

            @property
            def dedup_key(self) -> str:
                return f"issue_api_key:{self.customer_id}"

    Class keywords:
        queue: a class of work, which has workers, a depth and a pause of its own.
        max_attempts: attempts that end in a transient error or a crash before the job is dead.
        gate: the kill switch that holds jobs of this kind (`billing`), if any.
        every: for a periodic command, the period in seconds; it takes the period's start as `period`.
    """

    # A field that the next release added is ignored: its jobs must not die at a worker of this one.
    model_config = ConfigDict(frozen=True, extra="ignore")

    name: ClassVar[str]
    queue: ClassVar[str]
    max_attempts: ClassVar[int]
    gate: ClassVar[str | None]
    every: ClassVar[int | None]

    def __init_subclass__(
        cls,
        *,
        queue: str,
        max_attempts: int = 20,
        gate: str | None = None,
        every: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
        cls.queue, cls.max_attempts, cls.gate, cls.every = queue, max_attempts, gate, every
        COMMANDS[cls.name] = cls

    @property
    def dedup_key(self) -> str:
        """What makes a second submission the same job, for as long as keys are kept (90 days)."""
        raise NotImplementedError(f"{type(self).__name__} names no deduplication key")

    @property
    def held_by(self) -> str | None:
        """The kill switch that holds this job: its kind's, unless this one does nothing that the switch is for."""
        return self.gate

    @property
    def serialize_by(self) -> str | None:
        """Jobs with the same value never run at once (law 7); None waits for nobody."""
        return None

    @property
    def about_customer(self) -> int | None:
        """The customer that the job is about, where there is one yet."""
        return None


def queues() -> list[str]:
    """The queues of all known commands, in alphabetical order."""
    return sorted({command.queue for command in COMMANDS.values()})
