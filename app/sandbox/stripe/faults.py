"""Faults on demand: what goes wrong, with which operation or event, and how many times."""

import itertools
import threading
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

RequestKind = Literal["refuse", "lose", "status", "lock_timeout", "delay", "hang"]
DeliveryKind = Literal["unmade", "drop", "duplicate", "late", "hold"]
Kind = RequestKind | DeliveryKind

_DELIVERY_KINDS = {"unmade", "drop", "duplicate", "late", "hold"}


class Fault(BaseModel):
    """One fault. It names an `operation`, as method and path template with `*` for any characters
    (`POST /v1/customers`, `POST *`), or an `event` type (`invoice.*`), and strikes `count` times (None: until
    it is taken away).

    Of a request: `refuse` drops the connection before anything is done; `lose` does the request, keeps the
    idempotent result and drops the connection without an answer; `status` answers with that status, before
    doing anything, or `when="after"` in place of what was done, which the idempotency key then keeps;
    `lock_timeout` answers 429 with that code; `delay` waits `ms` first; `hang` never answers within
    `seconds` (and does nothing before, or everything with `when="after"`). Both wait no longer once the
    faults are cleared.

    Of an event: `unmade` (the event is never made), `drop` (made and not delivered), `duplicate` (delivered
    `copies` times), `late` (delivered `seconds` later), `hold` (delivered when `release` is called).
    """

    model_config = ConfigDict(extra="forbid")

    id: int = 0
    kind: Kind
    operation: str | None = None
    event: str | None = None
    count: int | None = Field(default=1, ge=1)
    status: Literal[409, 429, 500, 502, 503] = 500
    when: Literal["before", "after"] = "before"
    retry_after: int | None = Field(default=None, ge=0, description="sent as Retry-After, seconds")
    should_retry: bool | None = Field(default=None, description="sent as Stripe-Should-Retry")
    ms: int = Field(default=0, ge=0)
    seconds: float = Field(default=90, ge=0)
    copies: int = Field(default=2, ge=2)

    @model_validator(mode="after")
    def _names_its_subject(self) -> Self:
        if self.kind in _DELIVERY_KINDS:
            if self.event is None or self.operation is not None:
                raise ValueError(f"{self.kind} names an event, not an operation")
        elif self.operation is None or self.event is not None:
            raise ValueError(f"{self.kind} names an operation, not an event")
        if self.kind == "lose":
            self.when = "after"
        if self.when == "after" and self.kind == "status" and self.status != 500:
            raise ValueError("only a 500 comes after the work is done")
        return self

    def headers(self) -> dict[str, str]:
        """The headers that go with the answer of this fault."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.should_retry is not None:
            headers["Stripe-Should-Retry"] = str(self.should_retry).lower()
        return headers


class Faults:
    """The faults that are set. The oldest that matches strikes, and is gone after its last time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._cleared = threading.Event()
        self._ids = itertools.count(1)

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            fault = fault.model_copy(update={"id": next(self._ids)})
            self._faults.append(fault)
            return fault

    def all(self) -> list[Fault]:
        with self._lock:
            return list(self._faults)

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()
            self._cleared.set()
            self._cleared = threading.Event()

    def wait(self, seconds: float) -> None:
        """Waits for so long of real time, or until the faults are cleared."""
        self._cleared.wait(seconds)

    def for_request(self, operation: str, kinds: Iterable[Kind], when: str) -> Fault | None:
        """The fault that strikes this operation now, if one does; that uses up one of its times."""
        if not self._faults:
            return None
        with self._lock:
            for fault in self._faults:
                named = fault.operation == "*" or fnmatchcase(operation, fault.operation or "")
                if named and fault.kind in kinds and fault.when == when:
                    return self._use(fault)
        return None

    def for_event(self, event_type: str, kinds: Iterable[Kind]) -> Fault | None:
        if not self._faults:
            return None
        with self._lock:
            for fault in self._faults:
                if fault.event and fault.kind in kinds and fnmatchcase(event_type, fault.event):
                    return self._use(fault)
        return None

    def _use(self, fault: Fault) -> Fault:
        if fault.count is not None:
            fault.count -= 1
            if fault.count == 0:
                self._faults.remove(fault)
        return fault
