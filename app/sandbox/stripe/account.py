"""The account in one mode, as one piece of work sees it: its objects, its clock, and the events it makes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.sandbox.stripe.clock import Clock
from app.sandbox.stripe.config import API_VERSION, Settings
from app.sandbox.stripe.delivery import Outbox
from app.sandbox.stripe.errors import InvalidParameter, Missing
from app.sandbox.stripe.faults import Faults
from app.sandbox.stripe.objects import Object, changed, list_object, new_id, public
from app.sandbox.stripe.params import ListParams
from app.sandbox.stripe.store import Page, Store

# `object` names whose id prefix would not be guessed by whoever reads the error.
_SPOKEN = {"payment_method": "PaymentMethod", "checkout.session": "checkout.session"}


@dataclass(frozen=True)
class Origin:
    """The request that a change comes from; nothing of it for what the clock does by itself."""

    request_id: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True)
class Account:
    """Reads, writes and tells of objects. Use it inside a transaction of its store."""

    store: Store
    clock: Clock
    outbox: Outbox
    faults: Faults
    settings: Settings
    base_url: str
    livemode: bool = False
    origin: Origin = Origin()

    def now(self, subject: Object | None = None) -> int:
        """The time, in seconds since 1970, for an object: its test clock's, or the sandbox's."""
        if subject and subject.get("_clock"):
            found = self.store.get(subject["_clock"])
            if found:
                return int(found[0]["frozen_time"])
        return self.clock.now()

    def get(self, kind: str, object_id: str, param: str = "id", deleted: bool = False) -> Object:
        """An object that is there to be changed. Raises `Missing`, for a deleted one too unless asked for."""
        found = self.store.get(object_id)
        if found is None or found[0]["object"] != kind or (found[0].get("deleted") and not deleted):
            raise Missing(_SPOKEN.get(kind, kind), object_id, param)
        obj, livemode = found
        if livemode != self.livemode:
            raise Missing(_SPOKEN.get(kind, kind), object_id, param, "live" if livemode else "test")
        return obj

    def find(self, kind: str, limit: int | None = None, **filters: Any) -> list[Object]:
        """Objects of a kind, newest first, whose fields have these values. `a__b` looks inside `a`."""
        return self.store.find(kind, self.livemode, _dotted(filters), Page(limit=limit))

    def count(self, kind: str, **filters: Any) -> int:
        """How many objects `find` would find."""
        return self.store.count(kind, self.livemode, _dotted(filters))

    def list(self, kind: str, url: str, params: ListParams, **filters: Any) -> Object:
        """A page of Stripe's list, newest first. A filter that is None was not asked for."""
        for cursor in ("starting_after", "ending_before"):
            if object_id := getattr(params, cursor):
                self.get(kind, object_id, cursor, deleted=True)
        if params.starting_after and params.ending_before:
            raise InvalidParameter("You can only set one of starting_after and ending_before.", param="starting_after")
        named = {name: value for name, value in _dotted(filters).items() if value is not None}
        page = Page(params.limit + 1, params.starting_after, params.ending_before, getattr(params, "created", None))
        found = self.store.find(kind, self.livemode, named, page)
        has_more = len(found) > params.limit
        if has_more:
            found = found[1:] if params.ending_before else found[:-1]
        return list_object(url, found, has_more)

    def add(self, obj: Object, *events: str) -> Object:
        """Keeps a new object, and makes these events of it."""
        self.store.insert(obj, self.livemode, self.clock.time())
        for event in events:
            self.emit(event, obj)
        return obj

    def save(self, obj: Object, *events: str) -> Object:
        """Keeps a changed object, and makes these events; an `.updated` one only if something differs."""
        found = self.store.get(obj["id"])
        before = public(found[0]) if found else {}
        self.store.update(obj)
        previous = changed(before, public(obj))
        for event in events:
            if not event.endswith(".updated"):
                self.emit(event, obj)
            elif previous:
                self.emit(event, obj, previous)
        return obj

    def remove(self, obj: Object, *events: str) -> Object:
        """Takes an object away for good. Answers with Stripe's stub of a deleted object."""
        self.store.delete(obj["id"])
        for event in events:
            self.emit(event, obj)
        return {"id": obj["id"], "object": obj["object"], "deleted": True}

    def emit(self, event_type: str, subject: Object, previous: Object | None = None) -> None:
        """Makes an event of what an object is now, and puts it out for the endpoints that want it."""
        if self.faults.for_event(event_type, ("unmade",)):
            return
        endpoints = [
            endpoint
            for endpoint in self.find("webhook_endpoint", status="enabled")
            if wants(endpoint["enabled_events"], event_type)
        ]
        data: Object = {"object": public(subject)}
        if previous is not None:
            data["previous_attributes"] = previous
        event = {
            "id": new_id("evt"),
            "object": "event",
            "api_version": API_VERSION,
            "created": self.clock.now(),
            "data": data,
            "livemode": self.livemode,
            "pending_webhooks": len(endpoints),
            "request": {"id": self.origin.request_id, "idempotency_key": self.origin.idempotency_key},
            "type": event_type,
        }
        self.store.insert(event, self.livemode, self.clock.time())
        for endpoint in endpoints:
            self.outbox.put(event, endpoint["id"])


def _dotted(filters: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("__", "."): value for name, value in filters.items()}


def wants(enabled_events: Sequence[str], event_type: str) -> bool:
    """Whether an endpoint asked for events of this type."""
    return "*" in enabled_events or event_type in enabled_events
