"""No key, secret or address where it is read by others: log lines, problems, what ops see of a job."""

import json
import re
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from app.ledger.command import COMMANDS
from app.logs import redact, redact_text
from app.ops.cli import cli
from app.sandbox.stripe import StripeSandbox
from tests.conftest import closed_port, wait_until
from tests.processes import Process, Processes
from tests.system.cable import Cable
from tests.system.money import customer, deploy
from tests.system.scene import KEY, Mailbox, Site, drain, one, sign_up, sql
from tests.system.test_database_away import through
from tests.system.test_payment_methods import open_page

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
        "pi_3MtwBwLkdIwHu7ix_secret_verysecret",
        "seti_1Mm8s8LkdIwHu7ix_secret_verysecretVerySecret",
        "cuss_secret_verysecretverysecret",
        "https://hooks.stripe.com/redirect/authenticate/src_1Mm8?client_secret=src_client_secret_verysecret",
        "https://hooks.stripe.com/3ds?payment_intent=pi_3Mtw&payment_intent_client_secret=verysecret",
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
        "the client secret of pi_3MtwBwLkdIwHu7ix28a3tqPa, client_secret and STRIPE_SECRET_KEY are names",
        "payment_intent=pi_3MtwBwLkdIwHu7ix28a3tqPa&secretary=jane",
        "my_secret_key=",
    ):
        assert redact_text(text) == text


# Words of a log line: no "@", and too few digits for the number of a card.
_WORDS = st.lists(st.from_regex(r"[A-Za-z_]{1,20}[0-9]{0,3}[.,:?!]?", fullmatch=True), min_size=1, max_size=12)
_OF_SECRETS = re.compile("(?i)rsolv_|_(test|live|secret)_|whsec_|bearer ")


@given(_WORDS.map(" ".join).filter(lambda text: not _OF_SECRETS.search(text)))
def test_ordinary_text_is_left_as_it_is(text: str) -> None:
    assert redact_text(text) == text


@given(st.text(alphabet="abcXYZ019", min_size=8, max_size=40).map("98765{}".format), _WORDS.map(" ".join))
def test_a_client_secret_is_redacted_wherever_it_stands(secret: str, text: str) -> None:
    for carrier in (f"pi_3Mtw_secret_{secret}", f"?payment_intent_client_secret={secret}&source=x"):
        assert secret not in redact_text(f"{text} {carrier} {text}")


def test_of_stripes_objects_no_person_and_no_link_that_opens_by_itself_is_shown() -> None:
    person = {"name": "Jane Very", "phone": "+1 555 very", "address": {"line1": "1 Very Street", "city": "Verytown"}}
    links = {"hosted_invoice_url": "https://very/i", "invoice_pdf": "https://very/p", "receipt_url": "https://very/r"}
    shown = redact(
        {
            "customer": {"id": "cus_1", "object": "customer", **person, "shipping": person, "metadata": {"name": "a"}},
            "charge": {"id": "ch_1", "object": "charge", "billing_details": person, "shipping": person, **links},
            "invoice": {"id": "in_1", "customer_name": "Jane Very", "customer_address": person["address"]},
            "session": {"id": "cs_1", "customer_details": person, "url": "https://checkout.stripe.com/c/pay/very"},
            "event": {"previous_attributes": person},
            "notice": {"kind": "authentication_required", "values": {"amount_cents": 1500, "url": "https://very"}},
            "product": {"object": "product", "name": "Teams", "address": None},
        }
    )
    assert not re.search("very", str(shown), re.IGNORECASE), shown
    assert shown["customer"]["metadata"] == {"name": "a"}
    assert shown["product"] == {"object": "product", "name": "Teams", "address": None}
    assert (shown["charge"]["id"], shown["session"]["id"]) == ("ch_1", "cs_1")
    assert shown["notice"]["values"]["amount_cents"] == 1500


# Where Stripe and GitHub say who somebody is, and what beside it an operator must be able to read.
PERSONAL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the evidence of a dispute": (
        {"evidence": {"uncategorized_text": "very", "customer_signature": "file_very", "access_activity_log": "very"}},
        {
            "id": "dp_1",
            "object": "dispute",
            "amount": 1500,
            "status": "needs_response",
            "reason": "fraudulent",
            "evidence_details": {"due_by": 1723679999, "has_evidence": True},
        },
    ),
    "tax ids of an invoice": (
        {"customer_tax_ids": [{"type": "eu_vat", "value": "DEvery"}], "customer_shipping": {"name": "very"}},
        {"id": "in_1", "account_tax_ids": ["txi_1"], "automatic_tax": {"status": "complete"}, "total_taxes": [5]},
    ),
    "tax ids of a customer": (
        {"tax_ids": [{"value": "very"}], "tax": {"ip_address": "very"}, "sources": [{"address_zip": "very"}]},
        {"id": "cus_1", "tax_exempt": "none", "balance": -5},
    ),
    "a tax id": (
        {"object": "tax_id", "value": "DEvery", "verification": {"verified_name": "very", "verified_address": "very"}},
        {"id": "txi_1", "type": "eu_vat", "owner": {"type": "customer", "customer": "cus_1"}},
    ),
    "who a card is billed to": (
        {"billing_details": {"tax_id": "very", "name": "Very", "address": {"line1": "very"}}},
        {"id": "pm_1", "type": "card", "customer": "cus_1"},
    ),
    "a card of an older account": (
        {"object": "card", "name": "Very", "card_present": {"cardholder_name": "very"}, "custom_fields": ["very"]},
        {"id": "card_1", "brand": "Visa", "last4": "4242", "exp_year": 2030},
    ),
    "an owner of a source": (
        {"owner": {"name": "Very", "verified_name": "very", "verified_phone": "very", "verified_address": "very"}},
        {"id": "src_1", "status": "chargeable", "flow": "redirect"},
    ),
    "a bank account": (
        {"account_holder_name": "very", "routing_number": "very", "account_number": "very", "iban": "very"},
        {"id": "ba_1", "account_holder_type": "individual", "bank_name": "Bank", "last4": "6789"},
    ),
    "who paid": (
        {"paypal": {"payer_name": "very"}, "klarna": {"dob": {"day": "very"}}, "mandate": {"online": {"ip": "very"}}},
        {"type": "paypal", "country": "DE"},
    ),
    "what a page of Checkout collected": (
        {"collected_information": {"individual_name": "very", "business_name": "very", "name": "very"}},
        {"id": "cs_1", "mode": "setup", "billing_address_collection": "auto", "phone_number_collection": {"on": False}},
    ),
    "who sent it from GitHub": (
        {"sender": {"name": "very"}, "requester": {"login": "octocat", "name": "very"}},
        {"action": "created", "plan": {"name": "Pro", "unit_name": "seat"}, "repository": {"full_name": "o/Hello"}},
    ),
}


@pytest.mark.parametrize(("person", "beside"), PERSONAL.values(), ids=PERSONAL)
def test_who_somebody_is_is_hidden_and_what_happened_is_not(person: dict[str, Any], beside: dict[str, Any]) -> None:
    shown = redact({"data": {"object": {**beside, **person}}})["data"]["object"]
    assert not re.search("very", str(shown), re.IGNORECASE), shown
    assert {key: shown[key] for key in beside} == beside


def test_of_githubs_people_the_login_is_shown_and_of_things_the_name() -> None:
    person = {"login": "octocat", "id": 1, "type": "User", "name": "Mona Very", "email": "mona@example.com"}
    seen = person | {"name": "[redacted]", "email": "m***@example.com"}
    repository = {"id": 2, "name": "Hello-World", "full_name": "octocat/Hello-World"}
    body = {"sender": person, "installation": {"account": person}, "repository": {**repository, "owner": person}}
    assert redact(body) == {
        "sender": seen,
        "installation": {"account": seen},
        "repository": {**repository, "owner": seen},
    }


def test_every_field_of_our_own_jobs_that_holds_no_secret_is_shown() -> None:
    for command in COMMANDS.values():
        payload = dict.fromkeys(command.model_fields, "x")
        assert redact(payload) == payload, command.name


def test_what_ops_see_of_a_job_has_no_secret(
    web: FlaskClient, stripe: StripeSandbox, mailbox: Mailbox, configure: Callable[..., None]
) -> None:
    configure(MAIL_URL=f"smtp://jane:verysecret@127.0.0.1:{closed_port()}")
    sign_up(web, email="jane.doe@example.com")
    stripe.fault("status", operation="POST /v1/customers", status=500)
    drain()
    for [job_id] in sql("SELECT id FROM jobs"):
        for arguments in (["jobs", "show", str(job_id)], ["jobs", "show", str(job_id), "--json"], ["jobs", "list"]):
            said = CliRunner().invoke(cli, arguments).output
            assert "jane.doe" not in said
            assert "verysecret" not in said
            assert not KEY.search(said)


def test_the_link_that_authenticates_a_payment_is_mailed_and_not_shown(stripe: StripeSandbox, mailbox: Mailbox) -> None:
    deploy(customer("payg", "pm_card_authenticationRequired"), 1)
    drain()
    [intent] = stripe.objects("payment_intent")
    link = intent["next_action"]["redirect_to_url"]["url"]
    assert link in mailbox.mail().text
    [[notice]] = sql("SELECT id FROM jobs WHERE name = 'send_notice'")
    said = CliRunner().invoke(cli, ["jobs", "show", str(notice), "--json"]).output
    assert json.loads(said)["payload"]["values"]["url"] == "[redacted]"
    assert link not in said


def test_a_page_of_checkout_is_shown_to_its_customer_alone(web: FlaskClient, stripe: StripeSandbox) -> None:
    page = open_page(web, customer(), "payment_method")
    assert page["url"] == stripe.objects("checkout.session")[0]["url"]
    [[opened]] = sql("SELECT id FROM jobs WHERE name = 'open_checkout'")
    said = CliRunner().invoke(cli, ["jobs", "show", str(opened), "--json"]).output
    assert json.loads(said)["result"] == {"url": "[redacted]", "session_id": page["session_id"]}


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
