"""API rate limits hold (seed: "Load Testing"): for an address, for an e-mail, for a key, for all processes together."""

from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.customers import accounts, api_keys
from app.db import transaction
from tests.system.cable import Cable
from tests.system.scene import Site, at_once, count, sign_up
from tests.system.test_api_keys import key_of, through

pytestmark = pytest.mark.usefixtures("whole_window")


def refused(answer: object, most: int) -> None:
    """429, and when to come again."""
    assert answer.status_code == 429
    assert answer.content_type == "application/problem+json"
    assert 0 < int(answer.headers["Retry-After"]) <= most + 1


def test_signups_of_one_sender_are_limited(web: FlaskClient, configure: Callable[..., None]) -> None:
    configure(SIGNUP_RATE_LIMIT="3/hour")
    for n in range(3):
        assert sign_up(web, email=f"user{n}@example.com").status_code == 202
    refused(sign_up(web, email="user4@example.com"), 3600)
    assert count("signups") == 3


def test_the_form_and_the_api_share_the_limit_of_one_sender(web: FlaskClient, configure: Callable[..., None]) -> None:
    configure(SIGNUP_RATE_LIMIT="3/hour")
    for n in range(3):
        sign_up(web, email=f"user{n}@example.com")
    refused(web.post("/signup", data={"email": "user4@example.com", "name": "User"}), 3600)


def test_signups_of_one_e_mail_are_limited_wherever_they_come_from(
    application: Flask, configure: Callable[..., None]
) -> None:
    configure(SIGNUP_RATE_LIMIT="3/hour")

    def from_sender(n: int, email: str) -> object:
        web = application.test_client()
        web.environ_base["REMOTE_ADDR"] = f"192.0.2.{n}"
        return sign_up(web, email=email)

    for n, email in enumerate(["jane@example.com", "JANE@example.com", "Jane@Example.com"]):
        assert from_sender(n, email).status_code == 202
    refused(from_sender(9, "jane@EXAMPLE.com"), 3600)
    assert from_sender(9, "john@example.com").status_code == 202


def test_a_limit_of_a_known_address_is_that_of_an_unknown_one(
    application: Flask, configure: Callable[..., None]
) -> None:
    configure(SIGNUP_RATE_LIMIT="2/hour")
    with transaction() as db:
        accounts.create(db, email="known@example.com", name="Known", wanted_plan="trial", source="direct")

    def answers(email: str) -> list[int]:
        statuses = []
        for n in range(4):
            web = application.test_client()
            web.environ_base["REMOTE_ADDR"] = f"192.0.2.{n}"
            statuses.append(sign_up(web, email=email).status_code)
        return statuses

    assert answers("known@example.com") == answers("unknown@example.com") == [202, 202, 429, 429]


def test_an_api_key_is_limited_and_another_one_is_not(web: FlaskClient, configure: Callable[..., None]) -> None:
    configure(API_RATE_LIMIT="3/minute")
    jane, john = key_of("jane@example.com"), key_of("john@example.com")

    def ask(key: api_keys.ApiKey, path: str = "/api/v1/billing/status") -> object:
        return web.get(path, headers={"X-API-Key": key.secret})

    for _ in range(3):
        assert ask(jane).status_code == 200
    refused(ask(jane), 60)
    refused(ask(jane, "/api/v1/jobs/01900000-0000-7000-8000-000000000000"), 60)
    assert ask(john).status_code == 200


def test_api_rate_limits_hold_over_all_web_processes_at_once(start_web: Callable[..., Site]) -> None:
    sites = [start_web(API_RATE_LIMIT="8/minute"), start_web(API_RATE_LIMIT="8/minute")]  # of two processes each
    key = key_of("jane@example.com").secret
    calls = [partial(sites[n % 2].get, "/api/v1/billing/status", X_API_Key=key) for n in range(30)]
    answers = at_once(*calls)
    statuses = Counter(answer.status for answer in answers)
    assert statuses.keys() == {200, 429}, (statuses, [site.process.output[-2000:] for site in sites])
    assert statuses[200] >= 8  # more where a minute of the clock ended in the middle: then two are counted
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers if answer.status == 429)


def test_limits_hold_in_each_process_while_redis_is_down(start_web: Callable[..., Site], redis_cable: Cable) -> None:
    site = start_web(API_RATE_LIMIT="20/hour", REDIS_URL=through(redis_cable))
    key = key_of("jane@example.com").secret
    redis_cable.cut()
    statuses = Counter(site.get("/api/v1/billing/status", X_API_Key=key).status for _ in range(60))
    assert statuses.keys() == {200, 429}
    assert 20 <= statuses[200] <= 40  # two processes behind the port


def test_the_platform_is_not_limited(web: FlaskClient, configure: Callable[..., None]) -> None:
    configure(API_RATE_LIMIT="1/hour", SIGNUP_RATE_LIMIT="1/hour")
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert [web.get(path).status_code for _ in range(3)] == [200] * 3
