"""Events: a part of the system says what has happened, others say what follows, and the first knows none of them.

In one process and at once: what follows is commands, which are stored with what they follow from.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from app.ledger.command import Command

Event = TypeVar("Event", bound=BaseModel)
Listener = Callable[[Event], Sequence[Command]]

_listeners: dict[type[BaseModel], list[Callable[[Any], Sequence[Command]]]] = {}


def listens(event: type[Event]) -> Callable[[Listener[Event]], Listener[Event]]:
    """Have the decorated function asked, at each `event`, which commands follow from it."""

    def register(listener: Listener[Event]) -> Listener[Event]:
        _listeners.setdefault(event, []).append(listener)
        return listener

    return register


def publish(event: BaseModel) -> list[Command]:
    """The commands that follow from `event`, of all who listen; whoever publishes it enqueues them."""
    return [command for listener in _listeners.get(type(event), ()) for command in listener(event)]
