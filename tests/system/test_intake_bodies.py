"""What a sender can send instead of a signup: a 4xx that says what to change, and nothing stored (failures.md 43)."""

import json
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.system.scene import JANE, Answer, Site, at_once, rows_of_all_tables, sign_up

JSON = {"Content-Type": "application/json"}
WHOLE = json.dumps(JANE).encode()


@pytest.fixture(autouse=True)
def nothing_stored() -> Iterator[None]:
    """No table has a row more after the test."""
    before = rows_of_all_tables()
    yield
    assert rows_of_all_tables() == before


def is_problem(answer: Answer, status: int) -> dict[str, Any]:
    """The problem that it is, with all that RFC 9457 and our interface ask for."""
    assert answer.status == status, answer.body[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]
    problem = answer.json
    assert {"type", "title", "status", "detail"} <= problem.keys()
    assert problem["status"] == status
    assert problem["detail"]
    return dict(problem)


def post(site: Site, body: bytes, **headers: str) -> Answer:
    return site.ask("POST", "/api/v1/customers", body=body, headers=JSON | headers)


# Each: the body, the status, and a word of the answer that tells the sender what to change.
BODIES: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 400, "JSON"),
    "cut off": (WHOLE[:-5], 400, "JSON"),
    "two documents": (WHOLE + WHOLE, 400, "JSON"),
    "a form": (b"email=jane%40example.com&name=Jane", 400, "JSON"),
    "NaN": (b'{"email": "jane@example.com", "name": NaN}', 400, "NaN"),
    "Infinity": (b'{"email": "jane@example.com", "name": -Infinity}', 400, "Infinity"),
    "the same key twice": (b'{"email": "a@example.com", "email": "b@example.com", "name": "J"}', 400, "twice"),
    "the same key twice, inside": (b'{"email": "a@example.com", "name": {"a": 1, "a": 2}}', 400, "twice"),
    "bad UTF-8": (b'{"email": "jane@example.com", "name": "\xff\xfe"}', 400, "UTF-8"),
    "UTF-16": (json.dumps(JANE).encode("utf-16"), 400, "UTF-8"),
    "a byte-order mark": (b"\xef\xbb\xbf" + WHOLE, 400, "JSON"),
    "100,000 deep": (b"[" * 100_000, 400, "deep"),
    "100,000 deep, closed": (b'{"email":' * 100_000 + b"1" + b"}" * 100_000, 400, "deep"),
    "an integer of 100,000 digits": (b'{"email": ' + b"9" * 100_000 + b', "name": "J"}', 400, "too many digits"),
    "a raw NUL": (b'{"email": "jane@example.com", "name": "a\x00b"}', 400, "JSON"),
    "an array": (b"[]", 422, "errors"),
    "a string": (b'"jane@example.com"', 422, "errors"),
    "a number": (b"1e400", 422, "errors"),
    "null": (b"null", 422, "errors"),
    "nothing in it": (b"{}", 422, "errors"),
}


@pytest.mark.parametrize(("body", "status", "word"), BODIES.values(), ids=BODIES)
def test_a_body_that_is_no_signup_is_refused(site: Site, body: bytes, status: int, word: str) -> None:
    assert word in is_problem(post(site, body), status)["detail"]


# Each: a change to a good body, and the place that the answer must point at.
FIELDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a NUL": ({"name": "a\x00b"}, ["name"]),
    "what a terminal obeys": ({"name": "a\x1b[2Jb"}, ["name"]),
    "the same in a byte": ({"name": "a\x9b2Jb"}, ["name"]),
    "a name of two lines": ({"name": "Jane\nplan: teams"}, ["name"]),
    "a name of two lines, by Unicode": ({"name": "Jane\u2028Doe"}, ["name"]),
    "a name that turns round what follows": ({"name": "Jane\u202eeoD"}, ["name"]),
    "a NUL in the address": ({"email": "a\x00b@example.com"}, ["email"]),
    "half a surrogate pair": ({"name": "\ud800"}, ["name"]),
    "an integer for a name": ({"name": 7}, ["name"]),
    "a huge integer": ({"name": 10**4000}, ["name"]),
    "a list for an address": ({"email": ["jane@example.com"]}, ["email"]),
    "an object for an address": ({"email": {"$ne": ""}}, ["email"]),
    "null for a name": ({"name": None}, ["name"]),
    "true for a plan": ({"plan": True}, ["plan"]),
    "an unknown plan": ({"plan": "platinum"}, ["plan"]),
    "an unknown source": ({"source": "elsewhere"}, ["source"]),
    "an unknown field": ({"admin": True}, ["admin"]),
    "an unknown field that is half a surrogate pair": ({"\ud800": 1}, ["\ufffd"]),
    "an unknown field of 100,000 letters": ({"a" * 100_000: 1}, ["a" * 100_000]),
    "an empty name": ({"name": ""}, ["name"]),
    "a blank name": ({"name": " \t\n"}, ["name"]),
    "a name of 201 letters": ({"name": "n" * 201}, ["name"]),
    "no address": ({"email": "jane"}, ["email"]),
    "two addresses": ({"email": "a@example.com,b@example.com"}, ["email"]),
    "a header in the address": ({"email": "a@example.com\r\nBcc: b@example.com"}, ["email"]),
    "an address of 300 letters": ({"email": "a" * 300 + "@example.com"}, ["email"]),
    "a quoted address": ({"email": '"a b"@example.com'}, ["email"]),
    "an address by number": ({"email": "a@[127.0.0.1]"}, ["email"]),
}


@pytest.mark.parametrize(("change", "loc"), FIELDS.values(), ids=FIELDS)
def test_a_field_that_does_not_validate_is_named_with_what_to_change(
    web: FlaskClient, change: dict[str, Any], loc: list[str]
) -> None:
    body = json.dumps(JANE | change)
    answer = web.post("/api/v1/customers", data=body, headers=JSON)
    problem = is_problem(Answer(answer.status_code, {k.lower(): v for k, v in answer.headers}, answer.data), 422)
    [error] = problem["errors"]
    assert error.keys() == {"loc", "msg"}
    assert error["msg"]
    if loc != ["\ufffd"]:
        assert error["loc"] == loc


@pytest.mark.parametrize("field", ["4242 4242 4242 4242", "jane.doe@example.com", "rsolv_verysecretverysecret"])
def test_a_problem_does_not_repeat_a_field_that_is_private(web: FlaskClient, field: str) -> None:
    answer = web.post("/api/v1/customers", json=JANE | {field: 1})
    assert answer.status_code == 422
    [error] = answer.json["errors"]
    assert len(error["loc"]) == 1
    assert field not in answer.text


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ([], {"loc": [], "msg": "must be a JSON object"}),
        (JANE | {"email": "nobody"}, {"loc": ["email"], "msg": "An email address must have an @-sign."}),
        (JANE | {"name": "a\x00b"}, {"loc": ["name"], "msg": "must not contain control characters, such as U+0000"}),
    ],
    ids=["an array", "an address", "a name"],
)
def test_the_reason_is_said_in_words_for_a_sender(web: FlaskClient, body: object, reason: dict[str, Any]) -> None:
    assert web.post("/api/v1/customers", json=body).json["errors"] == [reason]


def test_every_field_that_is_wrong_is_named_at_once(web: FlaskClient) -> None:
    answer = sign_up(web, email="nobody", name="", plan="gold", colour="red")
    assert sorted(error["loc"] for error in answer.json["errors"]) == [["colour"], ["email"], ["name"], ["plan"]]


@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "",
        "json",
    ],
)
def test_another_media_type_is_refused_and_the_right_one_named(site: Site, media_type: str) -> None:
    answer = site.ask("POST", "/api/v1/customers", body=WHOLE, headers={"Content-Type": media_type})
    assert "application/json" in is_problem(answer, 415)["detail"]


def test_no_media_type_is_refused_too(site: Site) -> None:
    is_problem(site.ask("POST", "/api/v1/customers", body=WHOLE), 415)


@pytest.mark.parametrize("path", ["/api/v1/customers", "/signup"])
@pytest.mark.parametrize("in_chunks", [False, True], ids=["with its length", "in chunks"])
def test_a_body_of_10_mb_is_too_large(site: Site, path: str, in_chunks: bool) -> None:
    media_type = b"application/json" if path.startswith("/api") else b"application/x-www-form-urlencoded"
    framing = b"Transfer-Encoding: chunked" if in_chunks else b"Content-Length: 10485760"
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: %b\r\n%b\r\n\r\n" % (path.encode(), media_type, framing)
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n" if in_chunks else b"x" * 65536
    said = raw(site, head, *[piece] * 160)
    assert status_of(said) == 413
    assert b"application/problem+json" in said


def test_a_chunked_body_is_not_cut_off_where_it_reads_well(site: Site) -> None:
    body = iter([WHOLE, b" " * (2**20 - len(WHOLE)), b"and more"])
    is_problem(site.ask("POST", "/api/v1/customers", body=body, headers=JSON), 413)


def test_a_body_a_byte_over_1_mib_is_too_large_and_one_of_1_mib_is_read(site: Site) -> None:
    padded = WHOLE[:-1] + b" " * (2**20 - len(WHOLE)) + b"}"
    is_problem(post(site, padded + b" "), 413)
    is_problem(post(site, padded[:-1] + b"]"), 400)


def raw(site: Site, *pieces: bytes) -> bytes:
    """What the server says to these bytes, until it closes the connection or has been silent for a minute."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=60) as connection:
        for piece in pieces:
            try:
                connection.sendall(piece)
            except ConnectionError:
                break  # it has answered and closed already
        said = b""
        while True:
            try:
                data = connection.recv(65536)
            except ConnectionResetError:
                return said
            if not data:
                return said
            said += data


def status_of(said: bytes) -> int:
    assert said.startswith(b"HTTP/1.1 "), said[:200]
    return int(said.split(b" ", 2)[1])


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 2**20 + b"\r\n\r\n",
        b"GET /" + b"x" * 2**20 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: x\r\n" % n for n in range(1000)) + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nno colon here\r\n\r\n",
        b"POST /api/v1/customers HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/v1/customers HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /api/v1/customers HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    ],
    ids=["1 MB header", "1 MB path", "1000 headers", "no colon", "negative length", "two framings", "two lengths"],
)
def test_a_head_that_is_no_http_is_a_4xx_and_the_server_lives(site: Site, head: bytes) -> None:
    assert 400 <= status_of(raw(site, head + b"")) < 500
    assert site.get("/healthz").status == 200


@pytest.mark.slow
def test_senders_that_fall_silent_are_told_so_and_hung_up_on(site: Site) -> None:
    api = b"POST /api/v1/customers HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    form = b"POST /signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    with_length, in_chunks = b"Content-Length: 100\r\n\r\nemail=", b"Transfer-Encoding: chunked\r\n\r\n6\r\nemail="
    requests = [head + body for head in (api, form) for body in (with_length, in_chunks)]
    *answers, in_the_head = at_once(*(partial(raw, site, request) for request in [*requests, b"POST /api/v1/cust"]))
    assert [status_of(said) for said in answers] == [408, 408, 408, 408]
    assert not in_the_head or 400 <= status_of(in_the_head) < 500


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/customers", 405),
        ("DELETE", "/api/v1/customers", 405),
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v1/signups/not-a-uuid", 404),
        ("GET", "/api/v1/signups/01900000-0000-7000-8000-000000000000", 404),
        ("GET", "/api/v1/signups/%00", 404),
        ("GET", "/%ff%fe", 404),
        ("POST", "/healthz", 405),
    ],
)
def test_a_route_that_is_not_there_is_a_problem_too(site: Site, method: str, path: str, status: int) -> None:
    answer = site.ask(method, path)
    is_problem(answer, status)
    assert ("allow" in answer.headers) == (status == 405)


def test_a_request_id_is_kept_and_a_strange_one_replaced(site: Site) -> None:
    assert site.get("/healthz", X_Request_Id="order-7:a.b").headers["x-request-id"] == "order-7:a.b"
    for strange in ("a b", "x" * 101, "{}", "é"):
        given = site.get("/healthz", X_Request_Id=strange).headers["x-request-id"]
        assert given != strange
        assert len(given) == 32


def test_form_fields_that_do_not_validate_bring_the_form_back_with_the_reason(web: FlaskClient) -> None:
    for form in ({}, {"email": "x"}, {"email": "a\x00b@example.com", "name": "\x00"}, {"email": "jane@mailinator.com"}):
        answer = web.post("/signup", data=form)
        assert answer.status_code == 422
        assert "<form" in answer.text
        assert 'role="alert"' in answer.text
        assert "Value error" not in answer.text
    answer = web.post("/signup", data={"email": "<script>alert(1)</script>", "name": '"><script>'})
    assert "<script>" not in answer.text
