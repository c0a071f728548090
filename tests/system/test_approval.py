"""AUTO_PROVISION=false: signups wait until ops let them through or turn them down (law 12, failures.md 38)."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from typer.testing import CliRunner, Result

from app.customers import signups
from app.db import transaction
from app.ops.audit import audit
from app.ops.cli import cli
from app.sandbox.stripe import StripeSandbox
from tests.system.scene import (
    Mailbox,
    at_once,
    count,
    drain,
    drain_to_the_end,
    mend,
    progress,
    sign_up,
    spoil,
    sql,
    states,
    sweep,
    time_passes,
)


@pytest.fixture
def manual(configure: Callable[..., None]) -> None:
    configure(AUTO_PROVISION="false")


def tallyhook(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def on_record() -> list[tuple[Any, ...]]:
    """What ops did to signups."""
    return [
        tuple(row)
        for row in sql(
            "SELECT action, subject, reason FROM operator_actions WHERE subject LIKE 'signup:%%' ORDER BY id"
        )
    ]


pytestmark = pytest.mark.usefixtures("manual")


def test_a_signup_waits_for_approval_and_nothing_is_made(
    web: FlaskClient, stripe: StripeSandbox, mailbox: Mailbox
) -> None:
    answer = sign_up(web)
    assert answer.status_code == 202
    drain()
    seen = progress(web, answer)
    assert seen["status"] == "awaiting_approval"
    assert states(seen)["create_customer"] == "held"
    assert (count("customers"), stripe.requests(), mailbox.mails()) == (0, [], [])
    page = web.get(answer.json["status_url"].replace("/api/v1/signups", "/signup")).text
    assert "Waiting for approval" in page


def test_what_waits_is_not_tried_again_and_again(web: FlaskClient) -> None:
    sign_up(web)
    for _ in range(5):
        drain()
        time_passes()
    assert sql("SELECT attempt, spared FROM jobs") == [(1, 1)]


def test_an_approved_signup_is_provisioned(web: FlaskClient, mailbox: Mailbox) -> None:
    answer = sign_up(web)
    drain()
    signup_id = answer.json["signup_id"]
    result = tallyhook("signups", "approve", signup_id, "--why", "a friend of the house")
    assert (result.exit_code, result.stdout) == (0, f"{signup_id} approved.\n")
    drain()
    assert progress(web, answer)["status"] == "provisioned"
    assert mailbox.mail().key
    assert on_record() == [("approve", f"signup:{signup_id}", "a friend of the house")]


def test_a_rejected_signup_makes_nothing_and_says_so(web: FlaskClient, stripe: StripeSandbox, mailbox: Mailbox) -> None:
    answer = sign_up(web)
    drain()
    signup_id = answer.json["signup_id"]
    assert tallyhook("signups", "reject", signup_id, "--why", "a bot").exit_code == 0
    drain_to_the_end()
    assert progress(web, answer)["status"] == "rejected"
    assert (count("customers"), stripe.requests(), mailbox.mails()) == (0, [], [])
    assert on_record() == [("reject", f"signup:{signup_id}", "a bot")]
    assert audit(with_stripe=True)["findings"] == []


def test_a_rejection_is_taken_back_by_an_approval(web: FlaskClient, mailbox: Mailbox) -> None:
    answer = sign_up(web)
    drain()
    signup_id = answer.json["signup_id"]
    tallyhook("signups", "reject", signup_id)
    assert tallyhook("signups", "approve", signup_id).exit_code == 0
    drain()
    assert progress(web, answer)["status"] == "provisioned"
    assert mailbox.mail().key
    assert [action for action, _, _ in on_record()] == ["reject", "approve"]


def test_an_approval_holds_whatever_the_switch_says_later(
    web: FlaskClient, stripe: StripeSandbox, mailbox: Mailbox
) -> None:
    answer = sign_up(web)
    drain()
    tallyhook("signups", "approve", answer.json["signup_id"])
    spoil()
    drain()
    assert progress(web, answer)["status"] == "failed"
    mend()
    [[job_id]] = sql("SELECT id FROM jobs")
    tallyhook("jobs", "requeue", str(job_id))
    drain()
    assert progress(web, answer)["status"] == "provisioned"


def test_the_switch_flipped_on_lets_new_ones_through_and_what_waited_runs_once_approved(
    web: FlaskClient, mailbox: Mailbox, configure: Callable[..., None]
) -> None:
    waiting = sign_up(web)
    drain()
    configure(AUTO_PROVISION="true")
    new = sign_up(web, email="john@example.com", name="John Roe")
    sweep()
    drain()
    assert progress(web, new)["status"] == "provisioned"
    tallyhook("signups", "approve", waiting.json["signup_id"])
    drain()
    assert progress(web, waiting)["status"] == "provisioned"
    assert len(mailbox.mails("jane@")) == 1


def test_the_switch_flipped_off_stops_what_has_not_begun_and_not_what_has(
    web: FlaskClient, stripe: StripeSandbox, configure: Callable[..., None]
) -> None:
    configure(AUTO_PROVISION="true")
    begun = sign_up(web)
    stripe.fault("status", operation="POST /v1/customers", status=503)
    drain()
    configure(AUTO_PROVISION="false")
    later = sign_up(web, email="john@example.com")
    drain_to_the_end()
    assert progress(web, begun)["status"] == "provisioned"
    assert progress(web, later)["status"] == "awaiting_approval"


def test_a_known_address_waits_like_any_other(web: FlaskClient, configure: Callable[..., None]) -> None:
    configure(AUTO_PROVISION="true")
    sign_up(web)
    drain()
    configure(AUTO_PROVISION="false")
    again = sign_up(web)
    drain()
    assert progress(web, again)["status"] == "awaiting_approval"


def test_two_operators_at_once_approve_once(application: Flask, mailbox: Mailbox) -> None:
    web = application.test_client()
    answer = sign_up(web)
    drain()

    def approve(actor: str) -> bool:
        try:
            with transaction() as db:
                signups.approve(db, signup_id, actor=actor)
        except signups.NotAwaiting:
            return False
        return True

    signup_id = UUID(answer.json["signup_id"])
    assert sorted(at_once(*(partial(approve, f"operator {n}") for n in range(4)))) == [False, False, False, True]
    drain()
    assert len(mailbox.mails()) == 1
    assert len(on_record()) == 1


def test_what_does_not_wait_is_neither_approved_nor_rejected(web: FlaskClient, configure: Callable[..., None]) -> None:
    configure(AUTO_PROVISION="true")
    answer = sign_up(web)
    drain()
    for command in ("approve", "reject"):
        result = tallyhook("signups", command, answer.json["signup_id"])
        assert result.exit_code == 2
        assert "provisioned, not awaiting approval" in result.stderr
    assert on_record() == []
    assert progress(web, answer)["status"] == "provisioned"


def test_a_requeue_of_everything_cancelled_does_not_overrule_a_rejection(
    web: FlaskClient, stripe: StripeSandbox, configure: Callable[..., None]
) -> None:
    answer = sign_up(web)
    drain()
    tallyhook("signups", "reject", answer.json["signup_id"])
    configure(AUTO_PROVISION="true")
    tallyhook("jobs", "requeue", "--state", "cancelled")
    drain_to_the_end()
    assert progress(web, answer)["status"] == "rejected"
    assert (count("customers"), stripe.requests()) == (0, [])


def test_the_manual_queue_is_listed(web: FlaskClient) -> None:
    answer = sign_up(web, plan="teams", source="early_access")
    drain()
    result = tallyhook("signups", "list", "--json")
    assert result.exit_code == 0
    [listed] = json.loads(result.stdout)
    assert listed.pop("created_at")
    assert listed == {
        "signup_id": answer.json["signup_id"],
        "email": "jane@example.com",
        "name": "Jane Doe",
        "plan": "teams",
        "source": "early_access",
        "status": "awaiting_approval",
    }
    assert json.loads(tallyhook("signups", "list", "--status", "provisioned", "--json").stdout) == []
