"""What is said of a source, once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from app.ledger.command import Command


@dataclass(frozen=True)
class Source:
    """A source of webhooks.

    Args:
        name: its folder, the end of its path, the beginning of its jobs' keys, and of its `…_WEBHOOK_SECRETS`.
        command: the job that keeps what was sent, whole.
        type_at: where in that job's payload the type of the event stands.
        status: the answer to what is kept.
        refusals: the statuses that what is sent may be refused with.
        summary, headers: for `/openapi.json`.
    """

    name: str
    command: type[Command]
    type_at: tuple[str, ...]
    status: int
    refusals: Sequence[int]
    summary: str
    headers: Mapping[str, str]

    @property
    def setting(self) -> str:
        """The setting that holds its secrets."""
        return f"{self.name}_webhook_secrets"

    def part(self, name: str) -> ModuleType:
        """A module of its folder: the web needs the verifier, workers the handlers, and the command line neither."""
        return import_module(f"app.sources.{self.name}.{name}")
