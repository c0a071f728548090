"""Events, the endpoints that get them, and what can go wrong on the way."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import stripe

from app.sandbox.stripe import wait_until
from tests.sandbox.conformance import OPENAPI, missing_fields

SECRET = "whsec_for_these_tests"


class Receiver(ThreadingHTTPServer):
    """An endpoint that keeps what it gets, and answers with the next of `answers` (then 200)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[bytes, str]] = []
        self.answers: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_port}/webhooks?of=stripe"

    def events(self, secret: str = SECRET) -> list[stripe.Event]:
        """What came, each with its signature verified by Stripe's client."""
        return [stripe.Webhook.construct_event(body, signature, secret) for body, signature in list(self.got)]

    def types(self) -> list[str]:
        return [event.type for event in self.events()]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((body, self.headers["Stripe-Signature"]))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def sandbox(start, receiver):
    """Overrides the plain one: this one delivers, and tries again at once."""
    return start(webhook_url=receiver.url, webhook_secret=SECRET, webhook_retries_s=[0.05, 0.05])


def test_a_change_is_delivered_signed(api, sandbox, receiver):
    customer = api.customers.create({"name": "Ada"}, {"idempotency_key": "k"})
    sandbox.wait_for_deliveries()
    (event,) = receiver.events()
    assert event.type == "customer.created"
    assert event.data.object.to_dict() == customer.to_dict()
    assert event.request.idempotency_key == "k"
    assert event.request.id == customer.last_response.request_id
    assert event.api_version == "2026-10-28.endive"
    assert event.livemode is False
    assert event.pending_webhooks == 1
    assert api.events.retrieve(event.id).pending_webhooks == 0


def test_an_update_tells_what_was_before(api, sandbox, receiver):
    customer = api.customers.create({"name": "Ada", "metadata": {"a": "1"}})
    api.customers.update(customer.id, {"name": "Lovelace", "metadata": {"b": "2"}})
    api.customers.update(customer.id, {"name": "Lovelace"})
    sandbox.wait_for_deliveries()
    (updated,) = [event for event in receiver.events() if event.type == "customer.updated"]
    assert updated.data.previous_attributes.to_dict() == {"name": "Ada", "metadata": {"b": None}}


def test_a_refused_request_and_a_repeated_one_make_no_event(api, sandbox):
    api.customers.create({}, {"idempotency_key": "k"})
    api.customers.create({}, {"idempotency_key": "k"})
    with pytest.raises(stripe.InvalidRequestError):
        api.customers.create({"unheard_of": "1"})
    assert [event["type"] for event in sandbox.objects("event")] == ["customer.created"]


def test_a_failing_endpoint_is_tried_again(api, sandbox, receiver):
    receiver.answers = [500, 302]
    api.customers.create()
    wait_until(lambda: len(receiver.got) == 3, 30)
    sandbox.wait_for_deliveries()
    assert len({event.id for event in receiver.events()}) == 1
    assert [(d["state"], d["attempts"]) for d in sandbox.deliveries()] == [("delivered", 3)]


def test_after_the_last_try_the_delivery_has_failed(api, sandbox, receiver):
    receiver.answers = [500, 500, 500]
    api.customers.create()
    wait_until(lambda: sandbox.deliveries()[0]["state"] == "failed", 30)
    api.customers.create()
    sandbox.wait_for_deliveries()
    undelivered = api.events.list({"delivery_success": False}).data
    delivered = api.events.list({"delivery_success": True}).data
    assert [event.pending_webhooks for event in undelivered] == [1]
    assert len(delivered) == 1


def test_moving_the_clock_makes_a_retry_due(api, sandbox, receiver):
    sandbox.change_settings(webhook_retries_s=[3600])
    receiver.answers = [503]
    api.customers.create()
    wait_until(lambda: sandbox.deliveries()[0]["attempts"] == 1, 30)
    sandbox.wait_for_deliveries()
    assert len(receiver.got) == 1
    sandbox.advance(3601)
    wait_until(lambda: len(receiver.got) == 2, 30)


def test_a_deliverys_signature_has_the_real_time(api, sandbox, receiver):
    sandbox.advance(40 * 24 * 3600)
    api.customers.create()
    sandbox.wait_for_deliveries()
    assert receiver.types() == ["customer.created"]


def test_while_a_secret_is_rolled_both_verify(api, sandbox, receiver):
    (endpoint,) = api.webhook_endpoints.list().data
    new = sandbox.roll_webhook_secret(endpoint.id, expires_in_s=600)
    api.customers.create()
    sandbox.wait_for_deliveries()
    assert receiver.got[0][1].count("v1=") == 2
    assert len(receiver.events(SECRET)) == len(receiver.events(new)) == 1
    sandbox.advance(601)
    api.customers.create()
    sandbox.wait_for_deliveries()
    assert receiver.got[1][1].count("v1=") == 1
    with pytest.raises(stripe.SignatureVerificationError):
        receiver.events(SECRET)


def test_a_duplicate_comes_twice(api, sandbox, receiver):
    sandbox.fault("duplicate", event="customer.*")
    api.customers.create()
    sandbox.wait_for_deliveries()
    assert len(receiver.got) == 2
    assert len({event.id for event in receiver.events()}) == 1


def test_a_dropped_delivery_never_comes_and_the_event_says_so(api, sandbox, receiver):
    sandbox.fault("drop", event="customer.created")
    api.customers.create()
    sandbox.wait_for_deliveries()
    assert receiver.got == []
    assert api.events.list({"delivery_success": False}).data[0].type == "customer.created"


def test_some_events_are_never_made(api, sandbox, receiver):
    sandbox.fault("unmade", event="customer.created")
    api.customers.create()
    assert sandbox.objects("event") == []


def test_held_deliveries_come_out_of_order(api, sandbox, receiver):
    sandbox.fault("hold", event="customer.*", count=3)
    customer = api.customers.create()
    api.customers.update(customer.id, {"name": "Ada"})
    api.customers.delete(customer.id)
    sandbox.wait_for_deliveries()
    assert receiver.got == []
    assert sandbox.release_deliveries(newest_first=True) == 3
    wait_until(lambda: len(receiver.got) == 3, 30)
    assert sorted(receiver.types()) == ["customer.created", "customer.deleted", "customer.updated"]


def test_a_late_delivery_waits_for_its_time(api, sandbox, receiver):
    sandbox.fault("late", event="customer.created", seconds=3600)
    customer = api.customers.create()
    api.customers.update(customer.id, {"name": "Ada"})
    sandbox.wait_for_deliveries()
    assert receiver.types() == ["customer.updated"]
    sandbox.advance(3601)
    wait_until(lambda: len(receiver.got) == 2, 30)


def test_endpoints_get_what_they_asked_for(api, sandbox, receiver):
    (default,) = api.webhook_endpoints.list().data
    api.webhook_endpoints.update(default.id, {"disabled": True})
    endpoint = api.webhook_endpoints.create(
        {"url": receiver.url, "enabled_events": ["customer.deleted"], "metadata": {"of": "test"}}
    )
    assert endpoint.secret.startswith("whsec_")
    assert not hasattr(api.webhook_endpoints.retrieve(endpoint.id), "secret")
    customer = api.customers.create()
    api.customers.delete(customer.id)
    sandbox.wait_for_deliveries()
    assert [event.type for event in receiver.events(endpoint.secret)] == ["customer.deleted"]
    assert api.webhook_endpoints.delete(endpoint.id).deleted
    api.customers.delete(api.customers.create().id)
    assert len(receiver.got) == 1


def test_events_are_listed_by_type_and_time(api, sandbox):
    customer = api.customers.create()
    later = sandbox.advance(100)
    api.customers.update(customer.id, {"name": "Ada"})
    api.customers.delete(customer.id)

    def types(**filters):
        return [event.type for event in api.events.list(filters).data]

    assert types() == ["customer.deleted", "customer.updated", "customer.created"]
    assert types(type="customer.updated") == ["customer.updated"]
    assert types(type="customer.*", limit=2) == ["customer.deleted", "customer.updated"]
    assert types(types=["customer.created", "customer.deleted"]) == ["customer.deleted", "customer.created"]
    assert types(created={"lt": later}) == ["customer.created"]
    sandbox.advance(31 * 24 * 3600)
    assert types() == []


def test_a_test_clock_moves_its_customers_alone(api, sandbox):
    start_of_2030 = 1893456000
    clock = api.test_helpers.test_clocks.create({"frozen_time": start_of_2030, "name": "2030"})
    customer = api.customers.create({"test_clock": clock.id})
    assert customer.created == start_of_2030
    answer = api.test_helpers.test_clocks.advance(clock.id, {"frozen_time": start_of_2030 + 3600})
    assert answer.status == "advancing"
    ready = api.test_helpers.test_clocks.retrieve(clock.id)
    assert (ready.status, ready.frozen_time) == ("ready", start_of_2030 + 3600)
    assert sandbox.now() < start_of_2030
    assert [found.id for found in api.customers.list({"test_clock": clock.id}).data] == [customer.id]
    with pytest.raises(stripe.InvalidRequestError):
        api.test_helpers.test_clocks.advance(clock.id, {"frozen_time": start_of_2030})
    api.test_helpers.test_clocks.delete(clock.id)
    assert api.customers.retrieve(customer.id).deleted


@pytest.mark.skipif(not OPENAPI.exists(), reason=f"Stripe's samples are absent: {OPENAPI.parent}")
def test_shapes_have_every_field_of_stripes_samples(api, sandbox):
    endpoint = api.webhook_endpoints.list().data[0].to_dict()
    clock = api.test_helpers.test_clocks.create({"frozen_time": 1893456000}).to_dict()
    event = api.events.list().data[0].to_dict()
    assert missing_fields(endpoint, "webhook_endpoint") == set()
    assert missing_fields(clock, "test_helpers.test_clock") == set()
    assert missing_fields(event, "event") == set()
