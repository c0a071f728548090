"""`POST /webhooks/github`: what GitHub tells of installations and of purchases on its Marketplace is kept and followed,
whatever order it comes in (seed: "marketplace installation"; failures.md 36, 37, 43)."""

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import count as numbers
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner
from werkzeug.test import TestResponse

from app.billing.periods import Period, period_at
from app.contracts.billing import StartTeams
from app.customers import signups
from app.db import transaction
from app.github import history
from app.github.deliveries import made_at
from app.ledger.enqueue import enqueue
from app.ops.audit import audit
from app.ops.cli import cli
from app.sandbox.stripe import StripeSandbox
from tests.conftest import ROOT
from tests.system.money import Customer, charge_states, customer, deploy, outcomes, status, taken
from tests.system.scene import Mailbox, at_once, count, drain, one, rows_of_all_tables, show, sql
from tests.system.test_payment_methods import give_card_at, open_page, outcome
from tests.system.test_plans import choose, on_teams, paid, price, with_card
from tests.system.test_schemathesis import EXAMPLES

__all__ = ["price"]

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


def days_pass(days: float) -> None:
    """What is to take effect in so many days does now, and whoever waits for it wakes."""
    sql(f"UPDATE marketplace_purchases SET effective_at = effective_at - interval '{days} days'")
    sql("UPDATE jobs SET run_at = clock_timestamp() WHERE name = 'apply_marketplace_plan' AND state = 'queued'")
    drain()


def the_customer(of: Account) -> Customer:
    """The customer that the account has become, with the key that was mailed."""
    [found] = sql(
        "SELECT id, stripe_customer_id FROM customers JOIN marketplace_accounts AS a ON a.customer_id = id"
        " WHERE github_id = %(id)s",
        id=of.id,
    )
    return Customer(found.id, found.stripe_customer_id, "")


def plan(of: Customer) -> str:
    return status(of).plan


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


# marketplace installation


def test_marketplace_installation(web: FlaskClient, mailbox: Mailbox, stripe: StripeSandbox) -> None:
    """A purchase makes a customer with their plan, who is not charged by Stripe for it."""
    [purchased, *_] = samples("marketplace_purchase")
    assert deliver(web, purchased)["state"] == "succeeded"
    [found] = sql("SELECT email, name, plan, source, stripe_customer_id, subscription_status FROM customers")
    assert tuple(found)[:4] == ("username@email.com", "username", "payg", "gh_marketplace")
    assert found.stripe_customer_id in {one["id"] for one in stripe.objects("customer")}
    assert found.subscription_status == "active"
    assert one("SELECT status FROM signups") == "provisioned"
    welcome, told = mailbox.mails()
    assert "GitHub bills it" in told.text

    headers = {"X-API-Key": welcome.key}
    sent = {"phase": "mitigation", "data": {"fixed": True}, "repo": "o/r", "issueNumber": 42, "commitSha": "c0ffee"}
    assert web.post("/api/v1/phase-data", json=sent, headers=headers).status_code == 202
    drain()
    seen = web.get("/api/v1/billing/status", headers=headers).json
    assert (seen["plan"], seen["can_use_service"], seen["current_usage"], seen["overage"]) == ("payg", True, 1, 0)
    assert sql("SELECT outcome, amount_cents FROM fixes") == [("included", 0)]
    assert stripe.objects("payment_intent") == []
    assert count("charges") == 0
    assert audit(with_stripe=True)["ok"]


def test_githubs_own_history_ends_as_it_says(web: FlaskClient) -> None:
    for sent in samples("marketplace_purchase"):
        assert deliver(web, sent)["state"] == "succeeded"
    assert sql("SELECT email, plan FROM customers ORDER BY email") == [
        ("organizationusername@gmail.com", "trial"),
        ("username@email.com", "payg"),
    ]


def test_a_purchase_repeated_changes_nothing(web: FlaskClient, mailbox: Mailbox) -> None:
    org = account()
    sent = org.says("purchased", 686)
    deliver(web, sent, delivery="d1")
    before, mails = rows_of_all_tables(), len(mailbox.mails())
    assert post(web, sent, delivery="d1").json["duplicate"] is True
    drain()
    assert rows_of_all_tables() == before
    deliver(web, sent)  # the same, from another webhook
    assert len(mailbox.mails()) == mails
    assert count("customers") == count("plan_changes") == 1


def test_deliveries_at_the_same_instant_make_one_customer(web: FlaskClient) -> None:
    org = account()
    for n in range(6):
        post(web, org.says("changed" if n else "purchased", 686))
    workers = at_once(*[drain] * 3)
    assert len(workers) == 3
    settle()
    assert (count("customers"), count("signups"), count("plan_changes")) == (1, 1, 1)
    assert plan(the_customer(org)) == "teams"


def test_a_purchase_finds_who_is_a_customer_already_by_their_address(web: FlaskClient, mailbox: Mailbox) -> None:
    jane = customer()
    email = one("SELECT email FROM customers")
    org = Account(5, email.upper())
    deliver(web, org.says("purchased", 686))
    assert (count("customers"), count("signups")) == (1, 0)
    assert plan(jane) == "teams"
    assert len(mailbox.mails()) == 1
    # From now on the account is known, whatever its address becomes.
    deliver(web, Account(5, "new@example.com").says("changed", 435, day(0)))
    assert count("customers") == 1
    assert plan(jane) == "payg"


def test_a_purchase_without_an_address_is_dead_until_a_delivery_names_one(web: FlaskClient) -> None:
    nobody = account(None)
    dead = deliver(web, nobody.says("purchased", 686), delivery="d1")
    assert (dead["state"], dead["error"]["kind"]) == ("dead", "permanent")
    assert f"org{nobody.id}" in dead["error"]["message"]
    assert count("customers") == 0
    later = nobody.says("pending_change", 435, day(10)) | {"sender": {"email": "boss@example.com"}}
    deliver(web, later)
    assert plan(the_customer(nobody)) == "teams"
    assert one("SELECT email FROM customers") == "boss@example.com"
    assert CliRunner().invoke(cli, ["jobs", "requeue", dead["id"]]).exit_code == 0
    settle()
    assert came_to("d1")["state"] == "succeeded"


@pytest.mark.parametrize("address", ["not an address", "x@users.noreply.github.com", "x@mailinator.com", "a" * 400])
def test_an_address_that_nobody_reads_is_none(web: FlaskClient, address: str) -> None:
    assert deliver(web, account(address).says("purchased"))["state"] == "dead"
    assert count("signups") == 0


def test_a_plan_that_nobody_has_named_is_dead_with_what_to_set_and_the_customer_is_made(
    web: FlaskClient, configure: Callable[..., None]
) -> None:
    org = account()
    dead = deliver(web, org.says("purchased", 99), delivery="d1")
    assert dead["state"] == "dead"
    assert "MARKETPLACE_PLANS" in dead["error"]["message"]
    assert "99=" in dead["error"]["message"]
    drain()
    assert one("SELECT status FROM signups") == "provisioned"
    configure(MARKETPLACE_PLANS="99=teams")
    CliRunner().invoke(cli, ["jobs", "requeue", dead["id"]])
    settle()
    assert plan(the_customer(org)) == "teams"


def test_a_plan_can_be_named_by_its_name(web: FlaskClient) -> None:
    org = account()
    deliver(web, org.says("purchased", "FREE"))
    assert plan(the_customer(org)) == "trial"
    deliver(web, org.says("changed", 686, before=99))  # what it was before need not be known
    assert plan(the_customer(org)) == "teams"


def test_a_purchase_waits_for_the_approval_of_its_customer(web: FlaskClient, configure: Callable[..., None]) -> None:
    configure(AUTO_PROVISION="false")
    org = account()
    post(web, org.says("purchased", 686), delivery="d1")
    drain()
    assert (came_to("d1")["state"], came_to("d1")["error"]["kind"]) == ("queued", "busy")
    assert one("SELECT source FROM signups WHERE status = 'awaiting_approval'") == "gh_marketplace"
    with transaction() as db:
        signups.approve(db, one("SELECT id FROM signups"), actor="test")
    settle()
    assert plan(the_customer(org)) == "teams"


def test_a_purchase_of_a_customer_who_was_rejected_is_dead(web: FlaskClient, configure: Callable[..., None]) -> None:
    configure(AUTO_PROVISION="false")
    post(web, account().says("purchased", 686), delivery="d1")
    drain()
    with transaction() as db:
        signups.reject(db, one("SELECT id FROM signups"), actor="test")
    settle()
    assert came_to("d1")["state"] == "dead"
    assert "rejected" in came_to("d1")["error"]["message"]


def test_support_sees_what_a_customer_has_on_github(web: FlaskClient) -> None:
    org = account()
    deliver(web, org.says("purchased", 686))
    seen = {"id": 5, "account": {"id": org.id, "login": "x", "type": "User"}, "updated_at": 1762300800}
    deliver(web, {"action": "created", "installation": seen}, event="installation")
    shown = CliRunner().invoke(cli, ["customers", "show", str(org.email), "--json"])
    login = f"org{org.id}"
    assert json.loads(shown.output)["github"] == [{"login": login, "plan": "teams", "installations": ["active"]}]
    assert f"{login}, teams by the Marketplace" in CliRunner().invoke(cli, ["customers", "show", str(org.email)]).output


def test_ops_see_what_followed_from_a_delivery_and_have_it_done_again(web: FlaskClient) -> None:
    org = account()
    deliver(web, org.says("purchased", 686), delivery="d1")
    jane = the_customer(org)
    shown = json.loads(CliRunner().invoke(cli, ["webhooks", "show", "d1", "--json"]).output)
    assert (shown["followed_by"]["name"], shown["followed_by"]["result"]) == (
        "apply_marketplace_plan",
        {"plan": "teams"},
    )
    assert str(org.email) not in json.dumps(shown)
    before = count("plan_changes")
    assert CliRunner().invoke(cli, ["webhooks", "replay", "d1"]).exit_code == 0
    settle()
    assert (plan(jane), count("plan_changes")) == ("teams", before)
    assert one("SELECT count(*) FROM jobs WHERE name = 'apply_marketplace_plan' AND state = 'succeeded'") == 2


def dry_run(delivery: str) -> Any:
    """What having it done again would change, by a dry run that changes nothing."""
    before = rows_of_all_tables()
    result = CliRunner().invoke(cli, ["webhooks", "replay", delivery, "--dry-run", "--json"])
    assert result.exit_code == 0, result.output
    assert rows_of_all_tables() == before
    [preview] = json.loads(result.stdout)
    return [tuple(change.values()) for change in preview["changes"]]


def test_a_dry_run_says_what_plan_would_come_of_a_delivery(web: FlaskClient) -> None:
    org = account()
    deliver(web, org.says("purchased", 435, day(-3)), delivery="d1")
    jane = the_customer(org)
    assert dry_run("d1") == []
    said = org.says("changed", 686, day(-2))
    post(web, said, delivery="d2")  # and no worker comes
    assert dry_run("d2") == [
        ("delivery:d2", "not kept", f"changed, from {day(-2):%Y-%m-%d} on"),
        (f"plan of customer:{jane.id}", "payg, paid on the Marketplace", "teams, paid on the Marketplace"),
    ]
    assert plan(jane) == "payg"
    settle()
    assert dry_run("d2") == []
    assert plan(jane) == "teams"


def test_a_dry_run_of_the_first_purchase_makes_nobody(web: FlaskClient) -> None:
    post(web, account().says("purchased", 435, day(-3)), delivery="d1")
    assert dry_run("d1") == [("delivery:d1", "not kept", f"purchased, from {day(-3):%Y-%m-%d} on")]


def test_a_dry_run_says_how_an_installation_would_be(web: FlaskClient) -> None:
    org = {"id": 7, "login": "org", "type": "Organization"}
    installation = {"id": 1, "account": org, "updated_at": day(0).isoformat(), "suspended_at": None}
    post(web, {"action": "created", "installation": installation}, "installation", delivery="d1")
    assert dry_run("d1") == [("installation:1", "nothing", "active")]
    settle()
    assert dry_run("d1") == []


# changes, each at its time


def test_a_change_and_a_cancellation_follow(web: FlaskClient, mailbox: Mailbox) -> None:
    org = account()
    deliver(web, org.says("purchased", 435, day(-3)))
    jane = the_customer(org)
    deliver(web, org.says("changed", 686, day(-2)))
    assert plan(jane) == "teams"
    deliver(web, org.says("cancelled", 686, day(-1), unit_count=0))
    seen = status(jane)
    assert (seen.plan, seen.subscription_status, seen.can_use_service) == ("trial", "trial", True)
    assert "the trial" in mailbox.mails()[-1].text
    deliver(web, org.says("purchased", 435, day(0)))
    assert plan(jane) == "payg"


def test_a_pending_change_waits_for_its_day(web: FlaskClient) -> None:
    org = account()
    deliver(web, org.says("purchased", 686, day(-3)))
    jane = the_customer(org)
    deliver(web, org.says("pending_change", 435, day(20), before=686))
    assert plan(jane) == "teams"
    days_pass(19)
    assert plan(jane) == "teams"
    days_pass(2)
    assert plan(jane) == "payg"


def test_a_pending_cancellation_ends_the_plan_on_its_day(web: FlaskClient) -> None:
    org = account()
    deliver(web, org.says("purchased", 686, day(-3)))
    deliver(web, org.says("pending_change", 686, day(20), before=686, unit_count=0))
    assert plan(the_customer(org)) == "teams"
    days_pass(21)
    assert plan(the_customer(org)) == "trial"


def test_a_purchase_with_a_date_to_come_waits_for_it(web: FlaskClient) -> None:
    org = account()
    deliver(web, org.says("purchased", 686, day(2)))
    assert plan(the_customer(org)) == "trial"
    assert one("SELECT run_at::date FROM jobs WHERE payload ->> 'occasion' LIKE 'date:%%'") == day(2).date()
    days_pass(3)
    assert plan(the_customer(org)) == "teams"


@pytest.mark.parametrize("late", [False, True])
def test_a_pending_change_that_was_taken_back_never_comes(web: FlaskClient, late: bool) -> None:
    org = account()
    deliver(web, org.says("purchased", 686, day(-3)))
    told = [
        org.says("pending_change", 435, day(20), before=686),
        org.says("pending_change_cancelled", 686, day(0)),
    ]
    for sent in reversed(told) if late else told:
        deliver(web, sent)
    days_pass(21)
    assert plan(the_customer(org)) == "teams"


def test_nothing_is_pending_of_what_was_cancelled(web: FlaskClient) -> None:
    org = account()
    deliver(web, org.says("purchased", 686, day(-3)))
    deliver(web, org.says("cancelled", 686, day(-1), unit_count=0))
    deliver(web, org.says("pending_change", 435, day(20), before=686))  # made before, and late
    days_pass(21)
    assert plan(the_customer(org)) == "trial"


def test_what_was_lost_is_made_good_by_the_next_delivery(web: FlaskClient) -> None:
    org = account()
    deliver(web, org.says("changed", 686, day(-1), before=435))  # `purchased` never came
    assert plan(the_customer(org)) == "teams"
    other = account()
    deliver(web, other.says("pending_change", 435, day(20), before=686))
    assert plan(the_customer(other)) == "teams"


def test_of_two_accounts_of_one_customer_the_greater_plan_counts(web: FlaskClient) -> None:
    jane = customer()
    email = one("SELECT email FROM customers")
    one_org, other = Account(1, email), Account(2, email)
    deliver(web, one_org.says("purchased", 686))
    deliver(web, other.says("purchased", 435))
    assert plan(jane) == "teams"
    deliver(web, one_org.says("cancelled", 686, day(0)))
    assert plan(jane) == "payg"


# any order

_GREGORIAN = datetime(1582, 10, 15, tzinfo=UTC)


def made_id(at: datetime) -> str:
    """An id as GitHub gives it to a delivery that it makes at that moment."""
    ticks = (at - _GREGORIAN) // timedelta(microseconds=1) * 10
    low, middle, high = ticks & 0xFFFFFFFF, ticks >> 32 & 0xFFFF, ticks >> 48 & 0x0FFF
    return str(UUID(fields=(low, middle, high | 0x1000, 0x80, next(_numbers) % 256, 0x4C9367DC0958)))


def test_a_delivery_says_when_it_was_made() -> None:
    at = datetime(2026, 11, 22, 12, 30, 15, 250_000, tzinfo=UTC)
    assert made_at(made_id(at)) == at
    sample = made_at("72d3162e-cc78-11e3-81ab-4c9367dc0958")  # of GitHub's documentation
    assert sample is not None
    assert sample.date() == date(2014, 4, 25)
    assert made_at(str(uuid4())) is made_at("d1") is None


@dataclass
class Life:
    """What an account does, in the order that it does it, and what it has at the end."""

    told: list[tuple[str, int, float, float, int | None]]
    """Action, plan, day that it takes effect, day that it is told, plan before."""
    plan: int | None = None
    pending: tuple[int | None, float] | None = None


@st.composite
def lives(draw: st.DrawFn) -> Life:
    """A history as GitHub makes it; days are whole ones, and much can happen on one."""
    life, today = Life([]), -60.0
    for _ in range(draw(st.integers(1, 6))):
        today += draw(st.sampled_from([0.01, 0.2, 1.0, 7.0]))
        if life.pending is not None and life.pending[1] <= today:
            life.plan, life.pending = life.pending[0], None
        midnight = float(int(today) - 1)
        new, before = draw(st.sampled_from([435, 686, 7])), life.plan
        if before is None:
            life.told.append(("purchased", new, midnight, today, None))
            life.plan, life.pending = new, None
            continue
        action = draw(st.sampled_from(["changed", "cancelled", "pending_change", "pending_change_cancelled"]))
        if action == "changed" and life.pending is None:
            life.told.append((action, new, midnight, today, before))
            life.plan = new
        elif action == "cancelled":
            life.told.append((action, before, midnight, today, None))
            life.plan = life.pending = None
        elif action == "pending_change" and life.pending is None:
            life.pending = (new, float(int(today) + 10))
            life.told.append((action, new, life.pending[1], today, before))
        elif action == "pending_change_cancelled" and life.pending is not None:
            life.told.append((action, before, midnight, today, None))
            life.pending = None
    if life.pending is not None and life.pending[1] <= 0:
        life.plan = life.pending[0]
    return life


OURS = {435: "payg", 686: "teams", 7: "teams", None: "trial"}


@given(life=lives(), shuffle=st.randoms(use_true_random=False))
@settings(max_examples=500, deadline=None, derandomize=True)
def test_any_order_and_repetition_is_read_as_the_same_purchase(life: Life, shuffle: Any) -> None:
    start = datetime(2026, 11, 22, tzinfo=UTC)
    told = [
        history.Told(
            delivery=f"d{n}",
            action=action,
            effective_at=start + timedelta(days=effective),
            plan="trial" if action == "cancelled" else OURS[plan],
            plan_before=None if before is None else OURS[before],
            made_at=start + timedelta(days=made, seconds=n),
            received_at=start,
            months_from=start,
        )
        for n, (action, plan, effective, made, before) in enumerate(life.told)
    ]
    told += [one for one in told if shuffle.random() < 0.3]
    shuffle.shuffle(told)
    standing = history.standing_at(told, start)
    assert (standing.plan if standing else "trial") == OURS[life.plan]


@given(life=lives(), shuffle=st.randoms(use_true_random=False))
@settings(EXAMPLES, max_examples=15)
def test_a_customer_ends_on_the_right_plan_whatever_order_github_delivers_in(
    web: FlaskClient, life: Life, shuffle: Any
) -> None:
    jane, now = customer(), day(0)
    org = Account(10_000 + jane.id, one("SELECT email FROM customers WHERE id = %(id)s", id=jane.id))
    deliveries = []
    for n, (action, bought, effective, made, before) in enumerate(life.told):
        sent = org.says(action, bought, now + timedelta(days=effective), before=before)
        deliveries.append((made_id(now + timedelta(days=made, seconds=n)), sent))
    deliveries += [one for one in deliveries if shuffle.random() < 0.3]
    shuffle.shuffle(deliveries)
    for delivery, sent in deliveries:
        assert post(web, sent, delivery=delivery).status_code == 202
        if shuffle.random() < 0.5:
            drain()
    drain()
    assert plan(jane) == OURS[life.plan]
    assert count("customers") == one("SELECT count(DISTINCT customer_id) FROM marketplace_accounts")


# nobody pays twice


def test_teams_of_the_marketplace_has_its_fixes_a_month_and_nothing_is_charged_beyond(
    web: FlaskClient, mailbox: Mailbox, stripe: StripeSandbox, configure: Callable[..., None]
) -> None:
    configure(TEAMS_INCLUDED_FIXES="5")
    jane = with_card(web)
    org = Account(5, one("SELECT email FROM customers"))
    deliver(web, org.says("purchased", 686))
    mailbox.clear()
    seen = status(jane)
    assert (seen.plan, seen.subscription_status, seen.included, seen.remaining) == ("teams", "active", 5, 5)
    assert seen.period_end == day(20) or abs(seen.period_end - day(20)) < timedelta(seconds=60)
    for issue in range(1, 8):
        deploy(jane, issue)
        drain()
    assert outcomes(jane) == ["included"] * 5 + ["over_limit"] * 2
    seen = status(jane)
    assert (seen.current_usage, seen.remaining, seen.overage, seen.can_use_service) == (5, 0, 0, False)
    subjects = [mail.subject for mail in mailbox.mails()]
    assert (
        subjects
        == ["4 of 5 fixes of this month are used", "5 of 5 fixes of this month are used"]
        + ["A fix was deployed over what your plan includes"] * 2
    )
    assert (count("charges"), taken(stripe, jane), stripe.objects("invoiceitem")) == (0, 0, [])
    assert audit(with_stripe=True)["ok"]


def test_payg_that_becomes_the_marketplaces_is_charged_until_then_and_no_longer(
    web: FlaskClient, stripe: StripeSandbox
) -> None:
    jane = customer("payg", "pm_card_visa")
    deploy(jane, 1)
    drain()
    org = Account(5, one("SELECT email FROM customers"))
    deliver(web, org.says("purchased", 435, day(0)))
    deploy(jane, 2)
    drain()
    assert (charge_states(jane), taken(stripe, jane)) == (["succeeded"], 1500)
    assert outcomes(jane) == ["charge", "included"]


def test_teams_with_us_ends_when_it_is_bought_on_the_marketplace(
    web: FlaskClient, stripe: StripeSandbox, price: str, mailbox: Mailbox
) -> None:
    jane = on_teams(web)
    mailbox.clear()
    org = Account(5, one("SELECT email FROM customers"))
    deliver(web, org.says("purchased", 686))
    [subscription] = stripe.objects("subscription")
    assert subscription["status"] == "canceled"
    assert one("SELECT ended_at IS NOT NULL FROM subscriptions") is True
    seen = status(jane)
    assert (seen.plan, seen.subscription_status, seen.can_use_service) == ("teams", "active", True)
    assert [tuple(row) for row in sql("SELECT plan FROM plan_changes ORDER BY id")] == [("teams",), ("teams",)]
    assert paid(stripe, jane) == 49900  # the month that was paid; the rest of it is credited
    assert sum(i["total"] for i in stripe.objects("invoice")) < 49900
    told = mailbox.mail()
    assert "billed twice" in " ".join(told.text.split())
    assert audit(with_stripe=True)["ok"]


def test_who_pays_on_the_marketplace_cannot_buy_or_change_a_plan_here(
    web: FlaskClient, stripe: StripeSandbox, price: str
) -> None:
    jane = with_card(web)
    org = Account(5, one("SELECT email FROM customers"))
    deliver(web, org.says("purchased", 435))
    for wanted in ("teams", "payg"):
        answer = choose(web, jane, wanted)
        assert answer.status_code == 409
        assert "Marketplace" in answer.json["detail"]
    assert web.delete("/api/v1/subscription", headers=jane.headers).status_code == 409
    page = web.post("/api/v1/checkout", json={"purpose": "teams"}, headers=jane.headers)
    assert outcome(web, jane, page)["state"] == "dead"
    with transaction() as db:
        asked = enqueue(db, StartTeams(customer_id=jane.id, request="asked for a moment before"))
    drain()
    assert show(asked.job_id)["state"] == "dead"
    assert stripe.objects("subscription") == []
    deliver(web, org.says("cancelled", 435, day(0)))
    assert status(jane).subscription_status == "active"  # they have a card
    assert outcome(web, jane, choose(web, jane, "teams"))["state"] == "succeeded"


def test_a_card_on_the_marketplace_begins_nothing(web: FlaskClient, stripe: StripeSandbox) -> None:
    org = account()
    deliver(web, org.says("purchased", 686))
    jane = the_customer(org)
    sql("UPDATE customers SET wanted_plan = 'payg'")
    key = one("SELECT count(*) FROM api_keys")
    assert key == 1
    from app.contracts.billing import AttachPaymentMethod

    with transaction() as db:
        enqueue(db, AttachPaymentMethod(customer_id=jane.id, payment_method="pm_card_visa", request="r"))
    drain()
    assert plan(jane) == "teams"
    assert count("plan_changes") == 1


def test_a_page_of_checkout_completed_after_a_purchase_is_undone(
    web: FlaskClient, stripe: StripeSandbox, price: str
) -> None:
    jane = with_card(web)
    page = open_page(web, jane, "teams")
    deliver(web, Account(5, one("SELECT email FROM customers")).says("purchased", 686))
    assert web.get(give_card_at(page["url"], "visa")).status_code == 200
    drain()
    assert [s["status"] for s in stripe.objects("subscription")] == ["canceled"]
    assert (plan(jane), status(jane).subscription_status) == ("teams", "active")
    assert count("plan_changes") == 1


def test_teams_with_us_goes_on_beside_a_free_plan_of_the_marketplace(
    web: FlaskClient, stripe: StripeSandbox, price: str
) -> None:
    jane = on_teams(web)
    org = Account(5, one("SELECT email FROM customers"))
    deliver(web, org.says("purchased", "Free"))
    deliver(web, org.says("cancelled", "Free", day(0)))
    assert [s["status"] for s in stripe.objects("subscription")] == ["active"]
    assert plan(jane) == "teams"


@pytest.mark.parametrize(
    ("paid_from", "at", "start", "end"),
    [
        ("2026-11-05", "2026-11-22", "2026-11-05", "2026-12-05"),
        ("2026-12-05", "2026-11-22", "2026-11-05", "2026-12-05"),
        ("2026-12-05", "2026-12-05", "2026-12-05", "2027-01-05"),
        ("2027-10-05", "2026-12-04", "2026-11-05", "2026-12-05"),
        ("2026-01-31", "2026-02-27", "2026-01-31", "2026-02-28"),
        ("2026-01-31", "2026-02-28", "2026-02-28", "2026-03-31"),
        ("2026-01-31", "2028-02-29", "2028-02-29", "2028-03-31"),
        ("2026-01-31", "2026-12-31", "2026-12-31", "2027-01-31"),
    ],
)
def test_a_month_of_the_marketplace_begins_on_the_day_that_github_bills(
    paid_from: str, at: str, start: str, end: str
) -> None:
    jane = customer()
    sql(
        "INSERT INTO plan_changes (customer_id, plan, effective_at, reason, marketplace_from)"
        " VALUES (%(id)s, 'teams', '2000-01-01', 'test', %(paid)s)",
        id=jane.id,
        paid=f"{paid_from}T00:00:00Z",
    )
    with transaction() as db:
        found = period_at(db, jane.id, "teams", datetime.fromisoformat(f"{at}T00:00:00+00:00"))
    times = [datetime.fromisoformat(f"{each}T00:00:00+00:00") for each in (start, end)]
    assert found == Period(times[0], times[1])


def test_the_setting_says_what_is_wrong_with_it(configure: Callable[..., None]) -> None:
    from app.settings import SettingsError, get_settings

    configure(MARKETPLACE_PLANS=" 435 = teams , Basic=Plan=payg,")
    assert get_settings().marketplace_plans == {"435": "teams", "basic=plan": "payg"}
    for bad in ("435", "435=gold", "=teams"):
        configure(MARKETPLACE_PLANS=bad)
        with pytest.raises(SettingsError, match="MARKETPLACE_PLANS"):
            get_settings()
    assert "MARKETPLACE_PLANS" in (ROOT / "README.md").read_text()
