"""A key works from its first second and is refused from the second of its revocation (failures.md 44)."""

import os
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient

from app.customers import accounts, api_keys
from app.db import transaction
from app.ledger.bell import get_redis
from tests.conftest import wait_until
from tests.system.cable import Cable
from tests.system.scene import Site, count, drain, one, sql


def through(cable: Cable) -> str:
    """REDIS_URL by way of the cable."""
    return f"redis://127.0.0.1:{cable.port}{urlsplit(os.environ['REDIS_URL']).path}"


@pytest.fixture
def jane() -> api_keys.ApiKey:
    return key_of("jane@example.com")


def key_of(email: str) -> api_keys.ApiKey:
    with transaction() as db:
        customer = accounts.create(db, email=email, name="Somebody", wanted_plan="trial", source="direct")
        return api_keys.issue(db, customer)


def ask(site: Site, key: str) -> int:
    return site.get("/api/v1/billing/status", X_API_Key=key).status


def revoke(site: Site, key: api_keys.ApiKey) -> int:
    return site.ask("DELETE", f"/api/v1/api-keys/{key.id}", headers={"X-API-Key": key.secret}).status


def test_a_revoked_key_is_refused_at_once_though_it_was_cached_by_every_web_process(
    site: Site, start_web: Callable[..., Site], jane: api_keys.ApiKey
) -> None:
    other = start_web()
    assert [ask(each, jane.secret) for each in (site, other) * 8] == [200] * 16
    assert revoke(site, jane) == 204
    assert [ask(each, jane.secret) for each in (site, other) * 8] == [401] * 16


def test_a_revoked_key_is_refused_at_once_while_redis_is_down(
    start_web: Callable[..., Site], redis_cable: Cable, jane: api_keys.ApiKey
) -> None:
    site = start_web(REDIS_URL=through(redis_cable))
    assert ask(site, jane.secret) == 200
    redis_cable.cut()
    assert ask(site, jane.secret) == 200
    assert revoke(site, jane) == 204
    assert ask(site, jane.secret) == 401


def test_a_key_that_was_revoked_while_redis_was_down_is_refused_when_redis_is_back(
    start_web: Callable[..., Site], redis_cable: Cable, jane: api_keys.ApiKey
) -> None:
    site = start_web(REDIS_URL=through(redis_cable))
    assert ask(site, jane.secret) == 200  # now it is cached, for a minute
    redis_cable.cut()
    assert revoke(site, jane) == 204
    redis_cable.mend()
    assert [ask(site, jane.secret) for _ in range(8)] == [401] * 8


@pytest.mark.parametrize("harm", ["cut", "freeze"])
def test_a_revocation_by_a_process_that_cannot_tell_redis_is_told_by_a_worker_to_the_other_processes(
    site: Site, start_web: Callable[..., Site], redis_cable: Cable, jane: api_keys.ApiKey, harm: str
) -> None:
    lonely = start_web(REDIS_URL=through(redis_cable))
    assert [ask(site, jane.secret) for _ in range(8)] == [200] * 8
    getattr(redis_cable, harm)()
    assert revoke(lonely, jane) == 204
    drain()
    assert [ask(each, jane.secret) for each in (site, lonely) * 8] == [401] * 16


def test_a_process_that_read_the_key_just_before_its_revocation_does_not_cache_it_after(
    site: Site, jane: api_keys.ApiKey
) -> None:
    # The two halves of `authenticate`, with the revocation between them.
    digest = api_keys._hash(jane.secret)
    assert api_keys._look_up(digest) is not None
    assert revoke(site, jane) == 204
    get_redis().set(api_keys._cache_name(digest), 1, ex=api_keys.CACHED_S, nx=True)
    assert ask(site, jane.secret) == 401


def test_a_key_is_looked_up_once_a_minute_and_not_with_every_request(web: FlaskClient, jane: api_keys.ApiKey) -> None:
    assert (
        web.get("/api/v1/jobs/01900000-0000-7000-8000-000000000000", headers={"X-API-Key": jane.secret}).status_code
        == 404
    )
    name = api_keys._cache_name(api_keys._hash(jane.secret))
    assert 0 < int(get_redis().ttl(name)) <= 60


def test_an_unknown_key_is_never_cached(web: FlaskClient) -> None:
    unknown = "rsolv_" + "x" * 43
    assert web.get("/api/v1/billing/status", headers={"X-API-Key": unknown}).status_code == 401
    assert get_redis().keys("tallyhook:api_key:*") == []


def test_nothing_in_redis_tells_a_key_or_an_address(web: FlaskClient, jane: api_keys.ApiKey) -> None:
    web.get("/api/v1/billing/status", headers={"X-API-Key": jane.secret})
    web.post("/api/v1/customers", json={"email": "john@example.com", "name": "John"})
    redis = get_redis()
    names = redis.keys("*")
    assert names
    everything = b" ".join(name + (redis.get(name) or b"") if redis.type(name) == b"string" else name for name in names)
    for secret in (jane.secret, "john", "jane"):
        assert secret.encode() not in everything


def test_the_system_works_while_redis_is_down_or_hangs(
    start_web: Callable[..., Site], redis_cable: Cable, jane: api_keys.ApiKey
) -> None:
    site = start_web(REDIS_URL=through(redis_cable))
    for harm in (redis_cable.cut, redis_cable.freeze):
        harm()
        assert site.post("/api/v1/customers", {"email": "john@example.com", "name": "John"}).status == 202
        assert ask(site, jane.secret) == 200
        not_ready = site.get("/readyz")
        assert not_ready.status == 503
        assert "Redis" in not_ready.json["detail"]
        redis_cable.mend()
        wait_until(lambda: site.get("/readyz").status == 200, what="readiness")
    assert count("signups") == 2


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "nonsense"},
        {"X-API-Key": "rsolv_"},
        {"X-API-Key": "rsolv_" + "x" * 43},
        {"X-API-Key": "rsolv_" + "x" * 5000},
        {"X-API-Key": "rsolv_é"},
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer  "},
        {"Authorization": ""},
    ],
    ids=str,
)
def test_a_request_without_a_good_key_is_401_and_told_how_to_send_one(
    web: FlaskClient, headers: dict[str, str]
) -> None:
    for method, path in (
        ("GET", "/api/v1/billing/status"),
        ("GET", "/api/v1/jobs/01900000-0000-7000-8000-000000000000"),
        ("POST", "/api/v1/api-keys"),
        ("DELETE", "/api/v1/api-keys/1"),
    ):
        answer = web.open(path, method=method, headers=headers)
        assert answer.status_code == 401
        assert answer.content_type == "application/problem+json"
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert "API key" in answer.json["detail"]


def test_a_further_key_is_shown_once_and_works_beside_the_first(web: FlaskClient, jane: api_keys.ApiKey) -> None:
    answer = web.post("/api/v1/api-keys", headers={"X-API-Key": jane.secret})
    assert answer.status_code == 201
    second = answer.json
    assert second.keys() == {"id", "api_key"}
    for key in (jane.secret, second["api_key"]):
        assert web.get("/api/v1/billing/status", headers={"Authorization": f"bearer {key}"}).status_code == 200
    assert web.delete(f"/api/v1/api-keys/{jane.id}", headers={"X-API-Key": second["api_key"]}).status_code == 204
    assert web.get("/api/v1/billing/status", headers={"X-API-Key": jane.secret}).status_code == 401
    assert web.get("/api/v1/billing/status", headers={"X-API-Key": second["api_key"]}).status_code == 200


def test_revoking_twice_is_the_same_as_once(web: FlaskClient, jane: api_keys.ApiKey) -> None:
    second = web.post("/api/v1/api-keys", headers={"X-API-Key": jane.secret}).json
    headers = {"X-API-Key": second["api_key"]}
    assert web.delete(f"/api/v1/api-keys/{jane.id}", headers=headers).status_code == 204
    at = one("SELECT revoked_at FROM api_keys WHERE id = %(id)s", id=jane.id)
    assert web.delete(f"/api/v1/api-keys/{jane.id}", headers=headers).status_code == 204
    assert one("SELECT revoked_at FROM api_keys WHERE id = %(id)s", id=jane.id) == at


@pytest.mark.parametrize("key_id", [0, 10**6, 2**63 - 1, 2**63, 10**30])
def test_a_key_that_is_not_there_is_404(web: FlaskClient, jane: api_keys.ApiKey, key_id: int) -> None:
    assert web.delete(f"/api/v1/api-keys/{key_id}", headers={"X-API-Key": jane.secret}).status_code == 404


def test_nobody_revokes_the_key_of_another_customer(web: FlaskClient, jane: api_keys.ApiKey) -> None:
    john = key_of("john@example.com")
    answer = web.delete(f"/api/v1/api-keys/{jane.id}", headers={"X-API-Key": john.secret})
    assert answer.status_code == 404
    assert web.get("/api/v1/billing/status", headers={"X-API-Key": jane.secret}).status_code == 200
    assert sql("SELECT count(*) FROM api_keys WHERE revoked_at IS NOT NULL") == [(0,)]
