"""A request and a response, as they are between the socket and the sandbox."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass(frozen=True)
class Request:
    """`headers` have lower-case names."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


def json_response(status: int, value: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(status, orjson.dumps(value), headers or {})
