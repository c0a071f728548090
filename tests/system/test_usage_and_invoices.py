"""A customer reads what their fixes came to and what was billed, by request, on the page and by mail."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.utils import parsedate_to_datetime
from html import unescape
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.contracts.billing import SendNotice
from app.customers.api_keys import ApiKey
from app.db import transaction
from app.ledger.enqueue import enqueue
from app.mail.links import account_url
from tests.conftest import closed_port
from tests.system.scene import Mailbox, drain, job, one, sql, time_passes
from tests.system.test_api_keys import key_of

COMMIT = "4be3b1bb0c5f1a3a8bd3ae4ba6c5ef3a8e0d1c2b"


@pytest.fixture
def jane() -> ApiKey:
    return key_of("jane@example.com")


def owner(key: ApiKey) -> int:
    return int(one("SELECT customer_id FROM api_keys WHERE id = %(id)s", id=key.id))


def fixed(
    key: ApiKey, at: str, outcome: str = "included", cents: int = 0, *, repo: str = "acme/shop", issue: int = 42
) -> int:
    """A fix that was counted."""
    plan = {"charge": "payg", "overage": "teams"}.get(outcome, "trial")
    result = str(uuid4())
    sql(
        "INSERT INTO phase_results (id, customer_id, phase, status, repo, issue_number, commit_sha, data, digest,"
        f" received_at) VALUES (%(id)s, %(customer)s, 'mitigation', 'success', %(repo)s, %(issue)s, '{COMMIT}', '{{}}',"
        " %(digest)s, %(at)s)",
        id=result,
        digest=result,
        customer=owner(key),
        repo=repo,
        issue=issue,
        at=at,
    )
    made = one(
        "INSERT INTO fixes (customer_id, phase_result_id, ref, plan, period_start, outcome, amount_cents, accepted_at)"
        " VALUES (%(customer)s, %(result)s::uuid, %(result)s::text, %(plan)s, %(at)s, %(outcome)s, %(cents)s, %(at)s)"
        " RETURNING id",
        customer=owner(key),
        result=result,
        plan=plan,
        outcome=outcome,
        cents=cents,
        at=at,
    )
    return int(made)


def charged(key: ApiKey, at: str, state: str = "succeeded", **changes: Any) -> str:
    """A charge for a fix, as `/invoices` names it."""
    values = {"fix": fixed(key, at, "charge", 1500, **changes), "customer": owner(key), "state": state, "at": at}
    charge = one(
        "INSERT INTO charges (fix_id, customer_id, amount_cents, state, created_at)"
        " VALUES (%(fix)s, %(customer)s, 1500, %(state)s, %(at)s) RETURNING id",
        **values,
    )
    entry(charge, "accepted")
    if state == "succeeded":
        entry(charge, "succeeded", 1500)
    return f"charge_{charge}"


def entry(charge: int, kind: str, cents: int = 0, stripe_id: str | None = None) -> None:
    sql(
        "INSERT INTO charge_entries (charge_id, kind, amount_cents, stripe_id)"
        " VALUES (%(charge)s, %(kind)s, %(cents)s, %(stripe_id)s)",
        charge=charge,
        kind=kind,
        cents=cents,
        stripe_id=stripe_id,
    )


def invoiced(key: ApiKey, invoice: str, at: str, **changes: Any) -> str:
    values = {"number": "ACME-1", "status": "paid", "total": 49900, "paid": 49900, "url": "https://i.example/1"}
    sql(
        "INSERT INTO invoices (id, customer_id, number, status, currency, total_cents, paid_cents, hosted_url,"
        " created_at) VALUES (%(id)s, %(customer)s, %(number)s, %(status)s, 'usd', %(total)s, %(paid)s, %(url)s,"
        " %(at)s)",
        **values | {"id": invoice, "customer": owner(key), "at": at} | changes,
    )
    return invoice


def ask(web: FlaskClient, key: ApiKey, path: str, **query: Any) -> TestResponse:
    return web.get(f"/api/v1/{path}", query_string=query, headers={"X-API-Key": key.secret})


def read(web: FlaskClient, key: ApiKey, path: str, **query: Any) -> Any:
    answer = ask(web, key, path, **query)
    assert answer.status_code == 200, answer.text
    return answer.json


def today(days: int = 0) -> datetime:
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + timedelta(days=days)


# Usage


def test_usage_is_the_fixes_of_each_day_by_outcome_with_what_they_cost(web: FlaskClient, jane: ApiKey) -> None:
    fixed(jane, "2026-03-01T00:00:00Z")
    fixed(jane, "2026-03-01T23:59:59.999999Z", "over_limit")
    fixed(jane, "2026-03-02T00:00:00Z", "charge", 1500)
    fixed(jane, "2026-03-02T12:00:00Z", "charge", 1500)
    fixed(jane, "2026-03-04T12:00:00Z", "overage", 800)
    said = read(web, jane, "usage", **{"from": "2026-03-01", "to": "2026-03-04"})
    nothing = {"fixes": 0, "included": 0, "over_limit": 0, "charged": 0, "overage": 0, "amount_cents": 0}
    assert said == {
        "from": "2026-03-01T00:00:00Z",
        "to": "2026-03-05T00:00:00Z",
        "days": [
            nothing | {"day": "2026-03-01", "fixes": 2, "included": 1, "over_limit": 1},
            nothing | {"day": "2026-03-02", "fixes": 2, "charged": 2, "amount_cents": 3000},
            nothing | {"day": "2026-03-04", "fixes": 1, "overage": 1, "amount_cents": 800},
        ],
        "totals": {"fixes": 5, "included": 1, "over_limit": 1, "charged": 2, "overage": 1, "amount_cents": 3800},
    }


def test_a_fix_belongs_to_its_day_of_utc_and_the_end_of_a_span_is_not_in_it(web: FlaskClient, jane: ApiKey) -> None:
    fixed(jane, "2026-03-02T01:00:00+02:00")  # the first of March, in UTC
    fixed(jane, "2026-03-02T10:00:00Z")
    to_ten = read(web, jane, "usage", **{"from": "2026-03-01T23:00:00Z", "to": "2026-03-02T10:00:00Z"})
    assert [day["day"] for day in to_ten["days"]] == ["2026-03-01"]
    there = read(web, jane, "usage", **{"from": "2026-03-02T01:00:01+02:00", "to": "2026-03-02T10:00:01"})
    assert [day["day"] for day in there["days"]] == ["2026-03-02"]


def test_without_a_span_usage_is_that_of_the_last_30_days(web: FlaskClient, jane: ApiKey) -> None:
    for days in (-30, -29, 0):
        fixed(jane, today(days).isoformat())
    said = read(web, jane, "usage")
    assert said["totals"]["fixes"] == 2
    assert datetime.fromisoformat(said["from"]) == today(-29)
    assert datetime.fromisoformat(said["to"]) == today(1)
    assert read(web, jane, "usage", **{"from": today(-30).date().isoformat()})["totals"]["fixes"] == 3
    assert read(web, jane, "usage", to=today(-30).date().isoformat())["totals"]["fixes"] == 1


NO_DAY = "must be a day (2026-11-22) or a time (2026-11-22T10:00:00Z)"
TOO_FAR = "must be from 2000 on and before 2100"


@pytest.mark.parametrize(
    ("query", "loc", "reason"),
    [
        ({"from": "yesterday"}, ["from"], NO_DAY),
        ({"from": ""}, ["from"], NO_DAY),
        ({"to": "1772323200"}, ["to"], NO_DAY),
        ({"to": "2026-02-30"}, ["to"], NO_DAY),
        ({"to": "2026-03-01T00:00:00 00:00"}, ["to"], NO_DAY),
        ({"from": "2026-03-02", "to": "2026-03-01"}, [], "`from` must be before `to`"),
        ({"from": "2026-03-01T00:00:00Z", "to": "2026-03-01T00:00:00Z"}, [], "`from` must be before `to`"),
        ({"from": "2024-01-01", "to": "2025-01-01"}, [], "from `from` to `to` must be 366 days at most"),
        ({"to": "0001-01-01"}, ["to"], TOO_FAR),
        ({"to": "9999-12-31"}, ["to"], TOO_FAR),
        ({"from": "0001-01-01T00:00:00+14:00"}, ["from"], TOO_FAR),
        ({"to": "\x00"}, ["to"], NO_DAY),
    ],
)
def test_a_span_that_is_none_is_refused(
    web: FlaskClient, jane: ApiKey, query: dict[str, str], loc: list[str], reason: str
) -> None:
    answer = ask(web, jane, "usage", **query)
    assert answer.status_code == 422, answer.text
    assert answer.json["errors"] == [{"loc": loc, "msg": reason}]


def test_a_whole_leap_year_can_be_asked_for(web: FlaskClient, jane: ApiKey) -> None:
    assert read(web, jane, "usage", **{"from": "2024-01-01", "to": "2024-12-31"})["totals"]["fixes"] == 0


# Invoices and charges


def test_invoices_and_charges_are_listed_the_newest_first(web: FlaskClient, jane: ApiKey) -> None:
    charge = charged(jane, "2026-03-01T10:00:00Z")
    invoiced(jane, "in_1", "2026-03-02T10:00:00Z")
    invoiced(jane, "in_2", "2026-04-02T10:00:00Z", number=None, status="draft", paid=0, url=None)
    assert read(web, jane, "invoices") == [
        {
            "type": "invoice",
            "id": "in_2",
            "status": "draft",
            "amount_cents": 49900,
            "paid_cents": 0,
            "refunded_cents": 0,
            "currency": "usd",
            "description": "Invoice, not numbered yet",
            "created_at": "2026-04-02T10:00:00Z",
            "hosted_url": None,
            "fix": None,
        },
        {
            "type": "invoice",
            "id": "in_1",
            "status": "paid",
            "amount_cents": 49900,
            "paid_cents": 49900,
            "refunded_cents": 0,
            "currency": "usd",
            "description": "Invoice ACME-1",
            "created_at": "2026-03-02T10:00:00Z",
            "hosted_url": "https://i.example/1",
            "fix": None,
        },
        {
            "type": "charge",
            "id": charge,
            "status": "succeeded",
            "amount_cents": 1500,
            "paid_cents": 1500,
            "refunded_cents": 0,
            "currency": "usd",
            "description": "Fix of acme/shop#42",
            "created_at": "2026-03-01T10:00:00Z",
            "hosted_url": None,
            "fix": {"repo": "acme/shop", "issue_number": 42, "commit_sha": COMMIT},
        },
    ]


def test_what_was_refunded_of_a_charge_is_the_sum_of_its_entries(web: FlaskClient, jane: ApiKey) -> None:
    charge = int(charged(jane, "2026-03-01T10:00:00Z").removeprefix("charge_"))
    entry(charge, "refunded", -500, "re_1")
    entry(charge, "refunded", -300, "re_2")
    entry(charge, "refund_failed", 300, "re_2")
    [bill] = read(web, jane, "invoices")
    assert (bill["amount_cents"], bill["paid_cents"], bill["refunded_cents"]) == (1500, 1500, 500)


@pytest.mark.parametrize("state", ["pending", "declined", "requires_action", "uncollectible"])
def test_a_charge_that_was_not_paid_says_so(web: FlaskClient, jane: ApiKey, state: str) -> None:
    charged(jane, "2026-03-01T10:00:00Z", state)
    [bill] = read(web, jane, "invoices")
    assert (bill["status"], bill["paid_cents"], bill["refunded_cents"]) == (state, 0, 0)


def test_a_long_list_comes_in_pages_that_miss_and_repeat_nothing(web: FlaskClient, jane: ApiKey) -> None:
    at_once = "2026-03-01T10:00:00Z"
    made = [charged(jane, at_once) for _ in range(3)] + [invoiced(jane, f"in_{n}", at_once) for n in range(3)]
    made += [charged(jane, f"2026-03-0{n}T10:00:00Z") for n in range(2, 7)]
    seen: list[str] = []
    page = read(web, jane, "invoices", limit=4)
    while page:
        assert len(page) <= 4
        seen += [bill["id"] for bill in page]
        page = read(web, jane, "invoices", limit=4, before=seen[-1])
    assert sorted(seen) == sorted(made)
    assert seen == [bill["id"] for bill in read(web, jane, "invoices")]
    assert seen[:5] == made[-1:-6:-1]


@pytest.mark.parametrize(
    "query",
    [{"limit": 0}, {"limit": 101}, {"limit": "many"}, {"before": "in_none"}, {"before": ""}, {"before": "\x00"}],
)
def test_a_page_that_is_none_is_refused(web: FlaskClient, jane: ApiKey, query: dict[str, Any]) -> None:
    invoiced(jane, "in_1", "2026-03-02T10:00:00Z")
    answer = ask(web, jane, "invoices", **query)
    assert answer.status_code == 422
    assert [error["loc"] for error in answer.json["errors"]] == [list(query)]


# Whose they are


def test_nobody_reads_of_another_customer(web: FlaskClient, jane: ApiKey) -> None:
    john = key_of("john@example.com")
    charged(jane, today().isoformat())
    invoiced(jane, "in_1", today().isoformat())
    assert read(web, john, "usage")["totals"]["fixes"] == 0
    assert read(web, john, "invoices") == []
    answer = ask(web, john, "invoices", before="in_1")
    assert answer.status_code == 422
    assert [error["loc"] for error in answer.json["errors"]] == [["before"]]
    assert len(read(web, jane, "invoices")) == 2


@pytest.mark.parametrize("path", ["usage", "invoices"])
def test_without_a_key_nothing_is_read(web: FlaskClient, path: str) -> None:
    assert web.get(f"/api/v1/{path}").status_code == 401


# The account page


def account(web: FlaskClient, key: ApiKey) -> str:
    """The account page as its reader sees it, on one line."""
    link = urlsplit(account_url(owner(key), datetime.now(UTC)))
    answer = web.get(f"{link.path}?{link.query}")
    assert answer.status_code == 200
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", answer.text)).split())


def test_the_account_page_of_a_new_customer_shows_that_nothing_was_billed(web: FlaskClient, jane: ApiKey) -> None:
    page = account(web, jane)
    assert "Plan Trial Fixes used 0 of 5 Fixes left 5 Service ready" in page
    assert "You have no card with us." in page
    assert "Fixes of the last 30 days None. Invoices and charges None." in page
    assert f"Key {jane.id} since" in page


def test_the_account_page_shows_fixes_cards_invoices_and_charges(web: FlaskClient, jane: ApiKey) -> None:
    day = today().date().isoformat()
    for issue in range(20):
        fixed(jane, f"{day}T00:00:00Z", "over_limit" if issue == 19 else "included")
    charge = charged(jane, f"{day}T00:00:01Z", repo="a/<b>")
    entry(int(charge.removeprefix("charge_")), "refunded", -500, "re_1")
    charged(jane, f"{day}T00:00:02Z", "uncollectible")
    invoiced(jane, "in_1", f"{day}T00:00:03Z")
    sql(
        "INSERT INTO payment_methods (id, customer_id, brand, last4, exp_month, exp_year)"
        " VALUES ('pm_1', %(id)s, 'visa', '4242', 4, 2031)",
        id=owner(jane),
    )
    sql("UPDATE customers SET default_payment_method = 'pm_1' WHERE id = %(id)s", id=owner(jane))
    page = account(web, jane)
    assert "visa ending in 4242 until 04/2031; the one that is charged" in page
    assert f"{day} 22, of which 1 over the trial's limit $30.00 Together 22 $30.00" in page
    assert f"{day} Invoice ACME-1 $499.00, paid {day} Fix of acme/shop#42 $15.00, unpaid" in page
    assert f"{day} Fix of a/<b>#42 $15.00, paid, $5.00 refunded" in page


# Notices


def tell(of: ApiKey, kind: str, ref: str, **values: Any) -> None:
    with transaction() as db:
        enqueue(db, SendNotice(customer_id=owner(of), kind=kind, ref=ref, values=values))


def test_a_notice_is_mailed_once_however_often_it_is_asked_for(mailbox: Mailbox, jane: ApiKey) -> None:
    for _ in range(2):
        tell(jane, "refunded", "charge:7:refund:1", amount_cents=1500, repo="acme/shop", issue_number=42)
        drain()
    mail = mailbox.mail("jane@example.com")
    assert mail.subject == "We have refunded $15.00"
    assert mail.message_id.startswith(f"<refunded.{owner(jane)}.charge.7.refund.1@")
    assert mail.link.startswith("/account?token=")


def test_a_notice_that_finds_no_mail_server_comes_later_and_is_dated_as_it_came_to_be(
    mailbox: Mailbox, jane: ApiKey, configure: Callable[..., None]
) -> None:
    tell(jane, "plan_changed", "request:1", plan="payg", effective_at="2026-11-22T21:00:00Z")
    configure(MAIL_URL=f"smtp://127.0.0.1:{closed_port()}")
    drain()
    assert mailbox.mails() == []
    configure(MAIL_URL=None)
    time_passes()
    drain()
    mail = mailbox.mail("jane@example.com")
    assert "your plan is pay as you go" in " ".join(mail.text.split())
    made = one("SELECT date_trunc('second', created_at) FROM jobs WHERE name = 'send_notice'")
    assert parsedate_to_datetime(str(message_from_bytes(mail.raw)["Date"])) == made


@pytest.mark.parametrize(("kind", "values"), [("made_up", {}), ("refunded", {"amount_cents": "much"})])
def test_a_notice_that_cannot_be_is_dead_at_once_and_nothing_is_mailed(
    mailbox: Mailbox, jane: ApiKey, kind: str, values: dict[str, Any]
) -> None:
    tell(jane, kind, "x", **values)
    drain()
    assert (job("send_notice")["state"], job("send_notice")["error"]["kind"]) == ("dead", "permanent")
    assert mailbox.mails() == []
