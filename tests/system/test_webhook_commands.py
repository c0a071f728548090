"""`tallyhook webhooks`: an operator sees any event, what it did, and does it again."""

from typing import Any
from uuid import uuid4

import pytest
from flask.testing import FlaskClient

from app.contracts.webhooks import GithubEvent
from app.db import transaction
from app.ledger.enqueue import enqueue
from app.sandbox.stripe import StripeSandbox
from app.stripe import catalog
from app.stripe.client import client
from tests.system.money import Customer, customer, deploy, give_card
from tests.system.scene import count, drain, drain_to_the_end, one, rows_of_all_tables, sql
from tests.system.test_cli import read, recorded, tallyhook
from tests.system.test_payment_methods import give_card_at, open_page
from tests.system.test_plans import on_teams
from tests.system.test_stripe_webhooks import event, post, subscription_of


@pytest.fixture
def ada(web: FlaskClient) -> Customer:
    catalog.sync()
    return on_teams(web)


def deliver(web: FlaskClient, kind: str, thing: dict[str, Any], **changes: Any) -> str:
    """Deliver an event, and let it be seen to; returns its id."""
    sent = event(kind, thing, **changes)
    assert post(web, sent).status_code == 200
    drain()
    return str(sent["id"])


def changed(web: FlaskClient, of: Customer) -> str:
    """An event of the customer's subscription."""
    thing = {"id": subscription_of(of), "object": "subscription", "customer": of.stripe_id}
    return deliver(web, "customer.subscription.updated", thing)


def test_webhooks_are_listed_with_what_became_of_them(web: FlaskClient, ada: Customer) -> None:
    followed = changed(web, ada)
    unknown = deliver(web, "radar.review", {"id": "prv_1"})
    dead = deliver(web, "invoice.paid", None)
    listed = read("webhooks", "list")
    assert [row["id"] for row in listed] == [dead, unknown, followed]
    assert listed[0].keys() == {
        "id", "job_id", "source", "type", "replay", "state", "customer_id", "received_at", "finished_at", "result",
        "error",
    }  # fmt: skip
    assert (listed[0]["state"], listed[0]["error"]["kind"]) == ("dead", "permanent")
    assert listed[1]["result"] == {"ignored": "unknown type"}
    assert (listed[2]["customer_id"], listed[2]["result"]["command"]) == (ada.id, "sync_subscription")
    table = tallyhook("webhooks", "list").stdout
    assert "ignored: unknown type" in table
    assert "the event has no object" in table


def test_webhooks_are_filtered(web: FlaskClient, ada: Customer) -> None:
    mine = changed(web, ada)
    bob = customer()
    his = deliver(web, "customer.updated", {"id": bob.stripe_id})
    stuck = deliver(web, "invoice.paid", {"id": "in_1", "customer": "cus_nobody"})
    with transaction() as db:
        enqueue(db, GithubEvent(delivery=str(uuid4()), event="ping", body={"zen": "Keep it logically awesome."}))
    sql("UPDATE jobs SET created_at = created_at - interval '2 days' WHERE key = %(key)s", key=f"stripe:{mine}")

    def ids(*filters: str) -> list[str]:
        return [row["id"] for row in read("webhooks", "list", *filters) if row["type"] != "ping"]

    assert ids() == [stuck, his, mine]
    assert ids("--type", "customer.updated") == [his]
    assert ids("--type", "customer.*") == [his, mine]
    assert ids("--type", "customer_") == []
    assert ids("--since", "1d") == [stuck, his]
    assert ids("--until", "1d") == [mine]
    assert ids("--customer", str(ada.id)) == [mine]
    assert ids("--customer", str(bob.id)) == [his]
    assert ids("--state", "queued") == [stuck]
    assert ids("--limit", "1", "--source", "stripe") == [stuck]
    assert [row["type"] for row in read("webhooks", "list", "--source", "github")] == ["ping"]
    assert tallyhook("webhooks", "list", "--until", "soon").exit_code == 2
    assert tallyhook("webhooks", "list", "--source", "elsewhere").exit_code == 2


def test_a_webhook_is_shown_by_its_own_id_or_its_jobs_without_what_is_private(web: FlaskClient, ada: Customer) -> None:
    thing = {"id": ada.stripe_id, "object": "customer", "email": "ada@private.example.com", "card": {"last4": "4242"}}
    sent = deliver(web, "customer.updated", thing)
    shown = read("webhooks", "show", sent)
    assert shown == read("webhooks", "show", shown["job_id"])
    assert (shown["type"], shown["customer_id"]) == ("customer.updated", ada.id)
    assert shown["followed_by"]["name"] == "sync_customer"
    assert shown["job"]["payload"]["event"]["data"]["object"]["id"] == ada.stripe_id
    assert shown["job"]["payload"]["event"]["data"]["object"]["card"] == "[redacted]"
    for output in (str(shown), tallyhook("webhooks", "show", sent).stdout):
        assert "ada@private" not in output
    for nobody in ("evt_nobody", str(uuid4())):
        assert tallyhook("webhooks", "show", nobody).exit_code == 2


def test_a_replay_reads_the_object_again_on_record(web: FlaskClient, ada: Customer) -> None:
    sent = changed(web, ada)
    sql("UPDATE subscriptions SET status = 'past_due'")  # as a mistake of ours would leave it
    result = tallyhook("webhooks", "replay", sent, "--why", "mended")
    assert (result.exit_code, result.stdout) == (0, "1 replayed.\n")
    assert recorded() == [("replay", f"webhook:stripe:{sent}", "mended")]
    drain()
    assert one("SELECT status FROM subscriptions") == "active"
    tallyhook("webhooks", "replay", sent)
    drain()
    shown = read("webhooks", "show", sent)
    assert [(replay["replay"], replay["state"]) for replay in shown["replays"]] == [(1, "succeeded"), (2, "succeeded")]
    assert [row["replay"] for row in read("webhooks", "list")] == [2, 1, None]


def test_a_replay_changes_nothing_where_nothing_differs(web: FlaskClient, ada: Customer) -> None:
    sent = changed(web, ada)
    tables = ("charge_entries", "plan_changes", "billing_periods", "invoices")
    before = [count(table) for table in tables]
    mails = count("jobs WHERE name = 'send_notice'")
    for _ in range(3):
        tallyhook("webhooks", "replay", sent)
        drain()
    assert [count(table) for table in tables] == before
    assert count("jobs WHERE name = 'send_notice'") == mails


def test_a_dry_run_says_what_would_run_and_what_it_changes(web: FlaskClient, ada: Customer) -> None:
    sent = changed(web, ada)
    ignored = deliver(web, "radar.review", {"id": "prv_1"})
    client().v1.subscriptions.update(subscription_of(ada), {"cancel_at_period_end": True})
    jobs = count("jobs")
    [first, second] = read("webhooks", "replay", sent, ignored, "--dry-run")
    assert first["would"] == f"sync_subscription of customer {ada.id} {subscription_of(ada)}"
    [change] = first["changes"]
    assert change["subject"] == f"subscription:{subscription_of(ada)}"
    assert "ends with its period" not in change["ours"]
    assert "ends with its period" in change["stripe"]
    assert (second["would"], second["changes"]) == ("nothing: unknown type", [])
    assert count("jobs") == jobs
    assert recorded() == []
    assert "nothing was changed" in tallyhook("webhooks", "replay", sent, "--dry-run").stdout


def test_a_dry_run_says_that_nothing_follows_of_what_is_not_ours(web: FlaskClient) -> None:
    theirs = client().v1.customers.create({"email": "somebody@example.com"}).id
    sent = deliver(web, "customer.updated", {"id": theirs, "object": "customer"})
    [preview] = read("webhooks", "replay", sent, "--dry-run")
    assert preview["would"] == "nothing: it is not ours"


def test_a_dry_run_says_what_stripe_does_not_have_any_more(web: FlaskClient) -> None:
    bob = customer()
    sent = deliver(web, "customer.updated", {"id": bob.stripe_id, "object": "customer"})
    client().v1.customers.delete(bob.stripe_id)
    [preview] = read("webhooks", "replay", sent, "--dry-run")
    assert preview["changes"][0]["stripe"] == "is not in Stripe any more"


def dry_run(sent: str) -> list[tuple[str, ...]]:
    """What would change, by a dry run that changes nothing."""
    before = rows_of_all_tables()
    [preview] = read("webhooks", "replay", sent, "--dry-run")
    assert rows_of_all_tables() == before
    return [tuple(change.values()) for change in preview["changes"]]


def test_a_dry_run_shows_a_refund_and_a_dispute_made_in_the_dashboard(web: FlaskClient, stripe: StripeSandbox) -> None:
    bob = customer("payg", "pm_card_visa")
    deploy(bob, 1)
    drain_to_the_end()
    [intent] = stripe.objects("payment_intent")
    charge = one("SELECT id FROM charges")
    sent = deliver(web, "charge.refunded", {"id": intent["latest_charge"], "payment_intent": intent["id"]})
    drain_to_the_end()
    assert dry_run(sent) == []
    refund = client().v1.refunds.create({"payment_intent": intent["id"], "amount": 500})
    dispute = stripe.dispute(intent["latest_charge"])
    assert dry_run(sent) == [
        (f"charge:{charge}", "nothing", f"{refund.id}: succeeded, 500 cents"),
        (f"charge:{charge}", "nothing", f"{dispute['id']}: {dispute['status']}, 1000 cents"),
    ]
    tallyhook("webhooks", "replay", sent)
    drain_to_the_end()
    assert dry_run(sent) == []


def test_a_dry_run_shows_cards_that_came_and_went_in_the_dashboard(web: FlaskClient) -> None:
    bob = customer()
    visa = give_card(bob, "pm_card_visa")
    client().v1.customers.update(bob.stripe_id, {"invoice_settings": {"default_payment_method": visa}})
    thing = {"id": visa, "object": "payment_method", "customer": bob.stripe_id}
    sent = deliver(web, "payment_method.updated", thing)
    assert dry_run(sent) == []
    client().v1.payment_methods.detach(visa)
    amex = client().v1.payment_methods.attach("pm_card_amex", {"customer": bob.stripe_id}).id
    assert dry_run(sent) == [
        (f"default card of customer:{bob.id}", visa, f"nothing, and {amex} becomes it"),
        (f"payment_method:{amex}", "nothing", "attached"),
        (f"payment_method:{visa}", "attached", "detached"),
    ]
    tallyhook("webhooks", "replay", sent)
    drain()
    assert dry_run(sent) == []
    assert one("SELECT default_payment_method FROM customers") == amex


def test_a_dry_run_shows_what_came_of_a_page_of_checkout(web: FlaskClient) -> None:
    catalog.sync()
    bob = customer()
    page = open_page(web, bob, "teams")
    give_card_at(page["url"], "visa")
    sent = event("checkout.session.completed", {"id": page["session_id"], "customer": bob.stripe_id})
    assert post(web, sent).status_code == 200
    [card, subscription, invoice] = dry_run(sent["id"])
    assert card[:2] == (f"default card of customer:{bob.id}", "nothing")
    assert subscription[2].startswith("active, period to ")
    assert invoice[2] == "paid, 49900 of 49900 cents paid"
    drain()
    assert dry_run(sent["id"]) == []


def test_a_dry_run_shows_invoices_of_a_subscription_that_changed(web: FlaskClient, ada: Customer) -> None:
    sent = changed(web, ada)
    assert dry_run(sent) == []
    sql("DELETE FROM invoices")
    [[subject, ours, theirs]] = dry_run(sent)
    assert subject.startswith("invoice:")
    assert (ours, theirs) == ("nothing", "paid, 49900 of 49900 cents paid")


def test_all_that_match_are_replayed(web: FlaskClient, ada: Customer, stripe: StripeSandbox) -> None:
    for _ in range(3):
        changed(web, ada)
    bob = customer()
    deliver(web, "customer.updated", {"id": bob.stripe_id})
    report = read("webhooks", "replay", "--customer", str(ada.id), "--type", "customer.subscription.*")
    assert len(report["replayed"]) == 3
    assert report["refused"] == []
    drain()
    assert {row["state"] for row in read("webhooks", "list")} == {"succeeded"}
    assert len(read("webhooks", "list", "--customer", str(ada.id))) == 6


def test_a_webhook_that_died_is_given_a_new_budget(web: FlaskClient) -> None:
    sent = deliver(web, "customer.updated", {"id": "cus_late"})
    sql("UPDATE jobs SET busy_since = busy_since - interval '61 minutes', run_at = clock_timestamp()")
    drain()
    assert read("webhooks", "show", sent)["state"] == "dead"
    bob = customer()
    sql("UPDATE customers SET stripe_customer_id = 'cus_late' WHERE id = %(id)s", id=bob.id)
    assert tallyhook("webhooks", "replay", "--state", "dead").exit_code == 0
    drain()
    shown = read("webhooks", "show", sent)
    assert (shown["state"], shown["customer_id"], shown["replays"]) == ("succeeded", bob.id, [])


def test_what_waits_still_is_not_replayed(web: FlaskClient) -> None:
    sent = deliver(web, "customer.updated", {"id": "cus_late"})
    result = tallyhook("webhooks", "replay", sent)
    assert result.exit_code == 1
    assert "nothing to do again yet" in result.stderr
    assert count("jobs") == 1


@pytest.mark.parametrize("arguments", [[], ["evt_1", "--type", "invoice.*"], ["evt_nobody"]])
def test_a_replay_of_everything_by_mistake_is_refused(arguments: list[str]) -> None:
    assert tallyhook("webhooks", "replay", *arguments).exit_code == 2
