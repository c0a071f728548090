"""Everything that the sandbox is made of, in one place for what answers requests and what runs beside it."""

import threading
from dataclasses import dataclass
from typing import Any

from app.sandbox.stripe import schedule
from app.sandbox.stripe.account import Account, Origin
from app.sandbox.stripe.clock import Clock
from app.sandbox.stripe.config import Settings
from app.sandbox.stripe.delivery import Outbox
from app.sandbox.stripe.faults import Faults
from app.sandbox.stripe.idempotency import IdempotencyKeys
from app.sandbox.stripe.resources.webhook_endpoints import make_endpoint
from app.sandbox.stripe.store import Store

_TICK_S = 0.25


@dataclass(frozen=True)
class DefaultEndpoint:
    """A webhook endpoint of test mode that is there from the start, for all events."""

    url: str
    secret: str


class World:
    def __init__(self, store: Store, settings: Settings, base_url: str, endpoint: DefaultEndpoint | None) -> None:
        self.store = store
        self.settings = settings
        self.base_url = base_url
        self.clock = Clock(store)
        self.faults = Faults()
        self.outbox = Outbox(store, self.clock, self.faults, settings)
        self.keys = IdempotencyKeys(store, self.clock)
        self.stopping = threading.Event()
        self._endpoint = endpoint
        self._first_settings = settings.model_copy(deep=True)
        self._add_default_endpoint()

    def account(self, livemode: bool, origin: Origin | None = None) -> Account:
        return Account(
            self.store,
            self.clock,
            self.outbox,
            self.faults,
            self.settings,
            self.base_url,
            livemode,
            origin or Origin(),
        )

    def account_of(self, object_id: str) -> Account:
        """The account in the mode of an object; in test mode where there is no such object."""
        found = self.store.get(object_id)
        return self.account(found[1] if found else False)

    def run_due(self, until: int | None = None) -> None:
        """Does what is due on the sandbox's own clock, in its order, by now or by `until` (the clock then
        stands where each thing was due)."""
        while True:
            with self.store.transaction():
                due = self.store.next_due(None, self.clock.now() if until is None else until)
                if due is None:
                    return
                object_id, moment = due
                self.clock.move_to(moment)
                schedule.run(self.account_of(object_id), object_id)

    def move_clock(self, moment: int) -> None:
        """Moves the sandbox's clock forward, by way of everything that falls due."""
        self.run_due(moment)
        self.clock.move_to(moment)
        self.outbox.wake()

    def reset(self) -> None:
        """Back to how it was when it first started, settings too."""
        with self.store.transaction():
            self.store.clear()
            self.faults.clear()
            self.clock.reset()
            self.change_settings(self._first_settings.model_dump())
            self._add_default_endpoint()

    def change_settings(self, changes: dict[str, Any]) -> None:
        for name, value in changes.items():
            setattr(self.settings, name, value)

    def _add_default_endpoint(self) -> None:
        if self._endpoint is None:
            return
        account = self.account(livemode=False)
        with self.store.transaction():
            # One from an earlier start may have had another address: what it has not got yet goes to the new one.
            known = account.find("webhook_endpoint", 1, _default=True)
            endpoint = known[0] if known else make_endpoint(account, self._endpoint.url, ["*"])
            secrets = [{"secret": self._endpoint.secret, "until": None}]
            account.save(endpoint | {"url": self._endpoint.url, "_secrets": secrets, "_default": True})


class Ticker(threading.Thread):
    """Does what is due as real time passes."""

    def __init__(self, world: World) -> None:
        super().__init__(name="stripe-sandbox-ticker", daemon=True)
        self._world = world

    def run(self) -> None:
        while not self._world.stopping.wait(_TICK_S):
            self._world.run_due()
