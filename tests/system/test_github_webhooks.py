"""`POST /webhooks/github`: what GitHub signs is kept, whatever it is, and what it tells of installations is followed
(failures.md 18, 43). Purchases are test_marketplace.py's."""

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count as numbers
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from tests.system.scene import at_once, count, drain, one, rows_of_all_tables, show, sql
from tests.system.test_schemathesis import EXAMPLES

PATH = "/webhooks/github"
SECRET = "githubtests"
SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "github"
JSON = "application/json"
PLANS = "435=payg,686=teams,Free=trial,7=teams"

_numbers = numbers(1)


@pytest.fixture(autouse=True)
def _plans(configure: Callable[..., None]) -> None:
    configure(MARKETPLACE_PLANS=PLANS)


def sign(body: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def post(
    web: FlaskClient,
    sent: dict[str, Any] | bytes,
    event: str = "marketplace_purchase",
    *,
    delivery: str | None = None,
    content_type: str = JSON,
    **headers: str | None,
) -> TestResponse:
    """Deliver as GitHub does; a header that is None is left out."""
    body = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    all_headers = {
        "X-Hub-Signature-256": sign(body),
        "X-GitHub-Delivery": delivery or str(uuid4()),
        "X-GitHub-Event": event,
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    given = {name: value for name, value in all_headers.items() if value is not None}
    return web.post(PATH, data=body, headers=given, content_type=content_type)


def samples(name: str) -> list[dict[str, Any]]:
    """GitHub's own samples of an event."""
    file = SAMPLES / f"{name}.json"
    if not file.exists():
        pytest.skip(f"GitHub's samples are not at hand: {file}")
    found: list[dict[str, Any]] = json.loads(file.read_text())
    return found


def day(n: float) -> datetime:
    """So many days from now."""
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=n)


@dataclass(frozen=True)
class Account:
    """An account on GitHub that buys."""

    id: int
    email: str | None

    def says(self, action: str, plan: int | str = 435, at: datetime | None = None, **changes: Any) -> dict[str, Any]:
        """What GitHub sends of it. `plan`: the id of one, or its name."""
        bought = {"id": plan, "name": "Some Plan"} if isinstance(plan, int) else {"id": 1, "name": plan}
        account = {"id": self.id, "login": f"org{self.id}", "type": "Organization"}
        purchase = {
            "account": account | {"organization_billing_email": self.email},
            "billing_cycle": "monthly",
            "unit_count": 1,
            "on_free_trial": False,
            "free_trial_ends_on": None,
            "next_billing_date": day(20).isoformat(),
            "plan": bought,
        }
        before = changes.pop("before", None)
        previous = {} if before is None else {"previous_marketplace_purchase": {"plan": {"id": before, "name": "x"}}}
        return {
            "action": action,
            "effective_date": (at or day(-1)).isoformat(),
            "sender": {"login": "someone", "id": 1, "email": None},
            "marketplace_purchase": purchase | changes,
            **previous,
        }


def account(email: str | None = "") -> Account:
    n = next(_numbers)
    return Account(1000 + n, f"org{n}@example.com" if email == "" else email)


def settle() -> None:
    """Work until what waits only for a customer to be made has them; nothing that waits for its day is begun."""
    for _ in range(20):
        drain()
        if not sql("SELECT 1 FROM jobs WHERE name = 'github_event' AND state IN ('queued', 'retrying')"):
            return
        sql("UPDATE jobs SET run_at = clock_timestamp() WHERE name = 'github_event' AND state = 'queued'")
    pytest.fail("a delivery is still waiting")


def deliver(web: FlaskClient, sent: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Deliver it and work; returns what ops see of its job."""
    delivery = options.pop("delivery", None) or str(uuid4())
    assert post(web, sent, delivery=delivery, **options).status_code == 202
    settle()
    return came_to(delivery)


def came_to(delivery: str) -> dict[str, Any]:
    return show(one("SELECT id FROM jobs WHERE key = %(key)s", key=f"github:{delivery}"))


# who has signed it


def test_a_signed_delivery_is_kept_whole_and_answered_at_once(web: FlaskClient) -> None:
    sent = account().says("purchased") | {"note": "ä", "nested": [{"a": 1.5}, None]}
    answer = post(web, sent, delivery="72d3162e-cc78-11e3-81ab-4c9367dc0958")
    assert (answer.status_code, answer.json) == (202, {"received": True, "duplicate": False})
    [job] = sql("SELECT key, queue, state, payload FROM jobs")
    assert tuple(job)[:3] == ("github:72d3162e-cc78-11e3-81ab-4c9367dc0958", "webhooks", "queued")
    assert (job.payload["event"], job.payload["body"]) == ("marketplace_purchase", sent)


@pytest.mark.parametrize(
    "signature",
    [
        None,
        "",
        "sha256=",
        sign(b"{}", "another"),
        sign(b"{ }"),
        sign(b"{}").removeprefix("sha256="),
        sign(b"{}").replace("sha256", "sha1"),
        "sha1=" + hmac.new(SECRET.encode(), b"{}", hashlib.sha1).hexdigest(),
        sign(b"{}").upper(),
        "sha256=\xff",
    ],
)
def test_what_is_not_signed_by_a_secret_of_ours_is_refused(web: FlaskClient, signature: str | None) -> None:
    answer = post(web, b"{}", "ping", **{"X-Hub-Signature-256": signature})
    assert answer.status_code == 401
    assert answer.content_type == "application/problem+json"
    assert count("jobs") == 0


def test_while_a_secret_is_replaced_both_verify(web: FlaskClient, configure: Callable[..., None]) -> None:
    configure(GITHUB_WEBHOOK_SECRETS="new,old")
    for secret in ("new", "old"):
        assert post(web, b"{}", "ping", **{"X-Hub-Signature-256": sign(b"{}", secret)}).status_code == 202
    assert post(web, b"{}", "ping").status_code == 401


def test_without_a_secret_nothing_is_taken(web: FlaskClient, configure: Callable[..., None]) -> None:
    configure(GITHUB_WEBHOOK_SECRETS=None)
    answer = post(web, b"{}", "ping")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "GITHUB_WEBHOOK_SECRETS" in answer.json["detail"]


@pytest.mark.usefixtures("whole_window")
def test_webhooks_have_a_limit_where_one_is_set(web: FlaskClient, configure: Callable[..., None]) -> None:
    configure(WEBHOOK_RATE_LIMIT="2/hour")
    assert [post(web, b"{}", "ping").status_code for _ in range(3)] == [202, 202, 429]


# what can be sent


def test_the_same_delivery_at_the_same_instant_is_one_job(web: FlaskClient) -> None:
    answers = at_once(*[partial(post, web.application.test_client(), b"{}", "ping", delivery="d1") for _ in range(12)])
    assert {answer.status_code for answer in answers} == {202}
    assert sorted(answer.json["duplicate"] for answer in answers) == [False] + [True] * 11
    assert count("jobs") == 1


def test_a_delivery_in_a_form_is_read_like_one_in_json(web: FlaskClient) -> None:
    sent = account().says("purchased") | {"note": "a+b & ä"}
    form = urlencode({"payload": json.dumps(sent)}).encode()
    assert post(web, form, content_type="application/x-www-form-urlencoded").status_code == 202
    assert one("SELECT payload -> 'body' FROM jobs") == sent


BAD: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 400),
    "cut off": (b'{"action": ', 400),
    "no JSON": (b"payload=1", 400),
    "bad UTF-8": (b'{"a": "\xff"}', 400),
    "NaN": (b'{"a": NaN}', 400),
    "one key twice": (b'{"a": 1, "a": 2}', 400),
    "100,000 deep": (b"[" * 100_000, 400),
    "an array": (b"[]", 422),
    "a NUL": (rb'{"a": "\u0000"}', 422),
    "half a character": (rb'{"a": "\ud800"}', 422),
    "a huge number": (b'{"a": 1e999}', 422),
    "a huge integer": (b'{"a": ' + b"9" * 100 + b"}", 422),
    "150 deep": (b'{"a": ' + b"[" * 150 + b"]" * 150 + b"}", 422),
    "over 1 MiB": (b'{"a": "' + b"x" * 1024 * 1024 + b'"}', 413),
    "10 MB": (b'{"a": "' + b"x" * 10_000_000 + b'"}', 413),
}


@pytest.mark.parametrize("body", BAD)
def test_a_body_that_cannot_be_kept_is_refused(web: FlaskClient, body: str) -> None:
    raw, expected = BAD[body]
    before = rows_of_all_tables()
    answer = post(web, raw)
    assert (answer.status_code, answer.content_type) == (expected, "application/problem+json")
    assert rows_of_all_tables() == before


@pytest.mark.parametrize("header", ["X-GitHub-Delivery", "X-GitHub-Event"])
@pytest.mark.parametrize("value", [None, "", "x" * 101, "a\tb"])
def test_a_delivery_has_an_id_and_an_event(web: FlaskClient, header: str, value: str | None) -> None:
    answer = post(web, b"{}", **{header: value})
    assert answer.status_code == 400
    assert header in answer.json["detail"]


def test_another_media_type_is_refused(web: FlaskClient) -> None:
    assert post(web, b"{}", content_type="text/plain").status_code == 415
    assert post(web, b"{}", content_type="application/x-www-form-urlencoded").status_code == 400


@given(
    body=st.binary(min_size=1, max_size=300)
    | st.text(max_size=100).map(lambda text: json.dumps({"a": text, text: 1}).encode()),
    delivery=st.text(max_size=120),
    event=st.text(max_size=120),
    media=st.sampled_from([JSON, "application/x-www-form-urlencoded", "text/plain"]),
)
@EXAMPLES
def test_no_signed_bytes_are_a_5xx(web: FlaskClient, body: bytes, delivery: str, event: str, media: str) -> None:
    headers = {
        name: value.encode("utf-8", "replace").decode("latin-1").replace("\r", "").replace("\n", "")
        for name, value in {"X-GitHub-Delivery": delivery, "X-GitHub-Event": event}.items()
    }
    assert post(web, body, content_type=media, **headers).status_code in (202, 400, 413, 415, 422)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


@given(where=st.integers(0, 40), other=_json)
@EXAMPLES
def test_a_purchase_of_any_other_shape_ends_with_a_reason(web: FlaskClient, where: int, other: Any) -> None:
    """failures.md 21: older shapes, null where an object was, unknown values: never a job that goes round and round."""
    sent = account().says("changed", 686, before=435)
    places = list(_places(sent))
    thing, name = places[where % len(places)]
    thing[name] = other
    answer = post(web, sent, delivery=(delivery := str(uuid4())))
    if answer.status_code == 202:
        settle()
        ended = came_to(delivery)
        assert (ended["state"], ended["attempts"]) in [("succeeded", 1), ("dead", 1)], ended
        assert ended["state"] == "succeeded" or ended["error"]["kind"] == "permanent"


def _places(thing: dict[str, Any]) -> Any:
    for name, value in thing.items():
        yield thing, name
        if isinstance(value, dict):
            yield from _places(value)


# installations, and what is no purchase


def test_githubs_ping_and_what_is_unknown_end_well(web: FlaskClient) -> None:
    for sent in samples("ping"):
        assert deliver(web, sent, event="ping")["result"] == {"answered": "ping"}
    assert deliver(web, {"action": "starred"}, event="star")["result"] == {"ignored": "unknown event"}
    assert deliver(web, account().says("gifted"))["result"] == {"ignored": "unknown action"}
    assert count("marketplace_accounts") == 0


def test_githubs_installations_are_remembered(web: FlaskClient) -> None:
    for sent in samples("installation"):
        assert deliver(web, sent, event="installation")["state"] == "succeeded"
    assert dict(tuple(row) for row in sql("SELECT id, state FROM github_installations")) == {
        957387: "active",
        16598467: "active",
        2: "deleted",
    } | {s["installation"]["id"]: "deleted" for s in samples("installation") if s["action"] == "deleted"}


@given(order=st.permutations(range(4)))
@EXAMPLES
def test_an_installation_is_what_github_said_last_in_any_order(web: FlaskClient, order: list[int]) -> None:
    n = next(_numbers)
    owner = {"id": 7, "login": "octo", "type": "User"}

    def says(action: str, minute: int, suspended_at: str | None = None) -> dict[str, Any]:
        at = f"2026-11-01T00:{minute:02}:00Z"
        seen = {"id": n, "account": owner, "updated_at": at, "suspended_at": suspended_at}
        return {"action": action, "installation": seen}

    told = [
        says("created", 1),
        says("suspend", 2, "2026-11-01T00:02:00Z"),
        says("unsuspend", 3),
        says("suspend", 4, "2026-11-01T00:04:00Z"),
    ]
    for place in order:
        deliver(web, told[place], event="installation")
    assert one("SELECT state FROM github_installations WHERE id = %(n)s", n=n) == "suspended"
    deliver(web, says("deleted", 4), event="installation")
    deliver(web, told[2], event="installation")
    assert one("SELECT state FROM github_installations WHERE id = %(n)s", n=n) == "deleted"
