"""Stripe's form notation: `metadata[a]=b`, `expand[]=data.customer`, `items[0][price]=price_1`."""

import re
from typing import Any
from urllib.parse import parse_qsl

from app.sandbox.stripe.errors import InvalidParameter

_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_BRACKET = re.compile(r"\[([^\[\]]*)\]")


def decode(form: str) -> dict[str, Any]:
    """A form as a tree of dicts whose leaves are strings.

    Lists too come out as dicts, with their index as key: only who knows the parameter can tell the list
    `items[0]` from the map `metadata[0]`. Raises `InvalidParameter` for a name that is not well-formed.
    """
    tree: dict[str, Any] = {}
    for name, value in parse_qsl(form, keep_blank_values=True):
        match = _NAME.fullmatch(name)
        if match is None:
            raise InvalidParameter(f"Invalid parameter name: {name}", param=name)
        node = tree
        path = [match[1], *_BRACKET.findall(match[2])]
        for part, inner in zip(path, [*path[1:], None], strict=True):
            key = part or str(len(node))
            if inner is None:
                node[key] = value
                break
            child = node.setdefault(key, {})
            if not isinstance(child, dict):
                raise InvalidParameter(f"Invalid parameter: {match[1]}", param=match[1])
            node = child
    return tree


def bracketed(path: tuple[int | str, ...]) -> str:
    """The name of a nested parameter as Stripe writes it: `items[0][price]`."""
    first, *rest = path or ("",)
    return str(first) + "".join(f"[{part}]" for part in rest)
