"""What happened in Stripe and what there is, page by page (stripe.md, "Catching up").

Stripe lists the newest first. Each page takes its turn under the shared limit, and a long list leaves most of the turns
to whoever a customer waits for.
"""

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from app.ledger.errors import Unavailable
from app.stripe.client import asking, client
from app.stripe.webhooks import object_now, read_json

T = TypeVar("T")

Page = list[dict[str, Any]]
"""At most a hundred objects, as Stripe shows them."""

_PAGES_PER_S = 15
_TRY_AGAIN_S = (0.5, 1.0, 2.0)
"""Seconds to wait where Stripe does not answer: a long list is not thrown away for a moment's trouble."""


def _pages(path: str, **filters: Any) -> Iterator[Page]:
    """All pages of a list, as they come over the wire: the SDK's objects would cost ten times as much.

    Raises:
        as `app.stripe.client.asking`
    """
    more: dict[str, Any] = {}
    while True:
        began = time.monotonic()
        page = _patiently(partial(_ask, path, {**filters, **more, "limit": 100}))
        yield page["data"]
        if not page["has_more"]:
            return
        more = {"starting_after": page["data"][-1]["id"]}
        time.sleep(max(0.0, 1 / _PAGES_PER_S - (time.monotonic() - began)))


def one(collection: str, object_id: str) -> dict[str, Any] | None:
    """As `app.stripe.webhooks.object_now`, at the pace of a page: there may be many to ask for."""
    found = _patiently(partial(object_now, collection, object_id))
    time.sleep(1 / _PAGES_PER_S)
    return found


def _patiently(ask: Callable[[], T]) -> T:
    for wait_s in _TRY_AGAIN_S:
        try:
            return ask()
        except Unavailable as error:
            time.sleep(max(wait_s, error.retry_after or 0))
    return ask()


def _ask(path: str, parameters: dict[str, Any]) -> dict[str, Any]:
    with asking():
        found: dict[str, Any] = read_json(client().raw_request("get", path, **parameters).body.encode())
    return found


def _second(at: datetime) -> int:
    return int(at.timestamp())


def events(since: datetime, until: datetime | None) -> Iterator[Page]:
    """Events made from `since` until before `until` (None: now). Stripe keeps them for 30 days."""
    created = {"gte": _second(since)} | ({"lt": _second(until)} if until else {})
    return _pages("/v1/events", created=created)


def customers() -> Iterator[Page]:
    """All customers that have not been deleted."""
    return _pages("/v1/customers")


def subscriptions() -> Iterator[Page]:
    """All subscriptions, those that have ended as well."""
    return _pages("/v1/subscriptions", status="all")


def intents(since: datetime) -> Iterator[Page]:
    """Payment intents created since then."""
    return _pages("/v1/payment_intents", created={"gte": _second(since)})


def refunds(since: datetime) -> Iterator[Page]:
    """Refunds created since then."""
    return _pages("/v1/refunds", created={"gte": _second(since)})


def disputes() -> Iterator[Page]:
    """All disputes: they are few, and one of long ago may be decided today."""
    return _pages("/v1/disputes")


def overage_items() -> Iterator[Page]:
    """The invoice items that are an overage of ours. Of an item the time is called `date`, and not every server of
    this API filters by it: all of them are read."""
    for page in _pages("/v1/invoiceitems"):
        yield [item for item in page if "overage_of" in (item["metadata"] or {})]


def invoices(since: datetime) -> Iterator[Page]:
    """Invoices created since then, and older ones that are drafts or open still; some of them twice."""
    yield from _pages("/v1/invoices", created={"gte": _second(since)})
    for status in ("draft", "open"):
        yield from _pages("/v1/invoices", status=status)


def of(collection: str, **whose: str) -> Iterator[Page]:
    """All of one customer, or of one payment."""
    return _pages(f"/v1/{collection}", **whose)
