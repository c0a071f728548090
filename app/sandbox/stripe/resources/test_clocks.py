"""Test clocks: a time of their own for the customers made on them.

What falls due on the way is done before `advance` answers. The answer still says `advancing`, as Stripe's
does, so that a client has to wait for `ready`; the next look finds it.
"""

from app.sandbox.stripe import schedule
from app.sandbox.stripe.errors import InvalidParameter, InvalidState
from app.sandbox.stripe.objects import Object, new_id
from app.sandbox.stripe.operations import Call, Operations
from app.sandbox.stripe.params import ListParams, Params
from app.sandbox.stripe.resources.customers import delete_customer

operations: Operations[Object] = Operations()

KIND = "test_helpers.test_clock"
_KEPT_S = 30 * 24 * 3600


class ClockCreate(Params):
    frozen_time: int
    name: str | None = None


class ClockAdvance(Params):
    frozen_time: int


@operations("POST /v1/test_helpers/test_clocks", ClockCreate)
def create(call: Call[ClockCreate]) -> Object:
    account, params = call.account, call.params
    if account.livemode:
        raise InvalidParameter("Test clocks can only be used in test mode.")
    now = account.now()
    clock: Object = {
        "id": new_id("clock"),
        "object": KIND,
        "created": now,
        "deletes_after": now + _KEPT_S,
        "frozen_time": params.frozen_time,
        "livemode": False,
        "name": params.name,
        "status": "ready",
        "status_details": {},
    }
    return account.add(clock, "test_helpers.test_clock.created")


@operations("POST /v1/test_helpers/test_clocks/{test_clock}/advance", ClockAdvance)
def advance(call: Call[ClockAdvance]) -> Object:
    account, target = call.account, call.params.frozen_time
    clock = account.get(KIND, call.id)
    if target <= clock["frozen_time"]:
        raise InvalidState(
            "The new frozen time must be later than the current one.",
            code="test_clock_not_advanced",
            param="frozen_time",
        )
    account.emit("test_helpers.test_clock.advancing", clock | {"status": "advancing"})
    while due := account.store.next_due(clock["id"], target):
        object_id, moment = due
        clock["frozen_time"] = max(clock["frozen_time"], moment)
        account.save(clock)
        schedule.run(account, object_id)
    clock["frozen_time"] = target
    account.save(clock, "test_helpers.test_clock.ready")
    return clock | {"status": "advancing", "status_details": {"advancing": {"target_frozen_time": target}}}


@operations("GET /v1/test_helpers/test_clocks/{test_clock}", Params)
def retrieve(call: Call[Params]) -> Object:
    return call.account.get(KIND, call.id)


@operations("DELETE /v1/test_helpers/test_clocks/{test_clock}", Params)
def delete(call: Call[Params]) -> Object:
    account = call.account
    clock = account.get(KIND, call.id)
    for customer in account.find("customer", test_clock=clock["id"]):
        delete_customer(account, customer)
    return account.remove(clock, "test_helpers.test_clock.deleted")


@operations("GET /v1/test_helpers/test_clocks", ListParams)
def list_all(call: Call[ListParams]) -> Object:
    return call.account.list(KIND, "/v1/test_helpers/test_clocks", call.params)
