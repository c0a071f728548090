"""What happens by itself as time passes: an object says in `_due` when it wants attention next.

A resource registers what it then does. It has to set a later `_due`, or take it out.
"""

from collections.abc import Callable
from typing import TypeVar

from app.sandbox.stripe.account import Account
from app.sandbox.stripe.objects import Object

Attend = Callable[[Account, Object], Object | None]
A = TypeVar("A", bound=Attend)

_attend: dict[str, Attend] = {}


def when_due(kind: str) -> Callable[[A], A]:
    """`@when_due("subscription")` on what attends to a subscription that is due."""

    def register(attend: A) -> A:
        _attend[kind] = attend
        return attend

    return register


def run(account: Account, object_id: str) -> None:
    """Attends to one object that is due. Raises `RuntimeError` where it stays due, which would never end."""
    found = account.store.get(object_id)
    if found is None:
        return
    obj = found[0]
    was_due = obj["_due"]
    _attend[obj["object"]](account, obj)
    after = account.store.get(object_id)
    if after and after[0].get("_due") is not None and after[0]["_due"] <= was_due:
        raise RuntimeError(f"{object_id} is still due at {was_due} after it was attended to")
