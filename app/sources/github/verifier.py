"""What GitHub posts: signed, with an id and an event, and JSON."""

import hmac
from collections.abc import Sequence
from hashlib import sha256

from flask import request
from pydantic import SecretStr

from app.contracts.http import GithubDelivery
from app.contracts.webhooks import GithubEvent
from app.intake.bodies import parse_json
from app.intake.problems import Problem

_MAX_NAME = 100


def _is_signed(body: bytes, header: str | None, secrets: Sequence[SecretStr]) -> bool:
    """Whether one of `secrets` has signed `body`; several are valid while one replaces another (failures.md 18).

    Args:
        header: `X-Hub-Signature-256`: `sha256=` and the HMAC in hex.
    """
    given = (header or "").encode()
    valid = [b"sha256=" + hmac.new(s.get_secret_value().encode(), body, sha256).hexdigest().encode() for s in secrets]
    return any([hmac.compare_digest(mine, given) for mine in valid])  # noqa: C419  (all of them: no hint by time)


def _name(header: str) -> str:
    """The value of a header that has to be there, and is kept."""
    value = request.headers.get(header, "")
    if not (1 <= len(value) <= _MAX_NAME and value.isprintable()):
        raise Problem(400, f"{header} must have 1 to {_MAX_NAME} printable characters.")
    return value


def _json(body: bytes) -> bytes:
    """The JSON in `body`; a webhook of GitHub's can be set to wrap it in a form."""
    if request.mimetype == "application/json":
        return body
    if request.mimetype == "application/x-www-form-urlencoded":
        return request.form.get("payload", "").encode("utf-8", "surrogatepass")
    raise Problem(415, "Send the body as Content-Type: application/json.")


def read(body: bytes, secrets: Sequence[SecretStr]) -> GithubEvent:
    """The job for a request with that body, once one of `secrets` has signed it.

    Raises:
        Problem
    """
    if not _is_signed(body, request.headers.get("X-Hub-Signature-256"), secrets):
        raise Problem(401, "X-Hub-Signature-256 is not of this body by a secret of ours.")
    delivery, event = _name("X-GitHub-Delivery"), _name("X-GitHub-Event")
    said = parse_json(GithubDelivery, _json(body))
    return GithubEvent(delivery=delivery, event=event, body=said.root)
