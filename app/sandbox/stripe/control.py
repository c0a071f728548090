"""What only a sandbox has: `/_sandbox`, where faults are set, time is moved and the log is read. All JSON."""

from collections import deque
from fnmatch import fnmatchcase
from typing import Any

import orjson
from pydantic import Field, ValidationError

from app.sandbox.stripe.api import LogEntry, log_entries
from app.sandbox.stripe.config import Settings
from app.sandbox.stripe.errors import ApiError
from app.sandbox.stripe.faults import Fault
from app.sandbox.stripe.forms import decode
from app.sandbox.stripe.messages import Request, Response, json_response
from app.sandbox.stripe.mishaps import mishaps
from app.sandbox.stripe.objects import public
from app.sandbox.stripe.operations import Call, Operations, Router
from app.sandbox.stripe.params import Strict
from app.sandbox.stripe.resources.webhook_endpoints import roll_secret
from app.sandbox.stripe.store import Page
from app.sandbox.stripe.world import World


class Nothing(Strict):
    pass


class Move(Strict):
    advance_s: float | None = Field(default=None, ge=0)
    to: int | None = None


class LogFilter(Strict):
    operation: str = "*"
    key: str | None = None


class ObjectFilter(Strict):
    object: str
    livemode: bool = False


class Release(Strict):
    newest_first: bool = False


class Roll(Strict):
    expires_in_s: float = Field(default=24 * 3600, ge=0)


class Control:
    """Answers requests to `/_sandbox`."""

    def __init__(self, world: World, log: deque[LogEntry], known_operations: list[str]) -> None:
        self._world = world
        self._log = log
        self._known = known_operations
        self._router: Router[Any] = Router([self._faults(), self._time_and_log(), self._webhooks(), mishaps(world)])

    def answer(self, request: Request) -> Response:
        match = self._router.match(request.method, request.path)
        if match is None:
            return json_response(404, {"detail": f"no such control: {request.method} {request.path}"})
        operation, ids = match
        try:
            given = decode(request.query) if request.method == "GET" else orjson.loads(request.body or "{}")
            params = operation.params.model_validate(given)
            return json_response(200, operation.run(Call(self._world.account(livemode=False), params, ids)))
        except ValidationError as error:
            return json_response(400, {"detail": str(error)})
        except orjson.JSONDecodeError as error:
            return json_response(400, {"detail": f"the body is not JSON: {error}"})
        except ApiError as error:
            return json_response(error.status, {"detail": error.message})

    def _faults(self) -> Operations[Any]:
        operations: Operations[Any] = Operations()
        world = self._world

        @operations("POST /_sandbox/faults", Fault)
        def add_fault(call: Call[Fault]) -> Any:
            self._refuse_unknown(call.params.operation)
            return world.faults.add(call.params).model_dump()

        @operations("GET /_sandbox/faults", Nothing)
        def list_faults(_: Call[Nothing]) -> Any:
            return [fault.model_dump() for fault in world.faults.all()]

        @operations("DELETE /_sandbox/faults", Nothing)
        def clear_faults(_: Call[Nothing]) -> Any:
            world.faults.clear()
            return []

        return operations

    def _time_and_log(self) -> Operations[Any]:
        operations: Operations[Any] = Operations()
        world = self._world

        @operations("GET /_sandbox/clock", Nothing)
        def read_clock(_: Call[Nothing]) -> Any:
            return {"now": world.clock.now()}

        @operations("POST /_sandbox/clock", Move)
        def move_clock(call: Call[Move]) -> Any:
            target = call.params.to
            if target is None:
                target = int(world.clock.time() + (call.params.advance_s or 0))
            world.move_clock(target)
            return {"now": world.clock.now()}

        @operations("GET /_sandbox/requests", LogFilter)
        def read_log(call: Call[LogFilter]) -> Any:
            wanted = call.params
            return [
                entry
                for entry in log_entries(self._log)
                if (wanted.operation == "*" or fnmatchcase(entry["operation"] or "", wanted.operation))
                and wanted.key in (None, entry["key"])
            ]

        @operations("DELETE /_sandbox/requests", Nothing)
        def clear_log(_: Call[Nothing]) -> Any:
            self._log.clear()
            return []

        @operations("GET /_sandbox/objects", ObjectFilter)
        def read_objects(call: Call[ObjectFilter]) -> Any:
            found = world.store.find(call.params.object, call.params.livemode, {}, Page())
            return [public(obj) for obj in found]

        @operations("GET /_sandbox/settings", Nothing)
        def read_settings(_: Call[Nothing]) -> Any:
            return world.settings.model_dump()

        @operations("POST /_sandbox/settings", Settings)
        def change_settings(call: Call[Settings]) -> Any:
            world.change_settings(call.params.model_dump(exclude_unset=True))
            return world.settings.model_dump()

        @operations("POST /_sandbox/reset", Nothing)
        def reset(_: Call[Nothing]) -> Any:
            world.reset()
            self._log.clear()
            return {}

        return operations

    def _webhooks(self) -> Operations[Any]:
        operations: Operations[Any] = Operations()
        world = self._world

        @operations("GET /_sandbox/deliveries", Nothing)
        def read_deliveries(_: Call[Nothing]) -> Any:
            return world.outbox.all()

        @operations("POST /_sandbox/deliveries/release", Release)
        def release_deliveries(call: Call[Release]) -> Any:
            return {"released": world.outbox.release(call.params.newest_first)}

        @operations("POST /_sandbox/webhook_endpoints/{endpoint}/roll_secret", Roll)
        def roll(call: Call[Roll]) -> Any:
            with world.store.transaction():
                return {"secret": roll_secret(world.account_of(call.id), call.id, call.params.expires_in_s)}

        return operations

    def _refuse_unknown(self, pattern: str | None) -> None:
        """A fault on an operation that does not exist would never strike: its test would prove nothing."""
        if pattern and not any(pattern == "*" or fnmatchcase(name, pattern) for name in self._known):
            raise ApiError(400, f"no operation matches {pattern}; write it as POST /v1/customers/{{customer}}")
