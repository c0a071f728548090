"""One client, the shared limit, what Stripe's errors mean to a job, and how a call is repeated (law 6)."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import limits
import stripe
from redis.exceptions import RedisError

from app.db import transaction
from app.ledger.errors import Permanent, Transient, Unavailable
from app.logs import log
from app.settings import SettingsError, get_settings
from app.stripe.calls import LOOK_FIRST_S, Call, renew

T = TypeVar("T")

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
    """This idempotency key leads nowhere for 24 hours: Stripe answers it with a failure that it has stored, or has it
    with other parameters, which happens to a restored database alone (failures.md 40)."""


class Declined(Exception):
    """The card's bank, or Stripe, refused (402).

    `code` is Stripe's error code, `decline_code` the bank's reason where there is one; `payment_intent` the intent as
    it is now, where it was one that was confirmed; `final`: Stripe advises not to try this card again.
    """

    def __init__(self, error: stripe.CardError) -> None:
        details = error.error
        self.code: str = (details.code if details else None) or "card_declined"
        self.decline_code: str | None = details.decline_code if details else None
        self.final: bool = (details.to_dict() if details else {}).get("advice_code") == "do_not_try_again"
        intent = details.payment_intent if details else None
        self.payment_intent: dict[str, Any] | None = intent.to_dict() if intent else None
        super().__init__(f"the card was declined: {self.decline_code or self.code}")


class Refused(Permanent):
    """Stripe refused a request for what it asks. `code` is Stripe's, `param` the parameter that it is about."""

    def __init__(self, message: str, code: str | None, param: str | None) -> None:
        super().__init__(message)
        self.code, self.param = code, param


class NotFound(Refused):
    """Stripe has no such object, or it is not one for this key."""


def _retry_after(error: stripe.StripeError) -> float | None:
    value = (error.headers or {}).get("Retry-After")
    return float(value) if value and value.isdigit() else None


@contextmanager
def asking() -> Iterator[None]:
    """Take a turn, and give Stripe's errors the ledger's kinds. What Stripe says of a request may quote
    its parameters, so of the message only the type, the code and Stripe's request id go on.

    Raises:
        Unavailable, Transient, NotFound, Refused, Permanent: see `app.ledger.errors`.
        Declined: 402.
        StoredFailure: see there.
    """
    _take_turn()
    try:
        yield
    except stripe.APIConnectionError as error:
        raise Unavailable("no answer from Stripe: the outcome is unknown until it is asked again") from error
    except stripe.CardError as error:
        raise Declined(error) from None
    except stripe.StripeError as error:
        code = error.error.code if error.error else None
        said = (error.http_status, type(error).__name__, code, error.request_id and f"({error.request_id})")
        summary = " ".join(["Stripe answered", *(str(part) for part in said if part)])
        status = error.http_status or 0
        replayed = status >= 500 and (error.headers or {}).get("Idempotent-Replayed") == "true"
        if replayed or (status == 400 and isinstance(error, stripe.IdempotencyError)):
            raise StoredFailure(summary) from None
        # A bare APIError is an answer that is not Stripe's: a proxy's page, half a body.
        if status in (409, 429) or status >= 500 or type(error) is stripe.APIError:
            raise Unavailable(summary, retry_after=_retry_after(error)) from None
        if status in (401, 403):
            raise Transient(summary) from None  # a key to be mended by ops: not the job's fault for ever
        refused = NotFound if status == 404 or code == "resource_missing" else Refused
        raise refused(summary, code, error.error.param if error.error else None) from None


def send(call: Call, do: Callable[[Any, Any], T], find: Callable[[Call], T | None]) -> T:
    """The object that `call` makes, or has made in an earlier attempt.

    Args:
        do: a method of the client that takes parameters and options.
        find: looks in Stripe for what the call has made, by listing. It is asked where the idempotency key cannot be
            relied on any more.

    Raises:
        as `asking`, but for StoredFailure.
    """
    if call.age_s > LOOK_FIRST_S:
        found = find(call)
        if found is not None:
            return found
        with transaction() as db:
            call = renew(db, call)
    try:
        with asking():
            return do(call.parameters, {"idempotency_key": call.idempotency_key})
    except StoredFailure as error:
        found = find(call)
        if found is not None:
            return found
        with transaction() as db:
            renew(db, call)
        raise Unavailable(f"{error}; it had no effect, the next attempt has a new key") from None


def metadata(thing: stripe.StripeObject) -> dict[str, str]:
    """The metadata of an object of Stripe's."""
    found = thing.to_dict().get("metadata")
    return found or {}


def since(call: Call) -> int:
    """A little before the first time that `call` was sent, in Stripe's form: where a look for its effect begins."""
    return int(call.first_sent_at.timestamp()) - 300
