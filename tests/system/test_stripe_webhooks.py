"""`POST /webhooks/stripe`: what is signed is kept, in any order and number, and what it is about is read in Stripe
(seed: "handles duplicate webhooks"; failures.md 7 to 9, 18 to 21, 43)."""

import hmac
import json
import time
from collections.abc import Callable
from functools import partial
from itertools import count as numbers
from typing import Any

import orjson
import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from app.sandbox.stripe import StripeSandbox, signature_header
from app.stripe import catalog
from app.stripe.client import client
from tests.conftest import wait_until
from tests.processes import Process
from tests.sandbox.conformance import Conformance
from tests.system.cable import Cable
from tests.system.money import Customer, customer, deploy, entries, status
from tests.system.scene import Site, at_once, count, drain, drain_to_the_end, job, one, show, sql, time_passes
from tests.system.test_api_keys import through
from tests.system.test_database_away import is_away
from tests.system.test_database_away import through as through_postgres
from tests.system.test_plans import on_teams
from tests.system.test_schemathesis import EXAMPLES

SECRET = "whsec_tallyhooktests"
PATH = "/webhooks/stripe"
_numbers = numbers(1)


def event(kind: str, thing: dict[str, Any] | None, **changes: Any) -> dict[str, Any]:
    """An event as Stripe makes it."""
    made = {
        "id": f"evt_{next(_numbers)}",
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": int(time.time()),
        "data": {"object": thing},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": kind,
    }
    return made | changes


def signed(body: bytes, *secrets: str, after_s: float = 0) -> dict[str, str]:
    """The header of a body that was signed so many seconds from now."""
    return {"Stripe-Signature": signature_header(body, secrets or (SECRET,), int(time.time() + after_s))}


def post(web: FlaskClient, sent: dict[str, Any] | bytes, **headers: str) -> TestResponse:
    """Deliver an event, or a body, signed as Stripe does."""
    body = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    return web.post(PATH, data=body, headers=signed(body) | headers)


def came_to(sent: dict[str, Any]) -> dict[str, Any]:
    """What ops see of the job of an event."""
    return show(one("SELECT id FROM jobs WHERE key = %(key)s", key=f"stripe:{sent['id']}"))


def result(sent: dict[str, Any]) -> Any:
    return came_to(sent)["result"]


def subscription_of(of: Customer) -> str:
    found: str = one("SELECT id FROM subscriptions WHERE customer_id = %(id)s", id=of.id)
    return found


# signatures


def test_a_signed_event_is_kept_whole(web: FlaskClient) -> None:
    sent = event("invoice.paid", {"id": "in_1", "object": "invoice", "lines": [{"amount": 1.5}, None], "note": "ä"})
    answer = post(web, sent)
    assert (answer.status_code, answer.json) == (200, {"received": True, "duplicate": False})
    assert sql("SELECT name, queue, state, key, payload FROM jobs") == [
        ("stripe_event", "webhooks", "queued", f"stripe:{sent['id']}", {"event": sent})
    ]


BODY = json.dumps(event("invoice.paid", {"id": "in_1"})).encode()


def good() -> str:
    """A signature of this moment, not of the import, which may be minutes before."""
    return signed(BODY)["Stripe-Signature"]


def stamp() -> str:
    return good().split(",")[0]


def signature() -> str:
    return good().split(",")[1]


FORGED: dict[str, Callable[[], str | None]] = {
    "missing": lambda: None,
    "empty": lambda: "",
    "no scheme": lambda: "signed",
    "no time": lambda: signature(),
    "no signature": lambda: stamp(),
    "two times": lambda: f"{stamp()},{good()}",
    "a time that is none": lambda: f"t=now,{signature()}",
    "a negative time": lambda: f"t=-5,{signature()}",
    "digits of another script": lambda: f"t=١٢٣,{signature()}".encode().decode("latin-1"),
    "a time of 5,000 digits": lambda: f"t={'9' * 5000},{signature()}",
    "wrong": lambda: signed(BODY, "whsec_of_another")["Stripe-Signature"],
    "of another body": lambda: signed(BODY + b" ")["Stripe-Signature"],
    "of another time": lambda: f"t={int(stamp()[2:]) + 1},{signature()}",
    "cut off": lambda: good()[:-1],
    "not ASCII": lambda: f"{stamp()},v1=\xff\xe4",
    "the test scheme alone": lambda: good().replace("v1=", "v0="),
    "stale": lambda: signed(BODY, after_s=-302)["Stripe-Signature"],
    "from the future": lambda: signed(BODY, after_s=302)["Stripe-Signature"],
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_what_is_not_signed_is_refused_and_not_kept(web: FlaskClient, forged: Callable[[], str | None]) -> None:
    header = forged()
    answer = web.post(PATH, data=BODY, headers={} if header is None else {"Stripe-Signature": header})
    assert (answer.status_code, answer.content_type) == (400, "application/problem+json")
    assert SECRET not in answer.text
    assert count("jobs") == 0


@pytest.mark.parametrize("after_s", [-295, 295])
def test_a_clock_may_be_some_minutes_off(web: FlaskClient, after_s: float) -> None:
    assert web.post(PATH, data=BODY, headers=signed(BODY, after_s=after_s)).status_code == 200


def test_one_good_signature_of_several_is_enough(web: FlaskClient) -> None:
    others = [f"v1={'0' * 64}", "v0=1", "v1=", "v2=x"]
    stamped, by_us = good().split(",")
    headers = {"Stripe-Signature": ",".join([stamped, *others, by_us, *others])}
    assert web.post(PATH, data=BODY, headers=headers).status_code == 200


def test_a_secret_is_rolled_over_while_events_are_under_way(web: FlaskClient, configure: Callable[..., None]) -> None:
    configure(STRIPE_WEBHOOK_SECRETS="whsec_new, whsec_old")
    for secrets in (["whsec_old"], ["whsec_new"], ["whsec_newest", "whsec_new"]):
        body = json.dumps(event("invoice.paid", {"id": "in_1"})).encode()
        assert web.post(PATH, data=body, headers=signed(body, *secrets)).status_code == 200
    configure(STRIPE_WEBHOOK_SECRETS="whsec_new")
    assert web.post(PATH, data=BODY, headers=signed(BODY, "whsec_old")).status_code == 400
    assert count("jobs") == 3


def test_without_a_secret_nothing_is_taken_and_the_sender_may_come_again(
    web: FlaskClient, configure: Callable[..., None]
) -> None:
    configure(STRIPE_WEBHOOK_SECRETS=None)
    answer = post(web, event("invoice.paid", {"id": "in_1"}))
    assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
    assert int(answer.headers["Retry-After"]) > 0
    assert "STRIPE_WEBHOOK_SECRETS" in answer.json["detail"]


# bodies

NO_EVENTS: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"event",
    "no UTF-8": b'{"id": "evt_1", "object": "event", "type": "\xff"}',
    "a list": b"[]",
    "null": b"null",
    "no object": b'{"id": "evt_1", "type": "invoice.paid"}',
    "another object": b'{"id": "in_1", "object": "invoice", "type": "invoice.paid"}',
    "an object that is an object": b'{"id": "evt_1", "object": {}, "type": "invoice.paid"}',
    "no id": b'{"object": "event", "type": "invoice.paid"}',
    "an id that is a number": b'{"id": 7, "object": "event", "type": "invoice.paid"}',
    "an empty id": b'{"id": "", "object": "event", "type": "invoice.paid"}',
    "an id with a NUL": b'{"id": "evt_\\u0000", "object": "event", "type": "invoice.paid", "x": "\\u0000\x00"}',
    "an id of 10,000 letters": b'{"id": "%b", "object": "event", "type": "invoice.paid"}' % (b"e" * 10_000),
    "no type": b'{"id": "evt_1", "object": "event"}',
    "a type with a line break": b'{"id": "evt_1", "object": "event", "type": "a\\nb"}',
    "100,000 deep": b"[" * 100_000,
    "300 deep": b'{"id":"evt_1","object":"event","type":"a.b","x":' + b"[" * 300 + b"]" * 300 + b"}",
    "half a surrogate pair": b'{"id": "evt_1", "object": "event", "type": "a.b", "x": "\\ud800"}',
    "a number too large": b'{"id": "evt_1", "object": "event", "type": "a.b", "x": 1e400}',
}


@pytest.mark.parametrize("body", NO_EVENTS.values(), ids=NO_EVENTS)
def test_a_signed_body_that_is_no_event_is_refused(web: FlaskClient, body: bytes) -> None:
    answer = post(web, body)
    assert (answer.status_code, answer.content_type) == (400, "application/problem+json")
    assert count("jobs") == 0


@pytest.mark.parametrize("depth", range(235, 262))
def test_however_deep_it_is_kept_or_refused(web: FlaskClient, depth: int) -> None:
    body = b'{"id":"evt_1","object":"event","type":"a.b","x":' + b"[" * depth + b"]" * depth + b"}"
    assert post(web, body).status_code == (200 if count("jobs") else 400)


def test_a_nul_in_a_text_does_not_keep_the_event_out(web: FlaskClient) -> None:
    body = rb'{"id":"evt_1","object":"event","type":"a.b","x":"\u0000a\\u0000b\\\u0000\u0000"}'
    assert post(web, body).status_code == 200
    assert one("SELECT payload #>> '{event,x}' FROM jobs") == "\ufffda\\u0000b\\\ufffd\ufffd"


def test_a_body_of_more_than_a_mebibyte_is_refused(web: FlaskClient) -> None:
    assert post(web, b" " * 1024 * 1024 + BODY).status_code == 413


@given(raw=st.binary(max_size=400), header=st.text(max_size=200) | st.just(good()), sign=st.booleans())
@EXAMPLES
def test_no_bytes_and_no_header_are_a_5xx(web: FlaskClient, raw: bytes, header: str, sign: bool) -> None:
    plain = header.encode("latin-1", "replace").decode("latin-1").replace("\r", "").replace("\n", "")
    answer = web.post(PATH, data=raw, headers=signed(raw) if sign else {"Stripe-Signature": plain})
    assert answer.status_code == 400
    assert count("jobs") == 0


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
_types = st.sampled_from(
    ["invoice.paid", "customer.deleted", "refund.created", "charge.dispute.closed", "payment_method.detached",
     "payment_intent.succeeded", "customer.subscription.updated", "checkout.session.completed", "v1.customer.updated"]
)  # fmt: skip
_names = st.sampled_from(["id", "object", "customer", "metadata", "parent", "payment_intent", "subscription_details"])


@given(
    thing=_json | st.dictionaries(_names, _json, max_size=5),
    before=_json,
    kind=_types | st.text(max_size=20),
    whole=st.sampled_from(["event", "v2.core.event"]),
    related=_json,
)
@EXAMPLES
def test_an_event_of_any_shape_is_kept_and_ends(
    web: FlaskClient, thing: Any, before: Any, kind: str, whole: str, related: Any
) -> None:
    sent = event(kind, thing, object=whole, related_object=related)
    sent["data"]["previous_attributes"] = before
    answer = post(web, sent)
    assert answer.status_code in (200, 400)
    drain()
    assert sql("SELECT id FROM jobs WHERE error_kind = 'transient'") == []


def test_webhooks_while_the_database_is_away_are_told_to_come_again_and_then_taken(
    start_web: Callable[..., Site], postgres_cable: Cable
) -> None:
    site = start_web(DATABASE_URL=through_postgres(postgres_cable))
    body = json.dumps(event("invoice.paid", {"id": "in_1"})).encode()
    of_github = {
        "X-Hub-Signature-256": "sha256=" + hmac.new(b"githubtests", body, "sha256").hexdigest(),
        "X-GitHub-Delivery": "d1",
        "X-GitHub-Event": "ping",
        "Content-Type": "application/json",
    }
    deliveries = [
        partial(site.ask, "POST", PATH, body=body, headers=signed(body)),
        partial(site.ask, "POST", "/webhooks/github", body=body, headers=of_github),
    ]
    postgres_cable.cut()
    for deliver in deliveries:
        is_away(deliver())
    assert count("jobs") == count("job_keys") == 0
    postgres_cable.mend()
    wait_until(lambda: site.get("/readyz").status == 200, what="readiness")
    assert [deliver().status for deliver in deliveries] == [200, 202]
    assert count("jobs") == 2


@pytest.mark.usefixtures("whole_window")
def test_webhooks_are_limited_where_a_limit_is_set(web: FlaskClient, configure: Callable[..., None]) -> None:
    configure(WEBHOOK_RATE_LIMIT="3/hour")
    statuses = [post(web, event("a.b", {})).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    assert count("jobs") == 3


# duplicates


def test_handles_duplicate_webhooks(web: FlaskClient) -> None:
    sent = event("invoice.paid", {"id": "in_1"})
    answers = [post(web, sent).json for _ in range(3)]
    assert [answer["duplicate"] for answer in answers] == [False, True, True]
    assert count("jobs") == 1


def test_fifty_at_once_are_one(site: Site) -> None:
    body = json.dumps(event("invoice.paid", {"id": "in_1"})).encode()
    deliver = partial(site.ask, "POST", PATH, body=body, headers=signed(body))
    answers = at_once(*[deliver] * 50)
    assert {answer.status for answer in answers} == {200}
    assert sorted(answer.json["duplicate"] for answer in answers) == [False] + [True] * 49
    assert count("jobs") == count("job_keys") == 1


def test_it_is_taken_while_workers_are_stopped_and_redis_is_away(
    start_web: Callable[..., Site], redis_cable: Cable
) -> None:
    site = start_web(REDIS_URL=through(redis_cable))
    redis_cable.cut()
    body = json.dumps(event("invoice.paid", {"id": "in_1"})).encode()
    answer = site.ask("POST", PATH, body=body, headers=signed(body))
    assert (answer.status, answer.json) == (200, {"received": True, "duplicate": False})
    assert sql("SELECT state FROM jobs") == [("queued",)]


# what follows


def test_every_type_that_matters_has_its_object_read(web: FlaskClient) -> None:
    ada = customer("payg", "pm_card_visa")
    deploy(ada, 1)
    drain_to_the_end()
    intent = one("SELECT payment_intent FROM charges")
    charge, fix = one("SELECT id FROM charges"), one("SELECT ref FROM fixes")
    mine = {"customer": ada.stripe_id}
    line = {"subscription_details": {"subscription": "sub_1"}}
    cases: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
        ("customer.updated", {"id": ada.stripe_id}, "sync_customer", {}),
        ("customer.deleted", {"id": ada.stripe_id}, "sync_customer", {}),
        ("customer.subscription.created", {"id": "sub_1", **mine}, "sync_subscription", {"subscription_id": "sub_1"}),
        ("customer.subscription.paused", {"id": "sub_2", **mine}, "sync_subscription", {"subscription_id": "sub_2"}),
        ("invoice.paid", {"id": "in_1", "parent": line, **mine}, "sync_subscription", {"subscription_id": "sub_1"}),
        ("invoice.voided", {"id": "in_1", "parent": None, **mine}, "sync_invoices", {}),
        ("payment_intent.succeeded", {"id": intent, "metadata": {"fix": fix}}, "sync_charge", {"charge_id": charge}),
        ("charge.refunded", {"id": "ch_1", "payment_intent": intent}, "sync_charge", {"charge_id": charge}),
        ("refund.failed", {"id": "re_1", "payment_intent": {"id": intent}}, "sync_charge", {"charge_id": charge}),
        ("charge.dispute.closed", {"id": "dp_1", "payment_intent": intent}, "sync_charge", {"charge_id": charge}),
        ("setup_intent.succeeded", {"id": "seti_1", "customer": {"id": ada.stripe_id}}, "sync_customer", {}),
        ("checkout.session.expired", {"id": "cs_1", **mine}, "complete_checkout", {"session_id": "cs_1"}),
        ("payment_method.updated", {"id": "pm_1", **mine}, "sync_customer", {}),
    ]
    for kind, thing, command, payload in cases:
        sql("DELETE FROM jobs WHERE name = %(name)s", name=command)
        sent = event(kind, thing)
        post(web, sent)
        drain()
        assert result(sent)["customer_id"] == ada.id, kind
        followed = show(result(sent)["job_id"])
        assert followed["name"] == command, kind
        expected = {"customer_id": ada.id, "occasion": f"event:{sent['id']}", **payload}
        assert followed["payload"] == expected, kind


def test_a_card_that_was_detached_is_its_former_customers(web: FlaskClient) -> None:
    ada = customer()
    sent = event("payment_method.detached", {"id": "pm_1", "customer": None})
    sent["data"]["previous_attributes"] = {"customer": ada.stripe_id}
    post(web, sent)
    drain()
    assert result(sent)["customer_id"] == ada.id


def test_the_state_in_stripe_counts_not_the_order_of_events(web: FlaskClient, stripe: StripeSandbox) -> None:
    catalog.sync()
    ada = on_teams(web)
    subscription = subscription_of(ada)
    began = {"id": subscription, "customer": ada.stripe_id, "status": "active"}
    client().v1.subscriptions.cancel(subscription)
    for kind in ("customer.subscription.deleted", "customer.subscription.updated", "customer.subscription.created"):
        post(web, event(kind, began))
        drain()
    assert status(ada).plan == "trial"
    assert one("SELECT status FROM subscriptions") == "canceled"


def test_the_sandbox_delivers_and_the_customer_follows(
    web: FlaskClient,
    start_web: Callable[..., Site],
    start_worker: Callable[..., Process],
) -> None:
    catalog.sync()
    ada = on_teams(web)
    endpoint = client().v1.webhook_endpoints.create({"url": "http://127.0.0.1:9", "enabled_events": ["*"]})
    assert endpoint.secret is not None
    site = start_web(STRIPE_WEBHOOK_SECRETS=endpoint.secret)
    start_worker()
    client().v1.webhook_endpoints.update(endpoint.id, {"url": f"http://127.0.0.1:{site.port}{PATH}"})
    client().v1.subscriptions.update(subscription_of(ada), {"cancel_at_period_end": True})
    ends = "SELECT cancel_at_period_end FROM subscriptions"
    wait_until(lambda: one(ends), what="the cancellation that was made in Stripe")


def test_events_of_one_object_are_read_together(web: FlaskClient, stripe: StripeSandbox) -> None:
    catalog.sync()
    ada = on_teams(web)
    changed = {"id": subscription_of(ada), "customer": ada.stripe_id}
    all_sent = [event("customer.subscription.updated", changed) for _ in range(20)]
    for sent in all_sent:
        post(web, sent)
    stripe.clear_requests()
    drain()
    reads = stripe.requests("GET /v1/subscriptions/{subscription_exposed_id}")
    assert 1 <= len(reads) <= 3
    assert {came_to(sent)["state"] for sent in all_sent} == {"succeeded"}
    assert sum("joined" in result(sent) for sent in all_sent) >= 17


def test_an_event_before_our_own_commit_waits_and_is_applied(web: FlaskClient) -> None:
    ada = customer()
    sql("UPDATE customers SET stripe_customer_id = NULL")
    sent = event("customer.updated", {"id": ada.stripe_id})
    post(web, sent)
    drain()
    waiting = came_to(sent)
    assert (waiting["state"], waiting["attempts"], waiting["error"]["kind"]) == ("queued", 0, "busy")
    sql("UPDATE customers SET stripe_customer_id = %(id)s", id=ada.stripe_id)
    time_passes()
    drain()
    assert result(sent)["customer_id"] == ada.id


@pytest.mark.parametrize("kind", ["charge.refunded", "refund.created", "charge.dispute.created"])
def test_money_given_back_before_we_know_of_the_payment_waits_and_is_kept(
    web: FlaskClient, stripe: StripeSandbox, kind: str
) -> None:
    ada = customer("payg", "pm_card_visa")
    deploy(ada, 1)
    drain_to_the_end()
    [intent] = stripe.objects("payment_intent")
    if "dispute" in kind:
        stripe.dispute(intent["latest_charge"])
    else:
        client().v1.refunds.create({"payment_intent": intent["id"], "amount": 500})
    sql("UPDATE charges SET payment_intent = NULL")  # as long as our own commit is under way
    sent = event(kind, {"id": "an_object", "payment_intent": intent["id"]})
    post(web, sent)
    drain()
    waiting = came_to(sent)
    assert (waiting["state"], waiting["attempts"], waiting["error"]["kind"]) == ("queued", 0, "busy")
    assert [what for what, _ in entries(ada)] == ["accepted", "succeeded"]
    sql("UPDATE charges SET payment_intent = %(id)s", id=intent["id"])
    drain_to_the_end()
    assert result(sent)["command"] == "sync_charge"
    assert len(entries(ada)) == 3


@pytest.mark.parametrize("known_in_stripe", [True, False])
def test_a_customer_who_stays_unknown_is_given_up_after_an_hour(web: FlaskClient, known_in_stripe: bool) -> None:
    stranger = "cus_nobody"
    if known_in_stripe:
        stranger = client().v1.customers.create({"metadata": {"customer_id": "424242"}}).id
    sent = event("customer.updated", {"id": stranger})
    post(web, sent)
    drain()
    assert came_to(sent)["state"] == "queued"
    sql("UPDATE jobs SET busy_since = busy_since - interval '61 minutes', run_at = clock_timestamp()")
    drain()
    dead = came_to(sent)
    assert (dead["state"], dead["error"]["kind"]) == ("dead", "busy")
    assert stranger in dead["error"]["message"]


@pytest.mark.usefixtures("real_backoff")
def test_who_stays_unknown_is_asked_for_often_at_first_and_seldom_later(
    web: FlaskClient, stripe: StripeSandbox
) -> None:
    """A restore that lost a hundred customers must not use up the requests that Stripe allows."""
    sent = event("customer.updated", {"id": "cus_nobody"})
    post(web, sent)
    stripe.clear_requests()
    in_the_first_minute = 0
    while came_to(sent)["state"] == "queued":
        drain()
        waited = one("SELECT extract(epoch FROM clock_timestamp() - busy_since) FROM jobs")
        in_the_first_minute += waited is not None and waited < 60
        time_passes()
    assert came_to(sent)["state"] == "dead"
    assert in_the_first_minute >= 6
    assert len(stripe.requests()) <= 25


def test_what_is_nobodys_of_ours_is_ignored(web: FlaskClient) -> None:
    stranger = client().v1.customers.create({"email": "somebody@example.com"}).id
    intent = client().v1.payment_intents.create({"amount": 500, "currency": "usd", "customer": stranger}).id
    ignored = [
        event("customer.updated", {"id": stranger}),
        event("invoice.paid", {"id": "in_1", "customer": stranger}),
        event("invoice.paid", {"id": "in_1", "customer": None}),
        event("charge.refunded", {"id": "ch_1", "payment_intent": intent}),
        event("charge.refunded", {"id": "ch_1", "payment_intent": None}),
        event("payment_intent.succeeded", {"id": intent, "metadata": {}}),
    ]
    for sent in ignored:
        post(web, sent)
    drain()
    for sent in ignored:
        assert came_to(sent)["state"] == "succeeded"
        assert "ignored" in result(sent)
    assert result(ignored[0]) == {"ignored": "it is not ours", "about": {"customer": stranger}}


def test_an_unknown_type_is_kept_and_counted(web: FlaskClient) -> None:
    sent = event("radar.early_fraud_warning.created", {"id": "issfr_1"})
    post(web, sent)
    drain()
    assert result(sent) == {"ignored": "unknown type"}
    labels = 'outcome="unknown type",source="stripe",type="radar.early_fraud_warning.created"'
    assert f"tallyhook_webhooks_total{{{labels}}}" in web.get("/metrics").text


@pytest.mark.parametrize(
    ("key", "live"), [("sk_test_1", True), ("sk_live_1", False), ("sk_live_1", None), ("rk_live_1", False)]
)
def test_an_event_of_the_other_mode_is_kept_and_ignored(
    web: FlaskClient, configure: Callable[..., None], key: str, live: bool | None
) -> None:
    ada = customer()
    configure(STRIPE_SECRET_KEY=key)
    sent = event("customer.updated", {"id": ada.stripe_id}, livemode=live)
    post(web, sent)
    drain()
    assert result(sent) == {"ignored": "its livemode does not fit our key"}
    labels = 'outcome="its livemode does not fit our key",source="stripe",type="customer.updated"'
    assert f"tallyhook_webhooks_total{{{labels}}}" in web.get("/metrics").text


def test_a_thin_event_is_followed_to_its_object(web: FlaskClient) -> None:
    ada = customer()
    related = {"id": ada.stripe_id, "type": "customer", "url": f"/v1/customers/{ada.stripe_id}"}
    sent = event("v1.customer.updated", None, object="v2.core.event", related_object=related)
    del sent["data"]
    other = event("v2.core.account.closed", None, object="v2.core.event", related_object=None)
    for one_of_them in (sent, other):
        assert post(web, one_of_them).status_code == 200
    drain()
    assert result(sent)["customer_id"] == ada.id
    assert result(other) == {"ignored": "unknown type"}


@pytest.mark.parametrize(
    "url", ["https://example.com/v1/customers/cus_1", "//example.com/v1/", "/v2/core/accounts/1", 7, None]
)
def test_a_thin_event_leads_nowhere_but_to_stripe(web: FlaskClient, stripe: StripeSandbox, url: object) -> None:
    sent = event("v1.customer.updated", None, object="v2.core.event", related_object={"url": url})
    post(web, sent)
    stripe.clear_requests()
    drain()
    assert came_to(sent)["state"] == "dead"
    assert stripe.requests() == []


ODD: dict[str, tuple[str, dict[str, Any]]] = {
    "a status that nobody has heard of": ("subscription", {"status": "hibernating"}),
    "no period": ("subscription", {"items": {"object": "list", "data": [], "has_more": False, "url": "/v1/x"}}),
    "null where an object was": ("subscription", {"items": None, "metadata": None}),
    "an invoice without a total": ("invoice", {"total": None}),
    "an invoice of a new status": ("invoice", {"status": "hibernating"}),
    "an invoice of no time": ("invoice", {"created": None}),
    "a customer without settings": ("customer", {"invoice_settings": None}),
    "a card without a card": ("payment_method", {"card": None}),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_an_object_of_an_unheard_of_shape_ends_with_a_reason_and_stands_in_nobodys_way(
    web: FlaskClient, stripe: StripeSandbox, conformance: Conformance | None, odd: tuple[str, dict[str, Any]]
) -> None:
    catalog.sync()
    ada, bob = on_teams(web), customer()
    sql("DELETE FROM jobs")
    kind, changes = odd
    [thing] = [found for found in stripe.objects(kind) if ada.stripe_id in (found["id"], found.get("customer"))]
    stripe._store.update(stripe._store.get(thing["id"])[0] | changes)
    of_ada = event("customer.subscription.updated", {"id": subscription_of(ada), "customer": ada.stripe_id})
    of_her_cards = event("customer.updated", {"id": ada.stripe_id})
    of_bob = event("customer.updated", {"id": bob.stripe_id})
    for sent in (of_ada, of_her_cards, of_bob):
        post(web, sent)
    drain()
    assert show(result(of_bob)["job_id"])["state"] == "succeeded"
    jobs = [show(result(sent)["job_id"]) for sent in (of_ada, of_her_cards)]
    for _ in range(25):
        time_passes()
        drain()
    ended = [show(found["id"]) for found in jobs]
    assert {found["state"] for found in ended} <= {"succeeded", "dead"}
    assert all(found["error"]["message"] for found in ended if found["state"] == "dead")
    if conformance is not None:
        conformance.problems.clear()  # that it is unlike Stripe's description is the point


def test_an_event_without_an_object_is_dead_with_a_reason(web: FlaskClient) -> None:
    sent = event("invoice.paid", None)
    post(web, sent)
    drain()
    assert came_to(sent)["error"] == {"kind": "permanent", "message": "the event has no object"}


def test_the_event_that_stripe_lists_is_the_one_that_is_kept(web: FlaskClient) -> None:
    ada = customer()
    client().v1.customers.update(ada.stripe_id, {"name": "Ada L."})
    [listed] = client().v1.events.list({"type": "customer.updated"}).data
    body = orjson.dumps(listed.to_dict())
    assert post(web, body).status_code == 200
    drain()
    assert job("stripe_event")["result"]["customer_id"] == ada.id
