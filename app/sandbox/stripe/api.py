"""How a request to `/v1` is answered, from the key in it to the stored result.

The order is Stripe's: what may go wrong at the edge, the API key, the rate limit, the idempotency key, the
parameters, and only then the operation itself, in one transaction with its result.
"""

import threading
import time
from base64 import b64decode
from binascii import Error as BadBase64
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from app.sandbox.stripe.account import Origin
from app.sandbox.stripe.config import API_VERSION
from app.sandbox.stripe.errors import ApiError, LockTimeout, RateLimited, Unauthorized
from app.sandbox.stripe.faults import Fault
from app.sandbox.stripe.forms import decode
from app.sandbox.stripe.idempotency import Result, fingerprint
from app.sandbox.stripe.messages import Request, Response
from app.sandbox.stripe.objects import Object, random_chars
from app.sandbox.stripe.operations import Call, Operation, Router
from app.sandbox.stripe.params import Params, validate
from app.sandbox.stripe.rendering import render
from app.sandbox.stripe.resources import V1
from app.sandbox.stripe.world import World

_LOG_LENGTH = 50_000


class Dropped(Exception):
    """The connection ends here, without an answer."""


@dataclass
class LogEntry:
    """One request to `/v1`. `status` is None where no answer was sent; `fault` is the kind that struck."""

    request_id: str
    at: float
    method: str
    path: str
    operation: str | None = None
    key: str | None = None
    livemode: bool | None = None
    params: dict[str, Any] = field(default_factory=dict)
    status: int | None = None
    replayed: bool = False
    fault: str | None = None


@dataclass(frozen=True)
class Exchange:
    """What a hook sees: an operation, its parameters as they came, and the answer to them."""

    operation: str
    params: dict[str, Any]
    status: int
    body: Object


Hook = Callable[[Exchange], None]


class RateLimit:
    """At most so many requests in any real second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: deque[float] = deque()

    def admits(self, per_second: float | None) -> bool:
        if per_second is None:
            return True
        now = time.monotonic()
        with self._lock:
            while self._recent and self._recent[0] <= now - 1:
                self._recent.popleft()
            if len(self._recent) >= per_second:
                return False
            self._recent.append(now)
            return True


class Api:
    """Answers requests to `/v1`, and keeps a log of them in memory."""

    def __init__(self, world: World, hook: Hook | None = None) -> None:
        self.router: Router[Object] = Router(V1)
        self.log: deque[LogEntry] = deque(maxlen=_LOG_LENGTH)
        self._world = world
        self._hook = hook
        self._rate_limit = RateLimit()

    def answer(self, request: Request) -> Response:
        """The answer to a request. Raises `Dropped` where there is to be none."""
        entry = LogEntry(f"req_{random_chars(14)}", self._world.clock.time(), request.method, request.path)
        self.log.append(entry)
        try:
            response = self._answer(request, entry)
        except ApiError as error:
            response = _error_response(error)
        response.headers.setdefault("Request-Id", entry.request_id)
        response.headers["Stripe-Version"] = request.headers.get("stripe-version", API_VERSION)
        if entry.key:
            response.headers["Idempotency-Key"] = entry.key
        if fault := self._strike(entry, ("lose", "hang"), "after"):
            self._drop(fault)
        entry.status = response.status
        return response

    def _answer(self, request: Request, entry: LogEntry) -> Response:
        match = self.router.match(request.method, request.path)
        if match is None:
            message = (
                f"Unrecognized request URL ({request.method}: {request.path}). "
                "If you are trying to list objects, remove the trailing slash."
            )
            raise ApiError(404, message, stored=False)
        operation, ids = match
        entry.operation = operation.name
        entry.key = request.headers.get("idempotency-key") if request.method == "POST" else None
        self._fail_at_the_edge(entry)
        entry.livemode = _livemode(request.headers.get("authorization", ""))
        if not self._rate_limit.admits(self._world.settings.rate_limit):
            raise RateLimited
        entry.params = decode(request.body if request.method == "POST" else "&".join([request.query, request.body]))
        with self._world.keys.held(entry.livemode, entry.key):
            if fault := self._strike(entry, ("delay",), "before"):
                self._world.faults.wait(fault.ms / 1000)
            return self._perform(request.path, operation, ids, entry)

    def _fail_at_the_edge(self, entry: LogEntry) -> None:
        fault = self._strike(entry, ("refuse", "status", "lock_timeout", "hang"), "before")
        if fault is None:
            return
        if fault.kind in ("refuse", "hang"):
            self._drop(fault)
        if fault.kind == "lock_timeout":
            raise LockTimeout(fault.headers())
        raise _edge_error(fault)

    def _perform(self, path: str, operation: Operation[Object], ids: tuple[str, ...], entry: LogEntry) -> Response:
        livemode, key = bool(entry.livemode), entry.key
        asked = fingerprint(path, entry.params) if key else ""
        keys = self._world.keys
        with self._world.store.transaction():
            if key and (known := keys.recall(livemode, key, asked)):
                entry.replayed = True
                return Response(known.status, known.body, known.headers | {"Idempotent-Replayed": "true"})
            params = validate(operation.params, entry.params)
            account = self._world.account(livemode, Origin(entry.request_id, key))
            result, stored = self._run(operation, Call(account, params, ids), entry)
            if key and stored:
                original = result.headers | {"Original-Request": entry.request_id}
                keys.remember(livemode, key, asked, Result(result.status, original, result.body))
        if self._hook:
            self._hook(Exchange(operation.name, entry.params, result.status, orjson.loads(result.body)))
        return result

    def _run(self, operation: Operation[Object], call: Call[Any], entry: LogEntry) -> tuple[Response, bool]:
        """The result of an operation, and whether an idempotency key is to remember it."""
        try:
            with self._world.store.transaction():
                outcome: Object | ApiError
                try:
                    outcome = operation.run(call)
                except ApiError as error:
                    if not error.commits:
                        raise
                    outcome = error
                if self._strike(entry, ("status",), "after"):
                    outcome = _internal_error(commits=True, headers={"Stripe-Should-Retry": "false"})
                if isinstance(outcome, ApiError):
                    return _error_response(outcome), outcome.stored
                expand = call.params.expand if isinstance(call.params, Params) else []
                body = render(call.account, outcome, expand)
                return Response(200, orjson.dumps(body)), True
        except ApiError as error:
            return _error_response(error), error.stored

    def _strike(self, entry: LogEntry, kinds: tuple[Any, ...], when: str) -> Fault | None:
        if entry.operation is None:
            return None
        if fault := self._world.faults.for_request(entry.operation, kinds, when):
            entry.fault = fault.kind
        return fault

    def _drop(self, fault: Fault) -> None:
        if fault.kind == "hang":
            self._world.faults.wait(fault.seconds)
        raise Dropped


def log_entries(entries: deque[LogEntry]) -> list[dict[str, Any]]:
    return [asdict(entry) for entry in list(entries)]


def _livemode(authorization: str) -> bool:
    """The mode of the key in an Authorization header. Raises `Unauthorized`."""
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            credentials = b64decode(credentials).decode().partition(":")[0]
        except (BadBase64, UnicodeDecodeError):
            credentials = ""
    if not credentials:
        raise Unauthorized(
            "You did not provide an API key. You need to provide your API key in the Authorization header, "
            "using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY')."
        )
    for prefix, livemode in (("sk_test_", False), ("sk_live_", True)):
        if credentials.startswith(prefix) and len(credentials) > len(prefix):
            return livemode
    raise Unauthorized(f"Invalid API Key provided: {credentials[:3]}{'*' * 8}{credentials[-4:]}")


def _edge_error(fault: Fault) -> ApiError:
    match fault.status:
        case 429:
            return RateLimited(fault.headers())
        case 409:
            message = "This object cannot be accessed right now because another request is accessing it."
            return ApiError(409, message, kind="invalid_request_error", stored=False, headers=fault.headers())
        case _:
            error = _internal_error(commits=False, headers=fault.headers())
            error.status = fault.status
            return error


def _internal_error(commits: bool, headers: dict[str, str]) -> ApiError:
    message = "An unknown error occurred"
    return ApiError(500, message, kind="api_error", stored=commits, commits=commits, headers=headers)


def _error_response(error: ApiError) -> Response:
    return Response(error.status, orjson.dumps({"error": error.details()}), dict(error.headers))
