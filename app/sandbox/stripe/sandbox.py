"""The sandbox as a whole: started, stopped, and in between one address that answers."""

import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from app.sandbox.stripe.api import Api, Hook
from app.sandbox.stripe.client import SandboxControl
from app.sandbox.stripe.config import Settings
from app.sandbox.stripe.control import Control
from app.sandbox.stripe.delivery import COURIERS, Courier
from app.sandbox.stripe.messages import Request, Response
from app.sandbox.stripe.pages import Pages
from app.sandbox.stripe.server import Server
from app.sandbox.stripe.store import Store
from app.sandbox.stripe.world import DefaultEndpoint, Ticker, World

SANDBOX_SECRET = "whsec_sandbox"  # noqa: S105 - it guards nothing but a sandbox


class StripeSandbox(SandboxControl):
    """A Stripe of one's own, in daemon threads of this process: `with StripeSandbox() as stripe: stripe.url`.

    `port` 0 takes a free one. `data` is the file that keeps the state, None keeps it in memory. With
    `webhook_url` there is an endpoint from the start, signing with `webhook_secret`. `hook` sees every
    request that reached its operation. `settings` are those of `config.Settings`.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        data: Path | None = None,
        webhook_url: str | None = None,
        webhook_secret: str = SANDBOX_SECRET,
        hook: Hook | None = None,
        **settings: Any,
    ) -> None:
        self._server = Server(host, port)
        super().__init__(self._server.url)
        self._store = Store(str(data) if data else ":memory:")
        endpoint = DefaultEndpoint(webhook_url, webhook_secret) if webhook_url else None
        self._world = World(self._store, Settings(**settings), self.url, endpoint)
        self._api = Api(self._world, hook)
        self._control = Control(self._world, self._api.log, self._api.router.names)
        self._pages = Pages(self._world)
        self._server.answer = self._answer
        self._couriers = [
            Courier(self._store, self._world.clock, self._world.outbox, self._world.settings) for _ in range(COURIERS)
        ]
        self._ticker = Ticker(self._world)
        self._serving = threading.Thread(target=self._server.serve, name="stripe-sandbox", daemon=True)

    def start(self) -> Self:
        for thread in (self._ticker, *self._couriers, self._serving):
            thread.start()
        return self

    def stop(self) -> None:
        """Ends what runs, and closes every connection; a request in hand may be lost, as in a crash."""
        self._world.stopping.set()
        self._world.faults.clear()
        for courier in self._couriers:
            courier.stop()
        self._world.outbox.wake()
        self._server.stop()
        for thread in (self._ticker, *self._couriers):
            thread.join()
        self._store.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _answer(self, request: Request) -> Response:
        if request.path.startswith("/v1/"):
            return self._api.answer(request)
        if request.path.startswith("/_sandbox/"):
            return self._control.answer(request)
        return self._pages.answer(request)
