"""One client, and the calls that Tallyhook makes with it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import limits
import stripe
from redis.exceptions import RedisError

from app.db import transaction
from app.ledger.errors import Permanent, Transient, Unavailable
from app.logs import log
from app.settings import SettingsError, get_settings
from app.stripe.calls import LOOK_FIRST_S, Call, renew

_TIMEOUT_S = 20.0
_STRIPE = "https://api.stripe.com"
_WAIT_S = 2.0
"""Seconds a worker waits for its turn under the shared limit before it gives the job back."""


@cache
def client() -> stripe.StripeClient:
    """The client of this process: API version pinned by the SDK, no retries of its own (the ledger's
    are patient and seen), and a time-out far below the SDK's 80 s.

    Raises:
        SettingsError: STRIPE_SECRET_KEY is not set.
    """
    settings = get_settings()
    if settings.stripe_secret_key is None:
        raise SettingsError(["STRIPE_SECRET_KEY is not set and `tallyhook up` is not running here"])
    return stripe.StripeClient(
        settings.stripe_secret_key.get_secret_value(),
        base_addresses={"api": settings.stripe_api_base},
        http_client=stripe.RequestsClient(timeout=_TIMEOUT_S),
        max_network_retries=0,
    )


@cache
def _limit() -> tuple[limits.strategies.RateLimiter, limits.RateLimitItem]:
    settings = get_settings()
    key = settings.stripe_secret_key.get_secret_value() if settings.stripe_secret_key else ""
    storage = limits.storage.storage_from_string(settings.redis_url or "memory://", socket_timeout=0.5)
    # Stripe's own limits: 100 requests a second live, 25 with a test key.
    per_second = 25 if "_test_" in key and settings.stripe_api_base == _STRIPE else 100
    return limits.strategies.SlidingWindowCounterRateLimiter(storage), limits.RateLimitItemPerSecond(per_second)


def _take_turn() -> None:
    """Wait for a place under the limit that all workers share, so as not to provoke a storm of 429s."""
    limiter, item = _limit()
    until = time.monotonic() + _WAIT_S
    try:
        while not limiter.hit(item, "stripe"):
            if time.monotonic() > until:
                raise Unavailable("the shared limit on requests to Stripe is used up", retry_after=1)
            time.sleep(0.05)
    except RedisError as error:
        log.warning("stripe.limiter_away", error=type(error).__name__)


class StoredFailure(Exception):
    """Stripe answers this idempotency key with a failure that it has stored, and will for 24 hours."""


def _retry_after(error: stripe.StripeError) -> float | None:
    value = (error.headers or {}).get("Retry-After")
    return float(value) if value and value.isdigit() else None


@contextmanager
def _asking() -> Iterator[None]:
    """Take a turn, and give Stripe's errors the ledger's kinds. What Stripe says of a request may quote
    its parameters, so of the message only the type, the code and Stripe's request id go on."""
    _take_turn()
    try:
        yield
    except stripe.APIConnectionError as error:
        raise Unavailable("no answer from Stripe: the outcome is unknown until it is asked again") from error
    except stripe.StripeError as error:
        code = error.error.code if error.error else None
        summary = f"Stripe answered {error.http_status} {type(error).__name__} {code or ''} ({error.request_id})"
        status = error.http_status or 0
        if status >= 500 and (error.headers or {}).get("Idempotent-Replayed") == "true":
            raise StoredFailure(summary) from None
        # A bare APIError is an answer that is not Stripe's: a proxy's page, half a body.
        if status in (409, 429) or status >= 500 or type(error) is stripe.APIError:
            raise Unavailable(summary, retry_after=_retry_after(error)) from None
        if status in (401, 403):
            raise Transient(summary) from None  # a key to be mended by ops: not the job's fault for ever
        raise Permanent(summary) from None


def customer_parameters(*, customer_id: int, email: str, name: str) -> dict[str, Any]:
    """What a customer is created with in Stripe. The metadata is how it is found again."""
    return {"email": email, "name": name, "metadata": {"customer_id": str(customer_id)}}


def create_customer(call: Call) -> str:
    """The id of the Stripe customer that `call` creates, or has created in an earlier attempt.

    Raises:
        Unavailable, Transient, Permanent: see `app.ledger.errors`.
    """
    if call.age_s > LOOK_FIRST_S:
        found = _find_customer(call)
        if found is not None:
            return found
        with transaction() as db:
            call = renew(db, call)
    try:
        with _asking():
            created = client().v1.customers.create(
                call.parameters,  # type: ignore[arg-type]  # frozen as JSON
                {"idempotency_key": call.idempotency_key},
            )
        return created.id
    except StoredFailure as error:
        found = _find_customer(call)
        if found is not None:
            return found
        with transaction() as db:
            renew(db, call)
        raise Unavailable(f"{error}; nothing was created, the next attempt has a new key") from None


def _find_customer(call: Call) -> str | None:
    """The customer that an earlier attempt created, by listing (which, unlike search, does not lag)."""
    wanted = call.parameters["metadata"]["customer_id"]
    since = int(call.first_sent_at.timestamp()) - 300
    with _asking():
        page = client().v1.customers.list({"email": call.parameters["email"], "created": {"gte": since}, "limit": 100})
        for customer in page.auto_paging_iter():
            if customer.metadata and customer.metadata.to_dict().get("customer_id") == wanted:
                return customer.id
    return None


def all_customers() -> Iterator[tuple[str, str]]:
    """(Stripe's id, our id) of every customer in Stripe that carries an id of ours."""
    with _asking():
        page = client().v1.customers.list({"limit": 100})
    for customer in page.auto_paging_iter():
        ours = (customer.metadata.to_dict() if customer.metadata else {}).get("customer_id")
        if ours is not None:
            yield customer.id, ours
