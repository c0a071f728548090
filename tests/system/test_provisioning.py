"""From a signup to a customer who can work (seed: "Connect Systems", "Load Testing", "Error Handling")."""

import hashlib
import re
from collections.abc import Callable
from functools import partial

from flask import Flask
from flask.testing import FlaskClient

from app.ops.audit import audit
from app.sandbox.stripe import StripeSandbox
from tests.conftest import closed_port, wait_until
from tests.processes import Process
from tests.system.scene import (
    Mailbox,
    Site,
    at_once,
    count,
    drain,
    drain_to_the_end,
    job,
    mend,
    one,
    progress,
    sign_up,
    spoil,
    sql,
    states,
    time_passes,
)

STEPS = ["create_customer", "create_stripe_customer", "issue_api_key", "send_welcome_email"]


def test_provisioning_creates_billing_customer(web: FlaskClient, stripe: StripeSandbox) -> None:
    sign_up(web, email="jane@example.com", name="Jane Doe")
    drain()
    [theirs] = stripe.objects("customer")
    [[our_id, stripe_id]] = sql("SELECT id, stripe_customer_id FROM customers")
    assert (theirs["email"], theirs["name"]) == ("jane@example.com", "Jane Doe")
    assert theirs["metadata"] == {"customer_id": str(our_id)}
    assert stripe_id == theirs["id"]


def test_billing_returns_correct_status(web: FlaskClient, stripe: StripeSandbox, mailbox: Mailbox) -> None:
    sign_up(web)
    drain()
    answer = web.get("/api/v1/billing/status", headers={"X-API-Key": mailbox.mail().key})
    assert answer.status_code == 200
    status = answer.json
    assert status.pop("period_start") is not None
    assert status == {
        "customer_id": one("SELECT id FROM customers"),
        "plan": "trial",
        "stripe_customer_id": stripe.objects("customer")[0]["id"],
        "subscription_status": "trial",
        "can_use_service": True,
        "current_usage": 0,
        "included": 5,
        "remaining": 5,
        "overage": 0,
        "period_end": None,
    }


def test_billing_status_counts_fixes_and_stops_the_service_after_the_fifth(web: FlaskClient, mailbox: Mailbox) -> None:
    sign_up(web)
    drain()
    sql(
        "INSERT INTO usage_entries (customer_id, period_start, fixes, reason)"
        " SELECT id, created_at, n, 'test' FROM customers, (VALUES (4), (2), (-1)) AS entry (n)"
    )
    status = web.get("/api/v1/billing/status", headers={"X-API-Key": mailbox.mail().key}).json
    assert (status["current_usage"], status["remaining"], status["can_use_service"]) == (5, 0, False)


def test_a_signup_is_accepted_with_a_place_to_watch_it(web: FlaskClient) -> None:
    answer = sign_up(web)
    assert answer.status_code == 202
    assert answer.json == {
        "signup_id": answer.json["signup_id"],
        "status": "queued",
        "status_url": f"/api/v1/signups/{answer.json['signup_id']}",
        "duplicate": False,
    }
    assert answer.headers["Location"] == answer.json["status_url"]
    seen = progress(web, answer)
    assert seen["signup_id"] == answer.json["signup_id"]
    assert seen["status"] == "queued"
    assert states(seen) == dict(zip(STEPS, ["queued", "waiting", "waiting", "waiting"], strict=True))


def test_every_step_is_seen_to_finish(web: FlaskClient) -> None:
    answer = sign_up(web)
    drain()
    seen = progress(web, answer)
    assert seen["status"] == "provisioned"
    assert [step["name"] for step in seen["steps"]] == STEPS
    assert {step["state"] for step in seen["steps"]} == {"succeeded"}
    assert [step["attempts"] for step in seen["steps"]] == [1, 1, 1, 1]
    finished = [step["finished_at"] for step in seen["steps"]]
    assert all(finished)
    assert finished == sorted(finished)


def test_a_step_that_waits_for_stripe_is_seen_to_wait(web: FlaskClient, stripe: StripeSandbox) -> None:
    answer = sign_up(web)
    stripe.fault("status", operation="POST /v1/customers", status=503, count=None)
    drain()
    seen = progress(web, answer)
    assert seen["status"] == "provisioning"
    assert states(seen) == dict(zip(STEPS, ["succeeded", "queued", "waiting", "waiting"], strict=True))


def test_a_step_that_is_dead_shows_the_signup_as_failed_until_ops_requeue_it(
    web: FlaskClient, mailbox: Mailbox
) -> None:
    answer = sign_up(web)
    spoil()
    drain()
    assert progress(web, answer)["status"] == "failed"
    mend()
    sql("UPDATE jobs SET state = 'queued', spared = attempt, finished_at = NULL")
    drain()
    assert progress(web, answer)["status"] == "provisioned"
    assert mailbox.mail().key


def test_the_welcome_mail_carries_the_key_that_works_and_a_link_that_opens_the_account(
    web: FlaskClient, mailbox: Mailbox
) -> None:
    sign_up(web)
    drain()
    mail = mailbox.mail("jane@example.com")
    assert one("SELECT hash FROM api_keys") == hashlib.sha256(mail.key.encode()).hexdigest()
    assert mail.key in mail.text
    assert mail.key in mail.html
    for headers in ({"X-API-Key": mail.key}, {"Authorization": f"Bearer {mail.key}"}):
        assert web.get("/api/v1/billing/status", headers=headers).status_code == 200
    page = web.get(mail.link)
    assert page.status_code == 200
    assert "jane@example.com" in page.text
    assert mail.key not in page.text
    assert web.get(mail.link[:-2]).status_code == 403


def test_the_account_page_names_the_keys_so_that_their_owner_can_revoke_them(
    web: FlaskClient, mailbox: Mailbox
) -> None:
    sign_up(web)
    drain()
    mail = mailbox.mail("jane@example.com")
    [path] = re.findall(r"DELETE (/api/v1/api-keys/\d+)", web.get(mail.link).text)
    assert web.delete(path, headers={"X-API-Key": mail.key}).status_code == 204
    assert web.get("/api/v1/billing/status", headers={"X-API-Key": mail.key}).status_code == 401
    assert path not in web.get(mail.link).text


def test_the_sealed_key_is_wiped_by_the_delivery_of_its_mail(
    web: FlaskClient, mailbox: Mailbox, configure: Callable[..., None]
) -> None:
    configure(MAIL_URL=f"smtp://127.0.0.1:{closed_port()}")
    sign_up(web)
    drain()
    sealed = bytes(one("SELECT sealed FROM api_keys"))
    configure(MAIL_URL=None)
    time_passes()
    drain()
    assert one("SELECT sealed FROM api_keys") is None
    key = mailbox.mail().key.encode()
    assert key not in sealed


def test_no_table_holds_a_readable_key(web: FlaskClient, mailbox: Mailbox) -> None:
    sign_up(web)
    drain()
    key = mailbox.mail().key
    for [table] in sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
        found = one(f"SELECT count(*) FROM {table} AS t WHERE t::text LIKE %(key)s", key=f"%{key}%")
        assert found == 0, table


def test_the_key_is_sealed_so_that_a_rotated_secret_still_opens_it(
    web: FlaskClient, mailbox: Mailbox, configure: Callable[..., None]
) -> None:
    configure(MAIL_URL=f"smtp://127.0.0.1:{closed_port()}", SECRET_KEYS="old-secret")
    sign_up(web)
    drain()
    configure(MAIL_URL=None, SECRET_KEYS="new-secret,old-secret")
    time_passes()
    drain()
    assert web.get("/api/v1/billing/status", headers={"X-API-Key": mailbox.mail().key}).status_code == 200


def test_a_wanted_plan_is_kept_and_the_trial_holds_until_a_card_comes(web: FlaskClient, mailbox: Mailbox) -> None:
    sign_up(web, plan="teams", source="gh_marketplace")
    drain()
    assert sql("SELECT plan, wanted_plan, source FROM customers") == [("trial", "teams", "gh_marketplace")]
    status = web.get("/api/v1/billing/status", headers={"X-API-Key": mailbox.mail().key}).json
    assert (status["plan"], status["included"]) == ("trial", 5)


def test_the_signup_form_leads_to_the_same_customer_and_a_page_that_follows_along(
    web: FlaskClient, mailbox: Mailbox
) -> None:
    answer = web.post("/signup", data={"email": "jane@example.com", "name": "Jane <b>Doe</b>", "plan": "payg"})
    assert answer.status_code == 303
    assert "Setting up your account" in web.get(answer.headers["Location"]).text
    drain()
    assert "Your account is ready" in web.get(answer.headers["Location"]).text
    page = web.get(mailbox.mail().link).text
    assert "Jane &lt;b&gt;Doe&lt;/b&gt;" in page


def test_a_customer_sees_their_own_jobs_and_nobody_elses(web: FlaskClient, mailbox: Mailbox) -> None:
    sign_up(web)
    sign_up(web, email="john@example.com", name="John Roe")
    drain()
    jane = {"X-API-Key": mailbox.mail("jane@").key}
    john = {"X-API-Key": mailbox.mail("john@").key}
    [[job_id]] = sql(
        "SELECT jobs.id FROM jobs JOIN customers ON customers.id = customer_id"
        " WHERE jobs.name = 'issue_api_key' AND email = 'jane@example.com'"
    )
    seen = web.get(f"/api/v1/jobs/{job_id}", headers=jane)
    assert seen.json == {
        "id": str(job_id),
        "name": "issue_api_key",
        "state": "succeeded",
        "attempts": 1,
        "result": None,
        "error": None,
    }
    assert web.get(f"/api/v1/jobs/{job_id}", headers=john).status_code == 404
    assert web.get(f"/api/v1/jobs/{job_id}").status_code == 401


def test_100_concurrent_signups(
    site: Site, stripe: StripeSandbox, mailbox: Mailbox, start_worker: Callable[..., Process]
) -> None:
    start_worker(threads=8)
    bodies = [{"email": f"user{n}@example.com", "name": f"User {n}"} for n in range(100)]
    answers = at_once(*(partial(site.post, "/api/v1/customers", body) for body in bodies))
    assert {answer.status for answer in answers} == {202}
    assert len({answer.json["signup_id"] for answer in answers}) == 100
    wait_until(
        lambda: one("SELECT count(*) FROM signups WHERE status = 'provisioned'") == 100, 60, "100 provisioned signups"
    )
    theirs = stripe.objects("customer")
    assert sorted(customer["email"] for customer in theirs) == sorted(body["email"] for body in bodies)
    assert {customer["id"] for customer in theirs} == {i for [i] in sql("SELECT stripe_customer_id FROM customers")}
    mails = mailbox.mails()
    assert sorted(address for mail in mails for address in [mail.to.split("<")[-1].rstrip(">")]) == sorted(
        body["email"] for body in bodies
    )
    assert len({mail.key for mail in mails}) == 100
    assert site.get("/api/v1/billing/status", X_API_Key=mails[-1].key).status == 200
    assert audit(with_stripe=True)["findings"] == []


def test_recovers_from_stripe_api_failures(web: FlaskClient, stripe: StripeSandbox, mailbox: Mailbox) -> None:
    create = "POST /v1/customers"
    stripe.fault("refuse", operation=create)
    stripe.fault("status", operation=create, status=500)
    stripe.fault("status", operation=create, status=429, retry_after=3)
    stripe.fault("status", operation=create, status=409)
    stripe.fault("lock_timeout", operation=create)
    stripe.fault("status", operation=create, status=503)
    stripe.fault("lose", operation=create)
    answer = sign_up(web)
    drain_to_the_end()
    assert stripe.faults() == []
    assert progress(web, answer)["status"] == "provisioned"
    assert len(stripe.objects("customer")) == 1
    assert len(mailbox.mails()) == 1
    assert job("create_stripe_customer")["attempts"] == 1


def test_prevents_race_conditions(
    application: Flask, stripe: StripeSandbox, mailbox: Mailbox, configure: Callable[..., None]
) -> None:
    spellings = ["jane@example.com", "Jane@Example.com", "JANE@EXAMPLE.COM", "jane@EXAMPLE.com"]

    def sign_up_and_work(email: str) -> str:
        web = application.test_client()
        answer = sign_up(web, email=email)
        drain()
        return str(answer.json["status_url"])

    urls = at_once(*(partial(sign_up_and_work, spellings[n % 4]) for n in range(12)))
    drain_to_the_end()
    web = application.test_client()
    assert {web.get(url).json["status"] for url in urls} == {"provisioned"}
    assert (count("customers"), count("api_keys"), len(stripe.objects("customer"))) == (1, 1, 1)
    assert len([mail for mail in mailbox.mails() if mail.keys]) == 1
    assert one("SELECT count(DISTINCT customer_id) FROM signups") == 1
    assert audit(with_stripe=True)["findings"] == []
