"""What the platform and the reader of the API get: health, metrics over all processes, the description, the docs."""

import re
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from werkzeug.test import TestResponse

from app.db import get_engine
from app.ledger.states import State
from app.sandbox.stripe import StripeSandbox
from tests.conftest import wait_until
from tests.processes import Process
from tests.system.scene import JANE, Mailbox, Site, drain, one, sign_up, sql

UNDESCRIBED = {
    "/",
    "/signup",
    "/signup/<uuid:signup_id>",
    "/account",
    "/billing/return",
    "/docs",
    "/openapi.json",
    "/static/<path:filename>",
}
"""Pages for people, and the description itself."""


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every number of a scrape, by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(numbers: dict[Any, float], name: str, **labels: str) -> float:
    return sum(
        value for (found, have), value in numbers.items() if found == name and labels.items() <= dict(have).items()
    )


def test_health_and_readiness(web: FlaskClient) -> None:
    assert (web.get("/healthz").status_code, web.get("/healthz").text) == (200, "ok\n")
    assert (web.get("/readyz").status_code, web.get("/readyz").text) == (200, "ready\n")


def test_metrics_add_up_over_both_web_processes_and_the_worker(
    start_web: Callable[..., Site], start_worker: Callable[..., Process], tmp_path: Path
) -> None:
    folder = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}
    site = start_web(**folder)
    start_worker(**folder)
    for n in range(20):
        assert site.post("/api/v1/customers", {"email": f"user{n}@example.com", "name": "User"}).status == 202
    site.post("/api/v1/customers", {"email": "nobody"})
    wait_until(lambda: one("SELECT count(*) FROM signups WHERE status = 'provisioned'") == 20, 60, "20 provisioned")
    last = {"job": "send_welcome_email", "outcome": "succeeded"}  # an attempt is counted when it has committed
    counted = "tallyhook_job_attempts_total"
    wait_until(lambda: total(samples(site.get("/metrics").text), counted, **last) == 20, what="the last attempts")
    calendar = "SELECT count(*) FROM jobs WHERE name = 'prune_ledger'"
    idle = (
        "SELECT count(*) FROM jobs WHERE state IN ('running', 'retrying')"
        " OR (state = 'queued' AND run_at <= clock_timestamp())"
    )
    wait_until(lambda: one(calendar) and one(idle) == 0, what="the calendar's jobs done, and idle workers")
    scrapes = [samples(site.get("/metrics").text) for _ in range(8)]  # whichever process answers
    for seen in scrapes:
        requests = "tallyhook_http_requests_total"
        assert total(seen, requests, route="/api/v1/customers", status="202") == 20
        assert total(seen, requests, route="/api/v1/customers", status="422") == 1
        assert total(seen, "tallyhook_http_request_duration_seconds_count", route="/api/v1/customers") == 21
        for job in ("create_customer", "create_stripe_customer", "issue_api_key", "send_welcome_email"):
            assert total(seen, "tallyhook_job_attempts_total", job=job, outcome="succeeded") == 20
            assert total(seen, "tallyhook_job_duration_seconds_count", job=job) == 20
        assert total(seen, "tallyhook_jobs", state="waiting") == 0
        assert 0 <= total(seen, "tallyhook_relay_lag_seconds") < 30


def test_metrics_tell_what_the_ledger_holds(web: FlaskClient) -> None:
    sign_up(web)
    sql("UPDATE jobs SET run_at = clock_timestamp() - interval '1 hour'")
    sign_up(web, email="john@example.com")
    sql("INSERT INTO queue_pauses (queue) VALUES ('mail')")
    seen = samples(web.get("/metrics").text)
    assert total(seen, "tallyhook_jobs", queue="provisioning", state="waiting") == 2
    assert 3600 <= total(seen, "tallyhook_queue_oldest_waiting_seconds", queue="provisioning") < 3700
    assert total(seen, "tallyhook_queue_paused", queue="mail") == 1
    assert total(seen, "tallyhook_queue_paused", queue="provisioning") == 0


def test_metrics_have_no_series_that_a_sender_can_make(site: Site) -> None:
    def ask(n: int) -> None:
        site.ask(f"METHOD{n}", f"/api/v1/nothing/{n}")
        site.get(f"/api/v1/signups/01900000-0000-7000-8000-{n:012}")
        site.get("/api/v1/billing/status", X_API_Key=f"rsolv_{n:043}", X_Request_Id=f"id-{n}")
        site.get("/metrics")

    for n in range(20):  # until each of the processes has answered each of them
        ask(n)
    before = samples(site.get("/metrics").text).keys()
    for n in range(100, 120):
        ask(n)
    assert samples(site.get("/metrics").text).keys() == before


def test_metrics_tell_no_address_and_no_key(web: FlaskClient, mailbox: Mailbox) -> None:
    sign_up(web)
    drain()
    text = web.get("/metrics").text
    assert "jane" not in text
    assert mailbox.mail().key not in text


# the description


@pytest.fixture
def description(web: FlaskClient) -> dict[str, Any]:
    answer = web.get("/openapi.json")
    assert answer.content_type == "application/json"
    return dict(answer.json)


def test_every_route_is_described_or_left_out_on_purpose(application: Flask, description: dict[str, Any]) -> None:
    for rule in application.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        methods = {method.lower() for method in rule.methods or ()} - {"head", "options"}
        if rule.rule not in UNDESCRIBED:
            assert methods <= description["paths"][path].keys(), rule
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            assert operation["responses"].keys() - {"429", "503"}, (method, path)


def test_the_description_is_openapi_3_1(description: dict[str, Any]) -> None:
    assert description["openapi"].startswith("3.1")
    for name, schema in description["components"]["schemas"].items():
        whole = {**schema, "components": description["components"]}
        jsonschema_rs.Draft202012Validator(whole)  # raises where the schema or a reference of it is broken
        assert name[0].isupper()
    operations = [o for path in description["paths"].values() for o in path.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    for operation in operations:
        for answer in operation["responses"].values():
            assert answer["description"]
            for media, content in answer.get("content", {}).items():
                if media == "text/plain":
                    continue
                reference = content["schema"]["$ref"].removeprefix("#/components/schemas/")
                assert reference in description["components"]["schemas"]


def as_described(description: dict[str, Any], path: str, method: str, answer: TestResponse) -> None:
    """It is one of the answers that the operation is described with, to the media type and the headers."""
    described = description["paths"][path][method]["responses"][str(answer.status_code)]
    [(media, content)] = described["content"].items()
    assert answer.mimetype == media
    schema = {**content["schema"], "components": description["components"]}
    jsonschema_rs.Draft202012Validator(schema).validate(answer.json if answer.is_json else answer.text)
    told = {name for name in ("X-Request-Id", "Retry-After", "Location") if name in answer.headers}
    assert described["headers"].keys() == told


def test_answers_are_as_described(
    web: FlaskClient, description: dict[str, Any], mailbox: Mailbox, stripe: StripeSandbox
) -> None:
    check = partial(as_described, description)
    accepted = sign_up(web)
    check("/api/v1/customers", "post", accepted)
    check("/api/v1/customers", "post", sign_up(web, email="nobody"))
    check("/api/v1/signups/{signup_id}", "get", web.get(accepted.json["status_url"]))
    drain()
    check("/api/v1/signups/{signup_id}", "get", web.get(accepted.json["status_url"]))
    key = {"X-API-Key": mailbox.mail().key}
    check("/api/v1/billing/status", "get", web.get("/api/v1/billing/status", headers=key))
    check("/api/v1/billing/status", "get", web.get("/api/v1/billing/status"))
    check("/api/v1/api-keys", "post", web.post("/api/v1/api-keys", headers=key))
    check("/api/v1/api-keys/{key_id}", "delete", web.delete("/api/v1/api-keys/999", headers=key))
    job_id = one("SELECT id FROM jobs WHERE name = 'issue_api_key'")
    check("/api/v1/jobs/{job_id}", "get", web.get(f"/api/v1/jobs/{job_id}", headers=key))
    check("/api/v1/checkout", "post", web.post("/api/v1/checkout", json={"purpose": "teams"}, headers=key))
    check("/api/v1/usage", "get", web.get("/api/v1/usage?from=never", headers=key))
    check("/webhooks/stripe", "post", web.post("/webhooks/stripe"))
    check("/webhooks/github", "post", web.post("/webhooks/github"))
    for path in ("/healthz", "/readyz", "/metrics"):
        check(path, "get", web.get(path))


def test_who_watches_a_job_can_read_what_it_may_come_to(description: dict[str, Any]) -> None:
    schemas = description["components"]["schemas"]
    assert set(schemas["JobView"]["properties"]["state"]["enum"]) == set(State)
    error, nothing = schemas["JobView"]["properties"]["error"]["anyOf"]
    assert schemas[error["$ref"].removeprefix("#/components/schemas/")]["properties"].keys() == {"kind", "message"}
    assert nothing == {"type": "null"}


def test_a_header_that_has_to_be_there_is_described_so(description: dict[str, Any]) -> None:
    needed = {
        (path, parameter["name"]): parameter["required"]
        for path, operations in description["paths"].items()
        for operation in operations.values()
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "header"
    }
    assert {header for header, required in needed.items() if required} == {
        ("/webhooks/stripe", "Stripe-Signature"),
        ("/webhooks/github", "X-Hub-Signature-256"),
        ("/webhooks/github", "X-GitHub-Delivery"),
        ("/webhooks/github", "X-GitHub-Event"),
    }
    assert not needed["/api/v1/customers", "Idempotency-Key"]


def test_503_is_described_where_the_database_is_needed(web: FlaskClient, description: dict[str, Any]) -> None:
    with ExitStack() as stack:
        for _ in range(get_engine().pool.size()):
            stack.enter_context(get_engine().connect())
        answers = {path: web.get(path) for path in ("/healthz", "/readyz", "/metrics")}
    assert {path: answer.status_code for path, answer in answers.items()} == {
        "/healthz": 200,
        "/readyz": 503,
        "/metrics": 200,
    }
    for path, answer in answers.items():
        as_described(description, path, "get", answer)
        assert ("503" in description["paths"][path]["get"]["responses"]) == (answer.status_code == 503), path


@pytest.mark.usefixtures("whole_window")
def test_a_limit_is_described_where_there_is_one(
    web: FlaskClient, description: dict[str, Any], configure: Callable[..., None]
) -> None:
    configure(**dict.fromkeys(("SIGNUP_RATE_LIMIT", "API_RATE_LIMIT", "WEBHOOK_RATE_LIMIT"), "1/hour"))
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            asked = re.sub(r"\{\w+\}", "1" if "key_id" in path else "01900000-0000-7000-8000-000000000000", path)
            web.open(asked, method=method.upper())
            again = web.open(asked, method=method.upper())
            assert ("429" in operation["responses"]) == (again.status_code == 429), (method, path)
            if again.status_code == 429:
                as_described(description, path, method, again)


def test_the_docs_show_every_operation(web: FlaskClient, description: dict[str, Any]) -> None:
    page = web.get("/docs")
    assert page.status_code == 200
    for path, operations in description["paths"].items():
        for method in operations:
            assert f"{method.upper()} {path}" in page.text
    for name in description["components"]["schemas"]:
        assert f'id="{name}"' in page.text


def test_the_front_door_leads_to_the_signup_form(web: FlaskClient) -> None:
    answer = web.get("/", follow_redirects=True)
    assert answer.status_code == 200
    assert "<form" in answer.text


def test_pages_for_whoever_holds_their_address_are_kept_nowhere(web: FlaskClient, mailbox: Mailbox) -> None:
    accepted = sign_up(web)
    drain()
    pages = [
        web.get(accepted.json["status_url"].replace("/api/v1/signups", "/signup")),
        web.get(mailbox.mail().link),
        web.get("/account?token=nonsense"),
    ]
    for page in pages:
        assert page.headers["Cache-Control"] == "no-store"
        assert page.headers["Referrer-Policy"] == "no-referrer"


def test_the_web_process_ends_its_requests_on_sigterm(start_web: Callable[..., Site]) -> None:
    site = start_web()
    assert site.post("/api/v1/customers", JANE).status == 202
    site.process.terminate()
    assert site.process.wait() == 0
