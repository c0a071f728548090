"""What the sandbox keeps: Stripe's objects as plain JSON, and ids that look like Stripe's.

A key that begins with an underscore is the sandbox's own note on an object (a signing secret, how a test
card behaves, when it is due next). `public` takes those out; nothing leaves the sandbox without it.
"""

import secrets
import string
from typing import Any

Object = dict[str, Any]

_ALPHABET = string.ascii_letters + string.digits


def random_chars(length: int) -> str:
    """`length` random letters and digits."""
    return "".join(_ALPHABET[byte % 62] for byte in secrets.token_bytes(length))


def new_id(prefix: str, length: int = 24) -> str:
    """An id as Stripe makes them, such as `pi_` and 24 characters (`cus_` and `prod_` have 14)."""
    return f"{prefix}_{random_chars(length)}"


def public(value: Any) -> Any:
    """A copy of a JSON value without the sandbox's own notes, at any depth."""
    if isinstance(value, dict):
        return {key: public(item) for key, item in value.items() if not key.startswith("_")}
    if isinstance(value, list):
        return [public(item) for item in value]
    return value


def list_object(url: str, data: list[Object], has_more: bool = False) -> Object:
    """Stripe's envelope around a page of objects."""
    return {"object": "list", "data": data, "has_more": has_more, "url": url}


def changed(old: Object, new: Object) -> Object:
    """What an `*.updated` event carries as `previous_attributes`: the old value of all that differs.

    Objects within are compared key by key, lists as a whole; a key that is new has null as its old value.
    """
    previous: Object = {}
    for key in [*old, *(key for key in new if key not in old)]:
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            previous[key] = changed(before, after)
        else:
            previous[key] = before
    return previous
