"""A sandbox for each test, every exchange with it checked against Stripe's own description."""

from collections.abc import Callable, Iterator

import pytest
import stripe

from app.sandbox.stripe import StripeSandbox
from tests.sandbox.conformance import OPENAPI, Conformance


def pytest_report_header() -> str:
    if OPENAPI.exists():
        return "stripe sandbox: every exchange is checked against Stripe's OpenAPI description"
    return f"stripe sandbox: NOT checked against Stripe's OpenAPI description, which is absent: {OPENAPI}"


@pytest.fixture(autouse=True)
def clean_slate() -> None:
    """These tests use no database."""


@pytest.fixture
def start() -> Iterator[Callable[..., StripeSandbox]]:
    """Starts sandboxes; fails the test for what their exchanges and events had that Stripe's have not."""
    conformance = Conformance() if OPENAPI.exists() else None
    started: list[StripeSandbox] = []

    def start_one(**options: object) -> StripeSandbox:
        started.append(StripeSandbox(hook=conformance, **options).start())
        return started[-1]

    yield start_one
    for sandbox in started:
        if conformance:
            conformance.check_events(sandbox.objects("event"))
        sandbox.stop()
    if conformance and conformance.problems:
        pytest.fail("unlike Stripe's description:\n" + "\n".join(dict.fromkeys(conformance.problems)))


@pytest.fixture
def sandbox(start: Callable[..., StripeSandbox]) -> StripeSandbox:
    return start()


@pytest.fixture
def connect(sandbox: StripeSandbox) -> Callable[..., stripe.StripeClient]:
    """A client of the sandbox, without the SDK's own retries unless asked for."""

    def client(key: str = "sk_test_123", **options: object) -> stripe.StripeClient:
        return stripe.StripeClient(key, base_addresses={"api": sandbox.url}, **({"max_network_retries": 0} | options))

    return client


@pytest.fixture
def api(connect: Callable[..., stripe.StripeClient]) -> stripe.V1Services:
    return connect().v1
