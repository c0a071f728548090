"""The same signup again: twice, at once, in other letters, with a key or without (failures.md 34)."""

from functools import partial
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.customers import accounts
from app.db import transaction
from app.ops.audit import audit
from app.sandbox.stripe import StripeSandbox
from tests.system.scene import (
    JANE,
    Mailbox,
    Site,
    at_once,
    count,
    drain,
    drain_to_the_end,
    one,
    progress,
    rows_of_all_tables,
    sign_up,
    sql,
)


def one_of_each(stripe: StripeSandbox, mailbox: Mailbox) -> None:
    """One customer, one Stripe customer, one key, one mail with it."""
    assert (count("customers"), count("api_keys"), len(stripe.objects("customer"))) == (1, 1, 1)
    assert len([mail for mail in mailbox.mails() if mail.keys]) == 1
    assert audit(with_stripe=True)["findings"] == []


@pytest.mark.parametrize(
    "second", ["jane@example.com", "JANE@example.com", "jane@EXAMPLE.COM", "  jane@example.com ", "Jane@Example.Com"]
)
def test_an_address_is_one_customer_whatever_its_case(
    web: FlaskClient, stripe: StripeSandbox, mailbox: Mailbox, second: str
) -> None:
    sign_up(web)
    drain()
    sign_up(web, email=second)
    drain()
    one_of_each(stripe, mailbox)


def test_two_signups_before_any_worker_runs_make_one_customer(
    web: FlaskClient, stripe: StripeSandbox, mailbox: Mailbox
) -> None:
    answers = [sign_up(web), sign_up(web, email="JANE@EXAMPLE.COM")]
    drain()
    assert [progress(web, answer)["status"] for answer in answers] == ["provisioned", "provisioned"]
    one_of_each(stripe, mailbox)


def test_signups_at_the_same_instant_with_workers_at_the_same_instant_make_one_customer(
    application: Flask, stripe: StripeSandbox, mailbox: Mailbox
) -> None:
    spellings = ["jane@example.com", "JANE@example.com", "jane@EXAMPLE.com", "Jane@example.com"]
    answers = at_once(*(partial(sign_up, application.test_client(), email=email) for email in spellings * 2))
    at_once(*[drain] * 4)
    drain_to_the_end()
    web = application.test_client()
    assert {progress(web, answer)["status"] for answer in answers} == {"provisioned"}
    one_of_each(stripe, mailbox)


def test_two_workers_that_create_the_same_customer_at_once_create_one(stripe: StripeSandbox) -> None:
    def create() -> int:
        with transaction() as db:
            return accounts.create(db, email="Jane@example.com", name="Jane", wanted_plan="trial", source="direct")

    for _ in range(20):
        sql("TRUNCATE customers CASCADE")
        assert len(set(at_once(create, create, create))) == 1
        assert count("customers") == 1


def test_a_change_of_address_in_between_leaves_both_addresses_with_one_customer(
    web: FlaskClient, stripe: StripeSandbox, mailbox: Mailbox
) -> None:
    sign_up(web)
    drain()
    customer = one("SELECT id FROM customers")
    sql("UPDATE customers SET email = 'new@example.com'")
    sql("INSERT INTO customer_addresses (address, customer_id) VALUES ('new@example.com', %(id)s)", id=customer)
    for address in ("jane@example.com", "New@Example.com"):
        sign_up(web, email=address)
    drain()
    one_of_each(stripe, mailbox)
    assert len(mailbox.mails("new@example.com")) == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [("jane@straße.example", "jane@strasse.example"), ("weiß@example.com", "weiss@example.com")],
)
def test_addresses_that_differ_in_more_than_case_are_two_customers(
    web: FlaskClient, stripe: StripeSandbox, mailbox: Mailbox, first: str, second: str
) -> None:
    sign_up(web, email=first)
    sign_up(web, email=second)
    drain()
    assert count("customers") == 2
    assert len(mailbox.mails()) == 2


# A known address looks like any other from outside, and its owner hears of it


def shape(value: Any) -> Any:
    """The form of an answer: its ids and times by their type only."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    if isinstance(value, str):
        try:
            UUID(value.rsplit("/")[-1])
        except ValueError:
            return "time" if value[:2] == "20" and "T" in value else value
        return "id"
    return value


def test_a_signup_with_a_known_address_looks_and_ends_like_any_other(
    web: FlaskClient, stripe: StripeSandbox, mailbox: Mailbox
) -> None:
    def whole_story(**body: str) -> list[Any]:
        answer = sign_up(web, **body)
        story = [answer.status_code, sorted(answer.headers.keys()), shape(answer.json), shape(progress(web, answer))]
        drain()
        return [*story, shape(progress(web, answer))]

    unknown = whole_story()
    known = whole_story(name="A Stranger")
    assert known == unknown
    assert known[-1]["status"] == "provisioned"
    one_of_each(stripe, mailbox)


def test_the_owner_of_a_known_address_gets_a_sign_in_mail_without_a_key(web: FlaskClient, mailbox: Mailbox) -> None:
    sign_up(web)
    drain()
    welcome = mailbox.mail()
    mailbox.clear()
    sign_up(web, name="Buy Pills At Evil", plan="teams")
    drain()
    mail = mailbox.mail("jane@example.com")
    assert mail.subject != welcome.subject
    assert mail.keys == set()
    assert "Evil" not in mail.raw.decode()
    assert web.get(mail.link).status_code == 200
    assert sql("SELECT name, wanted_plan FROM customers") == [("Jane Doe", "trial")]
    assert web.get("/api/v1/billing/status", headers={"X-API-Key": welcome.key}).status_code == 200


# Idempotency-Key


def test_the_same_key_and_body_answer_with_the_first_signup(
    web: FlaskClient, stripe: StripeSandbox, mailbox: Mailbox
) -> None:
    first = sign_up(web, key="abc")
    before = rows_of_all_tables()
    second = sign_up(web, key="abc")
    assert (first.json["duplicate"], second.json["duplicate"]) == (False, True)
    assert second.status_code == 202
    assert second.json | {"duplicate": False} == first.json
    assert second.headers["Location"] == first.headers["Location"]
    assert rows_of_all_tables() == before
    drain()
    third = sign_up(web, key="abc")
    assert (third.json["status"], third.json["duplicate"]) == ("provisioned", True)
    one_of_each(stripe, mailbox)
    assert len(mailbox.mails()) == 1


@pytest.mark.parametrize("change", [{"name": "Other"}, {"email": "john@example.com"}, {"plan": "teams"}])
def test_the_same_key_with_another_body_is_a_conflict(web: FlaskClient, change: dict[str, str]) -> None:
    sign_up(web, key="abc")
    before = rows_of_all_tables()
    answer = sign_up(web, key="abc", **change)
    assert answer.status_code == 409
    assert answer.content_type == "application/problem+json"
    assert "Idempotency-Key" in answer.json["detail"]
    assert rows_of_all_tables() == before


def test_the_same_key_twenty_times_at_once_is_one_signup(site: Site, stripe: StripeSandbox, mailbox: Mailbox) -> None:
    answers = at_once(*[partial(site.post, "/api/v1/customers", JANE, Idempotency_Key="abc")] * 20)
    assert {answer.status for answer in answers} == {202}
    assert len({answer.json["signup_id"] for answer in answers}) == 1
    assert sorted(answer.json["duplicate"] for answer in answers) == [False] + [True] * 19
    assert count("signups") == 1
    drain()
    one_of_each(stripe, mailbox)


def test_without_a_key_a_second_signup_is_no_duplicate(web: FlaskClient) -> None:
    first, second = sign_up(web), sign_up(web)
    assert (first.json["duplicate"], second.json["duplicate"]) == (False, False)
    assert first.json["signup_id"] != second.json["signup_id"]


@pytest.mark.parametrize("key", ["x" * 256, "", "tab\there", "\x7f"])
def test_a_key_that_cannot_be_kept_is_refused(web: FlaskClient, key: str) -> None:
    answer = sign_up(web, key=key)
    assert answer.status_code == 400
    assert "Idempotency-Key" in answer.json["detail"]
    assert count("signups") == 0


def test_a_key_of_255_characters_is_kept(web: FlaskClient) -> None:
    assert sign_up(web, key="x" * 255).status_code == 202
    assert sign_up(web, key="x" * 255).json["duplicate"] is True


# Addresses that are not taken


@pytest.mark.parametrize("email", ["jane@mailinator.com", "jane@sub.mailinator.com", "jane@MAILINATOR.com"])
def test_a_disposable_address_is_refused_and_told_why(web: FlaskClient, email: str) -> None:
    answer = sign_up(web, email=email)
    assert answer.status_code == 422
    [error] = answer.json["errors"]
    assert error["loc"] == ["email"]
    assert "disposable" in error["msg"]
    assert count("signups") == 0
