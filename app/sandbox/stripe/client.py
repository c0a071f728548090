"""The sandbox's control from outside, for tests and demos: against a process or one in this process."""

import http.client
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode, urlsplit


class SandboxRefused(Exception):
    """The sandbox could not do what its control was asked; the message says why."""


class SandboxControl:
    """Sets faults, moves time and reads what happened. `url` is the sandbox's base URL."""

    def __init__(self, url: str) -> None:
        self.url = url

    def fault(self, kind: str, *, operation: str | None = None, event: str | None = None, **details: Any) -> None:
        """Sets a fault; `faults.Fault` says what there is. For a request: `operation` ("POST /v1/customers",
        "*"); for webhooks: `event` ("invoice.*"). `count=None` stays until `clear_faults`."""
        self._ask("POST", "faults", {"kind": kind, "operation": operation, "event": event} | details)

    def faults(self) -> list[dict[str, Any]]:
        """The faults that have not been used up."""
        return self._list("faults")

    def clear_faults(self) -> None:
        self._ask("DELETE", "faults")

    def now(self) -> int:
        """The sandbox's time, seconds since 1970."""
        return int(self._ask("GET", "clock")["now"])

    def advance(self, seconds: float) -> int:
        """Moves the sandbox's clock forward by way of everything that falls due. Answers with its time."""
        return int(self._ask("POST", "clock", {"advance_s": seconds})["now"])

    def advance_to(self, moment: int) -> int:
        return int(self._ask("POST", "clock", {"to": moment})["now"])

    def requests(self, operation: str = "*", key: str | None = None) -> list[dict[str, Any]]:
        """The log of requests to the API, oldest first; `api.LogEntry` says what of each."""
        return self._list("requests", operation=operation, key=key)

    def clear_requests(self) -> None:
        self._ask("DELETE", "requests")

    def objects(self, kind: str, livemode: bool = False) -> list[dict[str, Any]]:
        """Every object of a kind, newest first."""
        return self._list("objects", object=kind, livemode=str(livemode).lower())

    def settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = self._ask("GET", "settings")
        return settings

    def change_settings(self, **changes: Any) -> dict[str, Any]:
        """Changes some of `config.Settings`, such as `search_lag_s=0` or `rate_limit=25`."""
        settings: dict[str, Any] = self._ask("POST", "settings", changes)
        return settings

    def deliveries(self) -> list[dict[str, Any]]:
        """Every delivery of an event to an endpoint, with its state and its attempts so far."""
        return self._list("deliveries")

    def release_deliveries(self, newest_first: bool = False) -> int:
        """Lets go of what a `hold` fault kept back. Answers with how many there were."""
        return int(self._ask("POST", "deliveries/release", {"newest_first": newest_first})["released"])

    def wait_for_deliveries(self, deadline_s: float = 30) -> None:
        """Until nothing is on its way to an endpoint, retries that are not due yet aside. Raises
        `TimeoutError`."""

        def settled() -> bool:
            now = self.now()
            return not any(
                delivery["state"] == "sending" or (delivery["state"] == "waiting" and delivery["due"] <= now + 1)
                for delivery in self.deliveries()
            )

        wait_until(settled, deadline_s)

    def roll_webhook_secret(self, endpoint_id: str, expires_in_s: float = 24 * 3600) -> str:
        """Gives an endpoint a new secret; the old one signs as well until it expires."""
        path = f"webhook_endpoints/{quote(endpoint_id)}/roll_secret"
        return str(self._ask("POST", path, {"expires_in_s": expires_in_s})["secret"])

    def dispute(self, charge_id: str, reason: str = "fraudulent") -> dict[str, Any]:
        """A cardholder disputes a charge. Answers with the dispute."""
        dispute: dict[str, Any] = self._ask("POST", f"charges/{quote(charge_id)}/dispute", {"reason": reason})
        return dispute

    def close_dispute(self, dispute_id: str, outcome: str) -> dict[str, Any]:
        """The bank decides a dispute: `won` or `lost`, as the account sees it."""
        dispute: dict[str, Any] = self._ask("POST", f"disputes/{quote(dispute_id)}/close", {"outcome": outcome})
        return dispute

    def fail_refund(self, refund_id: str) -> dict[str, Any]:
        """The bank cannot give the money back after all."""
        refund: dict[str, Any] = self._ask("POST", f"refunds/{quote(refund_id)}/fail")
        return refund

    def change_card(self, payment_method_id: str, card: str) -> None:
        """From now on a payment method behaves as another test card, such as `chargeDeclinedStolenCard`."""
        self._ask("POST", f"payment_methods/{quote(payment_method_id)}/card", {"card": card})

    def authenticate(self, intent_id: str, consents: bool = True) -> dict[str, Any]:
        """A cardholder answers for a payment or setup intent that waits for it, as on its hosted page."""
        intent: dict[str, Any] = self._ask("POST", f"intents/{quote(intent_id)}/authenticate", {"consents": consents})
        return intent

    def reset(self) -> None:
        """Back to how the sandbox was when it first started: objects, faults, time, log and settings."""
        self._ask("POST", "reset")

    def _list(self, path: str, **query: str | None) -> list[dict[str, Any]]:
        given = {name: value for name, value in query.items() if value is not None}
        found: list[dict[str, Any]] = self._ask("GET", f"{path}?{urlencode(given)}")
        return found

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        try:
            connection.request(method, f"/_sandbox/{path}", json.dumps(body or {}))
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise SandboxRefused(answer.get("detail") or answer["error"]["message"])
        return answer


def wait_until(condition: Callable[[], bool], deadline_s: float) -> None:
    """Looks every 10 ms of real time until it holds. Raises `TimeoutError`."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {deadline_s} s")
        time.sleep(0.01)
