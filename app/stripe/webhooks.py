"""What Stripe posts: whether it has signed it, whether it is an event, and what a thin one is about (stripe.md,
"Webhooks")."""

import hmac
import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import orjson
from pydantic import SecretStr

from app.ledger.errors import Permanent
from app.settings import get_settings
from app.stripe.client import NotFound, asking, client

TOLERANCE_S = 300
"""Seconds between the time of a signature and ours, before or after (failures.md 19)."""

_MAX_ID = 200
_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


class NotSigned(Exception):
    """The body has no signature that counts; the message tells the sender why."""


class NotAnEvent(Exception):
    """The body is no event of Stripe's."""


def verify(body: bytes, header: str | None, secrets: Sequence[SecretStr], now: float) -> None:
    """Refuse what none of `secrets` has signed at about `now` (seconds since 1970).

    Not the SDK's check: that takes one secret, a time in any future and the first of several times, and fails on
    bytes that are no text.

    Args:
        header: `Stripe-Signature`: one `t`, and any number of `v1`, as while a secret is rolled over (failures.md 18).

    Raises:
        NotSigned
    """
    parts = [part.strip().partition("=") for part in (header or "").split(",")]
    times = [value for scheme, _, value in parts if scheme == "t"]
    given = [value.encode() for scheme, _, value in parts if scheme == "v1"]
    if len(times) != 1 or not re.fullmatch("[0-9]{1,15}", times[0]) or not given:
        raise NotSigned("Stripe-Signature must have one t and at least one v1.")
    signed = times[0].encode() + b"." + body
    valid = [hmac.new(s.get_secret_value().encode(), signed, sha256).hexdigest().encode() for s in secrets]
    if not any(hmac.compare_digest(mine, theirs) for mine in valid for theirs in given):
        raise NotSigned("No signature in Stripe-Signature is one of this body by a secret of ours.")
    if abs(now - int(times[0])) > TOLERANCE_S:
        raise NotSigned(f"The signature is not from the last or the next {TOLERANCE_S} seconds.")


def read_json(body: bytes) -> Any:
    """What a body of Stripe's says. A NUL in a text, which the database cannot hold, becomes U+FFFD.

    Raises:
        orjson.JSONDecodeError
    """
    return orjson.loads(_NUL.sub(rb"\1\\ufffd", body) if rb"\u0000" in body else body)


def read_event(body: bytes) -> dict[str, Any]:
    """The event that a body is, whole or thin.

    Raises:
        NotAnEvent
    """
    try:
        event = read_json(body)
    except orjson.JSONDecodeError:
        raise NotAnEvent("The body is not JSON.") from None
    if not isinstance(event, dict) or event.get("object") not in ("event", "v2.core.event"):
        raise NotAnEvent("The body is no event.")
    for name in ("id", "type"):
        value = event.get(name)
        if not isinstance(value, str) or not 1 <= len(value) <= _MAX_ID or not value.isprintable():
            raise NotAnEvent(f"The event has no {name}.")
    return event


def fits_our_key(event: dict[str, Any]) -> bool:
    """Whether the event is of the mode, live or test, of STRIPE_SECRET_KEY (failures.md 20)."""
    key = get_settings().stripe_secret_key
    live = key is not None and "_live_" in key.get_secret_value()
    return live is (event.get("livemode") is True)


def is_thin(event: dict[str, Any]) -> bool:
    """Whether the event only names its object, as those of the v2 API do."""
    return bool(event["object"] != "event")


def related_object(event: dict[str, Any]) -> dict[str, Any]:
    """The object that a thin event names, as it is now.

    Raises:
        Permanent: it names none.
        as `app.stripe.client.asking`
    """
    related = event.get("related_object")
    url = related.get("url") if isinstance(related, dict) else None
    if not isinstance(url, str) or not url.startswith("/v1/"):
        raise Permanent("the event names no object of the v1 API")
    return _get(url)


def object_now(collection: str, object_id: str) -> dict[str, Any] | None:
    """An object of `/v1/{collection}` as it is now; None where Stripe has none, or none any more.

    Raises:
        as `app.stripe.client.asking`
    """
    try:
        found = _get(f"/v1/{collection}/{quote(object_id, safe='')}")
    except NotFound:
        return None
    return None if found.get("deleted") else found


def _get(path: str) -> dict[str, Any]:
    with asking():
        answer = client().raw_request("get", path)
    found: dict[str, Any] = read_json(answer.body.encode())
    return found
