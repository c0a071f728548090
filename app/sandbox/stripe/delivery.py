"""Webhooks: what is to be delivered is kept with the events, and couriers deliver it, signed, with retries.

Waits run on the sandbox's clock, so moving the clock makes a retry due. Signatures carry the real time,
because the receiver compares them with its own clock.
"""

import hashlib
import hmac
import http.client
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson

from app.sandbox.stripe.clock import Clock
from app.sandbox.stripe.config import Settings
from app.sandbox.stripe.faults import DeliveryKind, Faults
from app.sandbox.stripe.objects import Object, public
from app.sandbox.stripe.store import Store

COURIERS = 4
_LOOK_AGAIN_S = 0.2
_AT_DELIVERY: tuple[DeliveryKind, ...] = ("drop", "duplicate", "late", "hold")


def signature_header(payload: bytes, secrets: Sequence[str], timestamp: int) -> str:
    """The `Stripe-Signature` header of a payload: one `v1` for each secret, as while one is rolled over."""
    signed = b"%d." % timestamp + payload
    parts = [f"v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}" for secret in secrets]
    return ",".join([f"t={timestamp}", *parts])


@dataclass(frozen=True)
class Delivery:
    id: int
    event: str
    endpoint: str
    copies: int
    attempts: int


class Outbox:
    """Deliveries that are still to be made, and what became of the others."""

    def __init__(self, store: Store, clock: Clock, faults: Faults, settings: Settings) -> None:
        self._store = store
        self._clock = clock
        self._faults = faults
        self._settings = settings
        self._news = threading.Condition()
        self._told = 0

    def put(self, event: Object, endpoint_id: str) -> None:
        """Takes an event for an endpoint, and what a fault has in store for it."""
        fault = self._faults.for_event(event["type"], _AT_DELIVERY)
        kind = fault.kind if fault else None
        state = {"drop": "dropped", "hold": "held"}.get(kind or "", "waiting")
        copies = fault.copies if fault and kind == "duplicate" else 1
        due = self._clock.time() + (fault.seconds if fault and kind == "late" else 0)
        self._store.execute(
            "INSERT INTO deliveries (event, endpoint, type, state, copies, due) VALUES (?, ?, ?, ?, ?, ?)",
            (event["id"], endpoint_id, event["type"], state, copies, due),
        )
        self.wake()

    def release(self, newest_first: bool) -> int:
        """Lets go of what a `hold` kept back, in order of its making or the other way round."""
        with self._store.transaction():
            order = "DESC" if newest_first else "ASC"
            held = self._store.execute(f"SELECT id FROM deliveries WHERE state = 'held' ORDER BY id {order}")  # noqa: S608 - one of two words
            start = self._clock.time()
            for place, (delivery_id,) in enumerate(held):
                # Couriers take the one that was due first.
                self._store.execute(
                    "UPDATE deliveries SET state = 'waiting', due = ? WHERE id = ?",
                    (start - len(held) + place, delivery_id),
                )
        self.wake()
        return len(held)

    def claim(self) -> Delivery | None:
        """The delivery that is due first, now in the hands of who asked."""
        rows = self._store.execute(
            "UPDATE deliveries SET state = 'sending' WHERE id = ("
            "SELECT id FROM deliveries WHERE state = 'waiting' AND due <= ? ORDER BY due, id LIMIT 1) "
            "RETURNING id, event, endpoint, copies, attempts",
            (self._clock.time(),),
        )
        return Delivery(*rows[0]) if rows else None

    def settle(self, delivery: Delivery, status: int | None) -> None:
        """Puts down how an attempt ended: `status` is the endpoint's answer, None where there was none."""
        retries = self._settings.webhook_retries_s
        due = self._clock.time()
        if status is not None and 200 <= status < 300:
            state = "delivered"
        elif delivery.attempts < len(retries):
            state = "waiting"
            due += retries[delivery.attempts]
        else:
            state = "failed"
        with self._store.transaction():
            self._store.execute(
                "UPDATE deliveries SET state = ?, due = ?, attempts = attempts + 1, last_status = ? WHERE id = ?",
                (state, due, status, delivery.id),
            )
            found = self._store.get(delivery.event)
            if state == "delivered" and found:
                event = found[0]
                event["pending_webhooks"] -= 1
                self._store.update(event)

    def drop(self, delivery: Delivery) -> None:
        self._store.execute("UPDATE deliveries SET state = 'dropped' WHERE id = ?", (delivery.id,))

    def all(self) -> list[dict[str, Any]]:
        names = ("event", "endpoint", "type", "state", "attempts", "due", "last_status")
        rows = self._store.execute(
            "SELECT event, endpoint, type, state, attempts, due, last_status FROM deliveries ORDER BY id"
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def wake(self) -> None:
        with self._news:
            self._told += 1
            self._news.notify_all()

    def told(self) -> int:
        """How often couriers were woken: `wait` then knows what came while one was looking."""
        with self._news:
            return self._told

    def wait(self, told: int) -> None:
        """Until there may be something to deliver that was not there when `told` was read."""
        with self._news:
            self._news.wait_for(lambda: self._told != told, _LOOK_AGAIN_S)


class Courier(threading.Thread):
    """Takes deliveries out of the outbox one after another and posts them."""

    def __init__(self, store: Store, clock: Clock, outbox: Outbox, settings: Settings) -> None:
        super().__init__(name="stripe-sandbox-courier", daemon=True)
        self._store = store
        self._clock = clock
        self._outbox = outbox
        self._settings = settings
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.is_set():
            told = self._outbox.told()
            delivery = self._outbox.claim()
            if delivery is None:
                self._outbox.wait(told)
            else:
                self._deliver(delivery)

    def stop(self) -> None:
        self._stopping.set()

    def _deliver(self, delivery: Delivery) -> None:
        event, endpoint = self._store.get(delivery.event), self._store.get(delivery.endpoint)
        if event is None or endpoint is None or endpoint[0]["status"] != "enabled":
            self._outbox.drop(delivery)
            return
        payload = orjson.dumps(public(event[0]), option=orjson.OPT_INDENT_2)
        status = None
        for _ in range(delivery.copies):
            status = self._post(endpoint[0], payload)
        self._outbox.settle(delivery, status)

    def _post(self, endpoint: Object, payload: bytes) -> int | None:
        url = urlsplit(endpoint["url"])
        connect = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = connect(url.netloc, timeout=self._settings.webhook_timeout_s)
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature_header(
                payload, valid_secrets(endpoint, self._clock.time()), int(time.time())
            ),
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }
        try:
            path = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connection.request("POST", path, payload, headers)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


def valid_secrets(endpoint: Object, moment: float) -> list[str]:
    """The signing secrets of an endpoint at a time, the newest first; two while one is rolled over."""
    return [held["secret"] for held in endpoint["_secrets"] if held["until"] is None or held["until"] > moment]
