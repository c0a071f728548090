"""Phase completion → usage tracking, as far as the intake: a result is stored once, and a deployed fix is one job."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.contracts.phases import PhaseCompleted
from app.customers.api_keys import ApiKey
from app.events import publish
from tests.system.scene import Answer, Site, at_once, count, one, rows_of_all_tables, sql
from tests.system.test_api_keys import key_of

STORE = "/api/v1/phase-data"
COMMIT = "4be3b1bb0c5f1a3a8bd3ae4ba6c5ef3a8e0d1c2b"
# What the Action's `JSON.stringify` makes, byte for byte.
MITIGATED = (
    b'{"phase":"mitigation","data":{"fixed":true,"prUrl":"https://github.com/o/r/pull/9","fixCommit":"9c1e7d20",'
    b'"timestamp":"2026-02-03T04:05:06.789Z"},"repo":"o/r","issueNumber":42,"commitSha":"' + COMMIT.encode() + b'"}'
)
FIX: dict[str, Any] = json.loads(MITIGATED)
SCAN = {"phase": "scan", "repo": "o/r", "commitSha": COMMIT, "data": {"vulnerabilities": []}}


@pytest.fixture
def jane() -> ApiKey:
    return key_of("jane@example.com")


@pytest.fixture
def send(web: FlaskClient, jane: ApiKey) -> Callable[..., TestResponse]:
    """Post an event with Jane's key: the fix with these changes (None: without that field)."""

    def post(event: dict[str, Any] = FIX, /, **changes: Any) -> TestResponse:
        body = {name: value for name, value in (event | changes).items() if value is not None}
        return web.post(STORE, json=body, headers={"X-API-Key": jane.secret})

    return post


@pytest.fixture
def retrieve(web: FlaskClient, jane: ApiKey) -> Callable[..., TestResponse]:
    """Read back with Jane's key, as the Action does."""

    def get(**query: Any) -> TestResponse:
        wanted = {"repo": "o/r", "issue": 42, "commit": COMMIT} | query
        return web.get("/api/v1/phases/retrieve", query_string=wanted, headers={"X-API-Key": jane.secret})

    return get


def jobs() -> list[Any]:
    return sql("SELECT name, queue, state, payload, serialize_by, customer_id, enqueued_by FROM jobs")


# The Action's own request


@pytest.mark.parametrize("path", [STORE, "/api/v1/phases/store"])
def test_usage_events_accepted(site: Site, jane: ApiKey, path: str) -> None:
    """Byte for byte as the Action sends it: kept as one fix to track."""
    headers = {"content-type": "application/json", "x-api-key": jane.secret}
    answer = site.ask("POST", path, body=MITIGATED, headers=headers)
    assert answer.status == 202
    assert answer.headers["content-type"] == "application/json"
    stored = one("SELECT id FROM phase_results")
    assert answer.json == {"success": True, "id": str(stored), "phase": "mitigation", "duplicate": False}
    customer = one("SELECT id FROM customers")
    payload = {"customer_id": customer, "phase_result_id": str(stored)}
    job = ("track_fix", "billing", "queued", payload, f"customer:{customer}", customer, f"POST {path}")
    assert jobs() == [job]


def test_the_result_is_stored_as_it_came(send: Callable[..., TestResponse]) -> None:
    send(fix_id="fix-7")
    [row] = sql(
        "SELECT phase, status, repo, issue_number, commit_sha, fix_id, data, received_at"
        " BETWEEN clock_timestamp() - interval '1 minute' AND clock_timestamp() FROM phase_results"
    )
    assert row == ("mitigation", "success", "o/r", 42, COMMIT, "fix-7", FIX["data"], True)


def test_the_action_reads_back_what_it_sent(
    send: Callable[..., TestResponse], retrieve: Callable[..., TestResponse]
) -> None:
    validated = {"validated": True, "redTests": [{"name": "é ☃", "lines": [1, 2.5, None, True]}], "note": "a\\u0000"}
    send(SCAN)
    send(phase="validation", data=validated)
    send()
    send(issueNumber=43, data={"fixed": False})
    answer = retrieve()
    assert answer.status_code == 200
    assert answer.json == {
        "scan": SCAN["data"],
        "validation": {"42": validated},
        "mitigation": {"42": FIX["data"]},
    }
    assert retrieve(issue=43).json == {"scan": SCAN["data"], "mitigation": {"43": {"fixed": False}}}
    everything = retrieve(issue=[])
    assert everything.json["mitigation"] == {"42": FIX["data"], "43": {"fixed": False}}


def test_the_newest_result_of_each_is_read_back(
    send: Callable[..., TestResponse], retrieve: Callable[..., TestResponse]
) -> None:
    for attempt in range(3):
        send(data={"fixed": False, "attempt": attempt})
        send(SCAN, data={"attempt": attempt}, issueNumber=attempt + 1)
    assert retrieve().json == {"scan": {"attempt": 2}, "mitigation": {"42": {"fixed": False, "attempt": 2}}}


def test_a_result_that_comes_again_after_another_is_the_newest(
    send: Callable[..., TestResponse], retrieve: Callable[..., TestResponse]
) -> None:
    received = "SELECT received_at FROM phase_results WHERE data @> '{\"attempt\": 1}'"
    send(data={"fixed": True, "attempt": 1})
    accepted_at = one(received)
    for attempt in (2, 1, 2, 1):
        send(data={"fixed": True, "attempt": attempt})
        assert retrieve().json["mitigation"]["42"]["attempt"] == attempt
    assert count("phase_results") == 2
    assert one(received) == accepted_at, "what billing goes by is when it was accepted first"


def test_letter_case_of_repository_and_commit_does_not_hide_a_result(
    send: Callable[..., TestResponse], retrieve: Callable[..., TestResponse]
) -> None:
    send(repo="Octo/Repo", commitSha=COMMIT.upper())
    assert retrieve(repo="octo/REPO").json == {"mitigation": {"42": FIX["data"]}}


def test_nothing_to_read_back_is_404(send: Callable[..., TestResponse], retrieve: Callable[..., TestResponse]) -> None:
    send()
    for query in ({"repo": "o/other"}, {"commit": "main"}, {"issue": 41}):
        answer = retrieve(**query)
        assert answer.status_code == 404
        assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize(
    ("query", "status", "loc"),
    [
        ({"repo": []}, 422, ["repo"]),
        ({"commit": []}, 422, ["commit"]),
        ({"repo": "o"}, 422, ["repo"]),
        ({"commit": "a\x00"}, 422, ["commit"]),
        ({"issue": "x"}, 422, ["issue"]),
        ({"issue": "0"}, 422, ["issue"]),
        ({"issue": 2**63}, 422, ["issue"]),
        ({"issue": [1, 2]}, 400, None),
    ],
    ids=str,
)
def test_a_question_that_makes_no_sense_is_told_why(
    retrieve: Callable[..., TestResponse], query: dict[str, Any], status: int, loc: list[str] | None
) -> None:
    answer = retrieve(**query)
    assert answer.status_code == status
    assert [error["loc"] for error in answer.json.get("errors", [])] == ([] if loc is None else [loc])


# Spellings


@pytest.mark.parametrize(
    ("spelled", "stored"),
    [
        ("scan", "scan"),
        ("validate", "validation"),
        ("validation", "validation"),
        ("mitigate", "mitigation"),
        ("mitigation", "mitigation"),
    ],
)
def test_a_phase_is_answered_as_it_was_spelled(send: Callable[..., TestResponse], spelled: str, stored: str) -> None:
    assert send(phase=spelled).json["phase"] == spelled
    assert one("SELECT phase FROM phase_results") == stored


def test_snake_case_is_the_same_event(send: Callable[..., TestResponse]) -> None:
    first = send(fixId="fix-7")
    other = send(
        phase="mitigate",
        issueNumber=None,
        issue_number=42,
        commitSha=None,
        commit_sha=COMMIT,
        fix_id="fix-7",
        status="Success",
        runId="a field that the Action added",
    )
    assert other.status_code == 202
    assert other.json == {"success": True, "id": first.json["id"], "phase": "mitigate", "duplicate": True}


# How a phase ended


@pytest.mark.parametrize(
    ("event", "status"),
    [
        ({"data": {"fixed": True}}, "success"),
        ({"data": {"mitigation": {"fixed": True}}}, "success"),
        ({"data": {"fixed": False}}, "failed"),
        ({"data": {"fixed": False, "mitigation": {"fixed": True}}}, "failed"),
        ({"data": {"fixed": "true"}}, "failed"),
        ({"data": {"fixed": 1}}, "failed"),
        ({"data": {"mitigation": [True]}}, "failed"),
        ({"data": {"validated": True}}, "failed"),
        ({"data": {}}, "failed"),
        ({"data": None}, "failed"),
        ({"status": "failed"}, "failed"),
        ({"status": " SUCCESS ", "data": {"fixed": False}}, "success"),
        ({"phase": "validate", "data": {"validated": True}}, "success"),
        ({"phase": "validate", "data": {"validation": {"validated": True}}}, "success"),
        ({"phase": "validate", "data": {"validated": False}}, "failed"),
        ({"phase": "validate", "data": {"fixed": True}}, "failed"),
        ({"phase": "scan", "data": None}, "success"),
        ({"phase": "scan", "status": "error"}, "error"),
    ],
    ids=str,
)
def test_only_a_mitigation_that_succeeded_is_billable(
    send: Callable[..., TestResponse], event: dict[str, Any], status: str
) -> None:
    assert send(**event).status_code == 202
    [(phase, stored)] = sql("SELECT phase, status FROM phase_results")
    assert stored == status
    assert len(jobs()) == int((phase, status) == ("mitigation", "success"))


def test_an_event_that_nobody_listens_to_is_followed_by_nothing() -> None:
    class Unheard(PhaseCompleted):
        """Of no interest."""

    assert publish(Unheard.model_construct()) == []


# The same again


def test_the_same_again_by_either_route_changes_nothing(
    web: FlaskClient, jane: ApiKey, send: Callable[..., TestResponse]
) -> None:
    first = send()
    before = rows_of_all_tables()
    again = dict(reversed(FIX.items()))
    for path in (STORE, "/api/v1/phases/store"):
        answer = web.post(path, json=again, headers={"Authorization": f"Bearer {jane.secret}"})
        assert answer.status_code == 202
        assert answer.json == first.json | {"duplicate": True}
    assert rows_of_all_tables() == before


def test_twenty_at_once_are_one_result_and_one_job(site: Site, jane: ApiKey) -> None:
    def post() -> Answer:
        return site.ask(
            "POST", STORE, body=MITIGATED, headers={"Content-Type": "application/json", "X-API-Key": jane.secret}
        )

    answers = at_once(*[post] * 20)
    assert {answer.status for answer in answers} == {202}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert sorted(answer.json["duplicate"] for answer in answers) == [False] + [True] * 19
    assert (count("phase_results"), count("jobs")) == (1, 1)


def test_different_results_at_once_each_have_their_own_row_and_job(site: Site, jane: ApiKey) -> None:
    answers = at_once(
        *(partial(site.post, STORE, FIX | {"issueNumber": n}, X_API_Key=jane.secret) for n in (*range(1, 11),) * 2)
    )
    assert {answer.status for answer in answers} == {202}
    assert len({answer.json["id"] for answer in answers}) == 10
    assert (count("phase_results"), count("jobs")) == (10, 10)


@pytest.mark.parametrize(
    "change",
    [
        {"repo": "o/other"},
        {"issueNumber": 43},
        {"commitSha": "main"},
        {"fix_id": "fix-7"},
        {"status": "failed"},
        {"phase": "validation", "status": "success"},
        {"data": FIX["data"] | {"timestamp": "later"}},
    ],
    ids=str,
)
def test_a_result_that_differs_in_anything_is_another(
    send: Callable[..., TestResponse], change: dict[str, Any]
) -> None:
    send()
    assert send(**change).json["duplicate"] is False
    assert count("phase_results") == 2


# Other customers


def test_nobody_reads_or_repeats_the_results_of_another(web: FlaskClient, send: Callable[..., TestResponse]) -> None:
    first = send()
    john = {"X-API-Key": key_of("john@example.com").secret}
    query = {"repo": "o/r", "issue": 42, "commit": COMMIT}
    assert web.get("/api/v1/phases/retrieve", query_string=query, headers=john).status_code == 404
    answer = web.post(STORE, json=FIX | {"id": first.json["id"]}, headers=john)
    assert answer.json["duplicate"] is False
    assert answer.json["id"] != first.json["id"]
    assert one("SELECT count(DISTINCT customer_id) FROM phase_results") == 2
    assert one("SELECT count(DISTINCT (payload ->> 'customer_id', serialize_by)) FROM jobs") == 2


@pytest.mark.parametrize("field", ["customerId", "customer_id"])
def test_an_event_for_another_customer_is_refused_with_the_reason(
    web: FlaskClient, send: Callable[..., TestResponse], field: str
) -> None:
    john = key_of("john@example.com")
    [johns] = sql("SELECT id FROM customers WHERE email = 'john@example.com'")[0]
    before = rows_of_all_tables()
    for path in (STORE, "/api/v1/phases/store"):
        answer = web.post(path, json=FIX | {field: johns + 1000}, headers={"X-API-Key": john.secret})
        assert answer.status_code == 403
        assert answer.content_type == "application/problem+json"
        assert f"customer {johns + 1000}" in answer.json["detail"]
    assert send(**{field: johns}).status_code == 403
    assert rows_of_all_tables() == before


@pytest.mark.parametrize("field", ["customerId", "customer_id"])
def test_an_event_that_names_the_keys_own_customer_is_the_same_event(
    send: Callable[..., TestResponse], field: str
) -> None:
    first = send()
    [own] = sql("SELECT customer_id FROM phase_results")[0]
    answer = send(**{field: own})
    assert answer.status_code == 202
    assert answer.json == first.json | {"duplicate": True}
    assert one("SELECT data FROM phase_results") == FIX["data"]


def test_without_a_key_nothing_is_stored(web: FlaskClient) -> None:
    for path in (STORE, "/api/v1/phases/store"):
        assert web.post(path, json=FIX).status_code == 401
        assert web.post(path, json=FIX, headers={"X-API-Key": "rsolv_" + "x" * 43}).status_code == 401
    assert web.get("/api/v1/phases/retrieve?repo=o/r&commit=main").status_code == 401
    assert count("phase_results") == 0


# What is no phase event

# Each: a change to a good event (None: without the field), and the places that the answer must point at.
WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no phase": ({"phase": None}, ["phase"]),
    "an unknown phase": ({"phase": "deploy"}, ["phase"]),
    "a phase in capitals": ({"phase": "SCAN"}, ["phase"]),
    "no repository": ({"repo": None}, ["repo"]),
    "a repository without an owner": ({"repo": "r"}, ["repo"]),
    "a repository with a host": ({"repo": "github.com/o/r"}, ["repo"]),
    "a line's end after the repository": ({"repo": "o/r\n"}, ["repo"]),
    "a repository of 201 letters": ({"repo": "o/" + "r" * 199}, ["repo"]),
    "no commit": ({"commitSha": None}, ["commitSha"]),
    "an empty commit": ({"commitSha": ""}, ["commitSha"]),
    "a commit of 65 letters": ({"commitSha": "a" * 65}, ["commitSha"]),
    "a NUL in the commit": ({"commitSha": "a\x00"}, ["commitSha"]),
    "no issue for a mitigation": ({"issueNumber": None}, ["issueNumber"]),
    "no issue for a validation": ({"phase": "validate", "issueNumber": None}, ["issueNumber"]),
    "issue 0": ({"issueNumber": 0}, ["issueNumber"]),
    "issue 0 in snake_case": ({"issueNumber": None, "issue_number": 0}, ["issue_number"]),
    "issue -1": ({"issueNumber": -1}, ["issueNumber"]),
    "an issue in quotes": ({"issueNumber": "42"}, ["issueNumber"]),
    "an issue and a half": ({"issueNumber": 42.5}, ["issueNumber"]),
    "issue true": ({"issueNumber": True}, ["issueNumber"]),
    "an issue of 64 bits": ({"issueNumber": 2**63}, ["issueNumber"]),
    "an empty status": ({"status": " "}, ["status"]),
    "a status of 51 letters": ({"status": "s" * 51}, ["status"]),
    "a NUL in the status": ({"status": "a\x00"}, ["status"]),
    "a number for a status": ({"status": 200}, ["status"]),
    "an empty fix id": ({"fix_id": ""}, ["fix_id"]),
    "a fix id of 201 letters": ({"fix_id": "f" * 201}, ["fix_id"]),
    "a fix id of two lines": ({"fixId": "a\nb"}, ["fixId"]),
    "a number for a fix id": ({"fix_id": 7}, ["fix_id"]),
    "a list for data": ({"data": []}, ["data"]),
    "text for data": ({"data": "fixed"}, ["data"]),
    "a NUL in the data": ({"data": {"a": [{"b": "\x00"}]}}, ["data"]),
    "a NUL in a name in the data": ({"data": {"a": {"\x00": 1}}}, ["data"]),
    "half a surrogate pair in the data": ({"data": {"a": "\ud800"}}, ["data"]),
    "half a surrogate pair in a name in the data": ({"data": {"\udfff": 1}}, ["data"]),
    "an integer of more than 64 bits": ({"data": {"a": 2**63}}, ["data"]),
    "data 101 deep": ({"data": json.loads('{"a":' * 101 + "1" + "}" * 101)}, ["data"]),
}


@pytest.mark.parametrize(("change", "loc"), WRONG.values(), ids=WRONG)
def test_a_field_that_does_not_validate_is_named_and_nothing_stored(
    send: Callable[..., TestResponse], change: dict[str, Any], loc: list[str]
) -> None:
    answer = send(**change)
    assert answer.status_code == 422
    assert answer.content_type == "application/problem+json"
    [error] = answer.json["errors"]
    assert error["loc"] == loc
    assert error["msg"]
    assert (count("phase_results"), count("jobs")) == (0, 0)


def test_a_number_beyond_all_floats_is_refused_too(web: FlaskClient, jane: ApiKey) -> None:
    body = MITIGATED.replace(b'"fixed":true', b'"fixed":true,"score":1e400')
    headers = {"Content-Type": "application/json", "X-API-Key": jane.secret}
    answer = web.post(STORE, data=body, headers=headers)
    assert answer.status_code == 422
    assert answer.json["errors"][0]["loc"] == ["data"]


def test_large_data_is_stored_and_read_back(
    send: Callable[..., TestResponse], retrieve: Callable[..., TestResponse]
) -> None:
    data = {
        "fixed": True,
        "diff": "+ ☃\n" * 100_000,
        "deep": json.loads('{"a":' * 97 + "1" + "}" * 97),
        "numbers": [2**63 - 1, -(2**63), 1.5e300, 5e-324, 0.1],
    }
    assert send(data=data).status_code == 202
    assert retrieve().json["mitigation"]["42"] == data
