"""Every operation of /openapi.json, asked in ways that nobody thinks of: no 5xx, and nothing undescribed."""

import json

import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from tests.system.scene import count, sql
from tests.system.test_api_keys import key_of

EXAMPLES = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)


# What JSON Schema cannot say, such as a throw-away domain, makes a body that fits it a bad one; and a key
# that this module sends itself is one that Schemathesis did not make.
LEFT_OUT = [ignored_auth, positive_data_acceptance]


def ask_everything(application: Flask, headers: dict[str, str]) -> set[str]:
    """Put every operation to the test; returns the operations that there were."""
    asked = set()
    for found in schemathesis.openapi.from_wsgi("/openapi.json", application).get_all_operations():
        operation = found.ok()
        asked.add(operation.label)

        @EXAMPLES
        @given(case=operation.as_strategy() | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
        def ask(case: schemathesis.Case) -> None:
            case.call_and_validate(headers=headers, excluded_checks=LEFT_OUT)

        ask()
    return asked


def test_without_a_key_no_answer_is_a_5xx_or_undescribed(application: Flask) -> None:
    assert "POST /api/v1/customers" in ask_everything(application, {})


def test_with_a_key_no_answer_is_a_5xx_or_undescribed(application: Flask) -> None:
    key = key_of("jane@example.com").secret
    assert "POST /api/v1/api-keys" in ask_everything(application, {"X-API-Key": key})


_text = st.text(max_size=300)
_form = st.dictionaries(st.sampled_from(["email", "name", "plan", "source", "x"]) | _text, _text, max_size=6)


@given(form=_form, email=st.none() | st.emails())
@EXAMPLES
def test_the_form_answers_anything_with_a_page_or_the_way_on(
    web: FlaskClient, form: dict[str, str], email: str
) -> None:
    body = form if email is None else form | {"email": email, "name": form.get("name", "x")}
    encoded = {name: value.encode("utf-8", "surrogatepass") for name, value in body.items()}
    answer = web.post("/signup", data={n.encode("utf-8", "replace").decode(): v for n, v in encoded.items()})
    assert answer.status_code in (303, 422)
    if answer.status_code == 303:
        assert web.get(answer.headers["Location"]).status_code == 200


@given(raw=st.binary(max_size=500))
@EXAMPLES
def test_the_form_takes_any_bytes(web: FlaskClient, raw: bytes) -> None:
    for media_type in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=b", "text/plain"):
        answer = web.post("/signup", data=raw, content_type=media_type)
        assert answer.status_code in (303, 400, 413, 422)


@given(token=_text)
@EXAMPLES
def test_the_account_page_opens_for_no_made_up_token(web: FlaskClient, token: str) -> None:
    answer = web.get("/account", query_string={"token": token.encode("utf-8", "replace")})
    assert answer.status_code == 403


@given(path=_text)
@EXAMPLES
def test_no_path_is_a_5xx(web: FlaskClient, path: str) -> None:
    for prefix in ("/signup/", "/api/v1/signups/", "/api/v1/jobs/", "/api/v1/api-keys/", "/"):
        assert web.get(prefix + path.encode("utf-8", "replace").decode()).status_code < 500


@given(raw=st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
@EXAMPLES
def test_no_bytes_as_json_are_a_5xx_or_a_signup(web: FlaskClient, raw: bytes) -> None:
    answer = web.post("/api/v1/customers", data=raw, content_type="application/json")
    assert 400 <= answer.status_code < 500
    assert count("signups") == 0


@given(
    body=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | _text,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(_text | st.sampled_from(["email", "name", "plan"]), inner, max_size=4)
        ),
        max_leaves=8,
    )
)
@EXAMPLES
def test_no_json_is_a_5xx(web: FlaskClient, body: object) -> None:
    answer = web.post("/api/v1/customers", data=json.dumps(body), content_type="application/json")
    assert 400 <= answer.status_code < 500
    assert sql("SELECT count(*) FROM signups") == [(0,)]
