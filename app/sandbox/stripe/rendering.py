"""An object as it is answered: without the sandbox's own notes, and with what `expand` asked for."""

from collections.abc import Callable

from app.sandbox.stripe.account import Account
from app.sandbox.stripe.errors import InvalidParameter
from app.sandbox.stripe.objects import Object, public

MOST_LEVELS = 4

Includable = Callable[[Account, Object], Object | None]

_includables: dict[tuple[str, str], Includable] = {}


def includable(kind: str, name: str) -> Callable[[Includable], Includable]:
    """`@includable("charge", "refunds")` on what makes a field that is only there when it is asked for."""

    def register(make: Includable) -> Includable:
        _includables[(kind, name)] = make
        return make

    return register


def render(account: Account, obj: Object, expand: list[str]) -> Object:
    """The public form of an object. Raises `InvalidParameter` for a path that cannot be expanded."""
    out: Object = public(obj)
    for path in expand:
        parts = path.split(".")
        levels = parts[1:] if parts[0] == "data" else parts
        if len(levels) > MOST_LEVELS:
            message = f"You cannot expand more than {MOST_LEVELS} levels of a property (got {path})."
            raise InvalidParameter(message, code="property_expansion_max_depth", param="expand")
        _expand(account, out, parts, path)
    return out


def _expand(account: Account, node: Object, parts: list[str], path: str) -> None:
    head, rest = parts[0], parts[1:]
    if head == "data" and isinstance(node.get("data"), list):
        for item in node["data"]:
            if rest:
                _expand(account, item, rest, path)
        return
    included = head not in node
    if included:
        include = _includables.get((node.get("object", ""), head))
        if include is None:
            raise _cannot(path)
        node[head] = public(include(account, node))
    value = node[head]
    if isinstance(value, str):
        found = account.store.get(value)
        if found is None:
            raise _cannot(path)
        value = node[head] = public(found[0])
    if isinstance(value, dict):
        if rest:
            _expand(account, value, rest, path)
        elif "object" not in value and not included:
            raise _cannot(path)
    elif value is not None:
        raise _cannot(path)


def _cannot(path: str) -> InvalidParameter:
    message = f"This property cannot be expanded ({path})."
    return InvalidParameter(message, param="expand")
