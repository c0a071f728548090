"""Events of the last 30 days; older ones cannot be found any more."""

from pydantic import Field

from app.sandbox.stripe.errors import InvalidParameter, Missing
from app.sandbox.stripe.objects import Object
from app.sandbox.stripe.operations import Call, Operations
from app.sandbox.stripe.params import DatedListParams, List, Params, Range
from app.sandbox.stripe.store import Glob, MoreThan

operations: Operations[Object] = Operations()

LISTED_S = 30 * 24 * 3600


class EventList(DatedListParams):
    type: str | None = None
    types: List[str] = Field(default_factory=list)
    delivery_success: bool | None = None


@operations("GET /v1/events", EventList)
def list_all(call: Call[EventList]) -> Object:
    account, params = call.account, call.params
    if params.type and params.types:
        raise InvalidParameter("You may only specify one of these parameters: type, types.", param="type")
    oldest = account.now() - LISTED_S
    created = params.created or Range()
    if created.gte is None or created.gte < oldest:
        params = params.model_copy(update={"created": created.model_copy(update={"gte": oldest})})
    filters: Object = {
        "type": Glob(params.type) if params.type else (params.types or None),
        "pending_webhooks": {True: 0, False: MoreThan(0), None: None}[params.delivery_success],
    }
    return account.list("event", "/v1/events", params, **filters)


@operations("GET /v1/events/{id}", Params)
def retrieve(call: Call[Params]) -> Object:
    event = call.account.get("event", call.id)
    if event["created"] < call.account.now() - LISTED_S:
        raise Missing("event", call.id)
    return event
