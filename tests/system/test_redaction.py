"""No key, secret or address where it is read by others: log lines, problems, what ops see of a job."""

import json
import re
import sys
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient
from typer.testing import CliRunner

from app.ledger.command import COMMANDS
from app.logs import redact_text
from app.ops.cli import cli
from app.sandbox.stripe import StripeSandbox
from tests.conftest import free_port, wait_until
from tests.processes import Process, Processes
from tests.system.cable import Cable
from tests.system.scene import KEY, Mailbox, Site, drain, one, sign_up, sql
from tests.system.test_database_away import through

SECRETS = {
    "STRIPE_SECRET_KEY": "sk_test_verysecretstripe",
    "STRIPE_WEBHOOK_SECRETS": "whsec_verysecrethook",
    "SECRET_KEYS": "verysecretseal",
    "OPS_TOKEN": "verysecrettoken",
}

ADDRESSES = [
    "jane.q.public+test@example.com",
    "o'brien@example.com",
    "user/department@example.com",
    "!weird#chars$%&*^`{|}~@example.com",
    "ö@example.com",
    "δοκιμή@example.com",
    "用户@例子.example",
    "jane@sub.domain.example.com",
]


def test_a_journey_with_failures_leaves_no_secret_in_any_log(
    start_web: Callable[..., Site],
    processes: Processes,
    postgres_cable: Cable,
    stripe: StripeSandbox,
    mailbox: Mailbox,
) -> None:
    site = start_web(**SECRETS, DATABASE_URL=through(postgres_cable))
    worker = processes.start_worker(**SECRETS)
    relay = processes.start(sys.executable, "-m", "app.ops.cli", "relay", **SECRETS)
    stripe.fault("status", operation="POST /v1/customers", status=500)
    stripe.fault("lose", operation="POST /v1/customers")
    for address in ADDRESSES:
        accepted = site.post("/api/v1/customers", {"email": address, "name": f"Name {address}"})
        assert accepted.status == 202, (address, accepted.text)
    site.post("/api/v1/customers", {"email": "jane@invalid@example.com", "name": "x", "jane@example.com": 1})
    site.ask("POST", "/signup", body="email=jane.form%40example.com&name=J", headers={"Content-Type": "text/plain"})
    wait_until(
        lambda: one("SELECT count(*) FROM signups WHERE status = 'provisioned'") == len(ADDRESSES),
        60,
        "all provisioned",
    )
    mails = mailbox.mails()
    keys = [mail.key for mail in mails]
    for mail in mails:
        assert site.get("/api/v1/billing/status", X_API_Key=mail.key).status == 200
        assert site.get("/api/v1/billing/status", Authorization=f"Bearer {mail.key}").status == 200
        assert site.get(mail.link).status == 200
        assert site.get(f"/api/v1/{mail.key}").status == 404
    postgres_cable.cut()
    site.post("/api/v1/customers", {"email": "jane.late@example.com", "name": "Jane"})
    logs = "\n".join(process.output for process in (site.process, worker, relay))
    assert "http.request" in logs
    assert "job.succeeded" in logs
    tokens = [urlsplit(mail.link).query for mail in mails]
    for secret in [*keys, *SECRETS.values(), *tokens, "jane.late", "jane.form"]:
        assert secret not in logs
    for address in ADDRESSES:
        assert address not in logs
        assert address.split("@")[0] not in logs or len(address.split("@")[0]) < 3
    assert not KEY.search(logs)


def test_every_log_line_of_ours_is_json_with_its_correlation_id(
    site: Site, start_worker: Callable[..., Process]
) -> None:
    worker = start_worker()
    answer = site.post("/api/v1/customers", {"email": "jane@example.com", "name": "Jane"}, X_Request_Id="the-whole-way")
    assert answer.status == 202
    wait_until(lambda: one("SELECT status FROM signups") == "provisioned", 60, "a provisioned signup")
    worker.wait_for_output("send_welcome_email")
    lines = [json.loads(line) for line in worker.output.splitlines() if line.startswith("{")]
    done = [line for line in lines if line.get("event") == "job.succeeded"]
    calendar = {command.name for command in COMMANDS.values() if command.every}
    assert {line["correlation_id"] for line in done if line["name"] not in calendar} == {"the-whole-way"}
    [asked] = [
        line
        for line in map(json.loads, site.process.output.splitlines())
        if line.get("correlation_id") == "the-whole-way"
    ]
    assert (asked["status"], asked["origin"]) == (202, "POST /api/v1/customers")


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_in_any_text_is_redacted(address: str) -> None:
    local = address.rpartition("@")[0]
    for text in (f"no mailbox {address} here", f"<{address}>", f"Key (address)=({address}) already exists."):
        assert address not in redact_text(text)
        if len(local) > 1:
            assert local not in redact_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "rsolv_verysecret-verysecret_verysecret",
        "sk_live_verysecret",
        "rk_test_verysecret",
        "whsec_verysecret",
        "postgresql://jane:verysecret@host/db",
        "postgresql://host/db?user=jane&password=verysecret",
        "smtp://jane:very%40secret@host:25",
        "Authorization: Bearer verysecret.verysecret",
        "X-API-Key: rsolv_verysecretverysecret",
        "/account?token=verysecret.verysecret",
        "4242 4242 4242 4242",
        "4242-4242-4242-4242",
        "4242424242424242",
    ],
)
def test_a_secret_in_any_text_is_redacted(text: str) -> None:
    said = redact_text(f"it said {text} and went on")
    assert "very" not in said
    assert "4242" not in said
    assert said.startswith("it said ")
    assert said.endswith(" and went on")


def test_ids_and_times_are_not_redacted() -> None:
    for text in (
        "01a20477-f44e-717b-8e13-d39cb34dff48",
        "2026-11-22T18:09:11.595691Z",
        "cus_NffrFeUfNV2Hib",
        "pi_3MtwBwLkdIwHu7ix28a3tqPa",
        "req_1234567890abcdef",
        "customer:7:1",
    ):
        assert redact_text(text) == text


def test_what_ops_see_of_a_job_has_no_secret(
    web: FlaskClient, stripe: StripeSandbox, mailbox: Mailbox, configure: Callable[..., None]
) -> None:
    configure(MAIL_URL=f"smtp://jane:verysecret@127.0.0.1:{free_port()}")
    sign_up(web, email="jane.doe@example.com")
    stripe.fault("status", operation="POST /v1/customers", status=500)
    drain()
    for [job_id] in sql("SELECT id FROM jobs"):
        for arguments in (["jobs", "show", str(job_id)], ["jobs", "show", str(job_id), "--json"], ["jobs", "list"]):
            said = CliRunner().invoke(cli, arguments).output
            assert "jane.doe" not in said
            assert "verysecret" not in said
            assert not KEY.search(said)


def test_a_problem_repeats_no_key(web: FlaskClient) -> None:
    key = "rsolv_" + "x" * 43
    for answer in (
        web.get("/api/v1/billing/status", headers={"X-API-Key": key}),
        web.get(f"/api/v1/{key}"),
        web.get(f"/api/v1/signups/{key}"),
        web.post("/api/v1/customers", json={"email": key, "name": "x"}),
        web.post("/api/v1/customers", data=key, headers={"Content-Type": "application/json"}),
    ):
        assert 400 <= answer.status_code < 500
        assert not re.search(r"rsolv_x", answer.text)
