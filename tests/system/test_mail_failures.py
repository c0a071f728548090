"""The mail server refuses, hangs, or takes the mail and the worker dies: the same key arrives (failures.md 35)."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from flask.testing import FlaskClient
from typer.testing import CliRunner

from app.ops.audit import audit
from app.ops.cli import cli
from tests.conftest import closed_port, free_port, wait_until
from tests.processes import Process
from tests.system.scene import (
    Mail,
    Mailbox,
    drain,
    drain_to_the_end,
    job,
    one,
    progress,
    sign_up,
    sql,
    sweep,
    time_passes,
)


class PostOffice:
    """A real SMTP server. `replies` are its next answers to a whole message; after them it takes all."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.replies: list[str] = []
        self.accepted = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._controller = Controller(self, hostname="127.0.0.1", port=free_port(), ready_timeout=10)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        reply = self.replies.pop(0) if self.replies else "250 taken"
        if reply.startswith("2"):
            assert isinstance(envelope.original_content, bytes)
            self.mails.append(Mail.read(envelope.original_content))
        self.accepted.set()
        while not self.may_answer.is_set():
            await _a_moment()
        return reply

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self._controller.port}"

    def __enter__(self) -> "PostOffice":
        self._controller.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.may_answer.set()
        self._controller.stop()


async def _a_moment() -> None:
    await asyncio.sleep(0.01)


@pytest.fixture
def post_office() -> Iterator[PostOffice]:
    with PostOffice() as office:
        yield office


def works(web: FlaskClient, key: str) -> bool:
    return web.get("/api/v1/billing/status", headers={"X-API-Key": key}).status_code == 200


def test_a_server_that_is_away_gets_the_same_key_when_it_is_back(
    web: FlaskClient, mailbox: Mailbox, configure: Callable[..., None]
) -> None:
    configure(MAIL_URL=f"smtp://127.0.0.1:{closed_port()}")
    answer = sign_up(web)
    for _ in range(50):
        drain()
        time_passes()
    waiting = job("send_welcome_email")
    assert (waiting["state"], waiting["attempts"]) == ("queued", 0)
    issued = sql("SELECT * FROM api_keys")
    configure(MAIL_URL=None)
    drain_to_the_end()
    assert progress(web, answer)["status"] == "provisioned"
    assert works(web, mailbox.mail().key)
    assert [row.hash for row in sql("SELECT * FROM api_keys")] == [row.hash for row in issued]


@pytest.mark.parametrize("reply", ["421 too busy", "450 mailbox busy", "451 local error", "452 disk full"])
def test_a_server_that_says_later_is_asked_later(
    web: FlaskClient, post_office: PostOffice, configure: Callable[..., None], reply: str
) -> None:
    configure(MAIL_URL=post_office.url)
    post_office.replies = [reply] * 3
    answer = sign_up(web)
    drain_to_the_end()
    assert progress(web, answer)["status"] == "provisioned"
    [mail] = post_office.mails
    assert works(web, mail.key)
    assert job("send_welcome_email")["attempts"] == 1


def test_a_server_that_hangs_is_given_up_and_asked_again(
    web: FlaskClient, mailbox: Mailbox, configure: Callable[..., None]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        configure(MAIL_URL=f"smtp://127.0.0.1:{silent.getsockname()[1]}")
        sign_up(web)
        drain()
    waiting = job("send_welcome_email")
    assert (waiting["state"], waiting["attempts"]) == ("queued", 0)
    configure(MAIL_URL=None)
    drain_to_the_end()
    assert works(web, mailbox.mail().key)


def test_an_address_that_the_server_refuses_for_good_is_dead_with_the_reason_and_mended_by_a_requeue(
    web: FlaskClient, post_office: PostOffice, configure: Callable[..., None]
) -> None:
    configure(MAIL_URL=post_office.url)
    post_office.replies = ["550 no such mailbox jane@example.com"]
    answer = sign_up(web)
    drain()
    assert progress(web, answer)["status"] == "failed"
    dead = job("send_welcome_email")
    assert (dead["state"], dead["error"]["kind"]) == ("dead", "permanent")
    assert "550" in dead["error"]["message"]
    assert "jane@" not in str(dead)
    assert one("SELECT sealed FROM api_keys") is not None
    requeue(dead["id"])
    drain()
    assert progress(web, answer)["status"] == "provisioned"
    [mail] = post_office.mails
    assert works(web, mail.key)


def test_a_worker_that_dies_after_the_mail_was_taken_sends_the_identical_mail_again(
    web: FlaskClient,
    post_office: PostOffice,
    configure: Callable[..., None],
    start_worker: Callable[..., Process],
) -> None:
    configure(MAIL_URL=post_office.url)
    post_office.may_answer.clear()
    answer = sign_up(web)
    worker = start_worker(MAIL_URL=post_office.url)
    wait_until(post_office.accepted.is_set, what="the mail")
    second = int(time.time())
    worker.kill()
    post_office.may_answer.set()
    wait_until(lambda: int(time.time()) > second, what="the next second on the clock")
    sql("UPDATE jobs SET lease_until = clock_timestamp() - interval '1 ms' WHERE state = 'running'")
    sweep()
    drain_to_the_end()
    assert progress(web, answer)["status"] == "provisioned"
    first, second_mail = post_office.mails
    assert works(web, first.key)
    assert (first.key, first.message_id) == (second_mail.key, second_mail.message_id)
    assert first.raw == second_mail.raw
    assert audit(with_stripe=True)["findings"] == []


def test_a_key_revoked_before_its_mail_was_seen_to_arrive_still_ends_in_a_whole_signup(
    web: FlaskClient,
    post_office: PostOffice,
    configure: Callable[..., None],
    start_worker: Callable[..., Process],
) -> None:
    configure(MAIL_URL=post_office.url)
    post_office.may_answer.clear()
    answer = sign_up(web)
    worker = start_worker(MAIL_URL=post_office.url)
    wait_until(post_office.accepted.is_set, what="the mail")
    worker.kill()
    post_office.may_answer.set()
    key_id = one("SELECT id FROM api_keys")
    revoked = web.delete(f"/api/v1/api-keys/{key_id}", headers={"X-API-Key": post_office.mails[0].key})
    assert revoked.status_code == 204
    sql("UPDATE jobs SET lease_until = clock_timestamp() - interval '1 ms' WHERE state = 'running'")
    sweep()
    drain_to_the_end()
    assert progress(web, answer)["status"] == "provisioned"
    assert audit(with_stripe=True)["findings"] == []


def requeue(job_id: str) -> None:
    """As ops do."""
    assert CliRunner().invoke(cli, ["jobs", "requeue", job_id]).exit_code == 0
