"""Cards: added, charged, removed, by the API and by a page of Stripe Checkout."""

import http.client
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.contracts.webhooks import SyncCustomer
from app.db import transaction
from app.ledger.enqueue import enqueue
from app.sandbox.stripe import StripeSandbox
from app.stripe.client import client
from tests.system.money import Customer, charge_states, customer, deploy, status, taken
from tests.system.scene import Mailbox, count, drain, one, sign_up, sql, time_passes

ATTACH = "POST /v1/payment_methods/{payment_method}/attach"


def outcome(web: FlaskClient, of: Customer, accepted: TestResponse) -> dict[str, Any]:
    """The job that a request was answered with, when nothing is due any more."""
    assert accepted.status_code == 202, accepted.text
    assert accepted.headers["Location"] == accepted.json["status_url"]
    drain()
    return dict(web.get(accepted.json["status_url"], headers=of.headers).json)


def add(web: FlaskClient, of: Customer, method: str, key: str | None = None) -> TestResponse:
    headers = of.headers | ({} if key is None else {"Idempotency-Key": key})
    return web.post("/api/v1/payment-methods", json={"payment_method": method}, headers=headers)


def cards(web: FlaskClient, of: Customer) -> list[tuple[str, bool]]:
    """Brands, and which is charged."""
    listed = web.get("/api/v1/payment-methods", headers=of.headers).json["payment_methods"]
    return [(card["brand"], card["default"]) for card in listed]


def default_in_stripe(of: Customer) -> str | None:
    found = client().v1.customers.retrieve(of.stripe_id).to_dict()["invoice_settings"]["default_payment_method"]
    return str(found) if found else None


def give_card_at(url: str, card: str) -> str:
    """Be the customer's browser at a page of Checkout; returns the path of ours that it is sent to."""
    page = urlsplit(url)
    connection = http.client.HTTPConnection(page.netloc, timeout=30)
    try:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", page.path, urlencode({"card": card, "consents": "yes"}), form)
        response = connection.getresponse()
        response.read()
    finally:
        connection.close()
    assert response.status == 303
    back = urlsplit(response.headers["Location"])
    return f"{back.path}?{back.query}"


def open_page(web: FlaskClient, of: Customer, purpose: str) -> dict[str, Any]:
    made = outcome(web, of, web.post("/api/v1/checkout", json={"purpose": purpose}, headers=of.headers))
    assert made["state"] == "succeeded", made
    return dict(made["result"])


def test_a_card_that_is_added_is_charged_from_now_on(web: FlaskClient, stripe: StripeSandbox) -> None:
    jane = customer()
    done = outcome(web, jane, add(web, jane, "pm_card_visa"))
    assert done["state"] == "succeeded"
    method = done["result"]["payment_method"]
    assert done["result"] == {"payment_method": method, "brand": "visa", "last4": "4242"}
    assert default_in_stripe(jane) == method
    [card] = web.get("/api/v1/payment-methods", headers=jane.headers).json["payment_methods"]
    assert (card["id"], card["brand"], card["last4"], card["default"]) == (method, "visa", "4242", True)
    assert card["exp_year"] > 2020
    assert status(jane).subscription_status == "active"


def test_the_first_card_grants_five_more_fixes_and_the_second_none(web: FlaskClient) -> None:
    jane = customer()
    assert status(jane).included == 5
    outcome(web, jane, add(web, jane, "pm_card_visa"))
    assert (status(jane).plan, status(jane).included) == ("trial", 10)
    outcome(web, jane, add(web, jane, "pm_card_mastercard"))
    assert status(jane).included == 10
    assert cards(web, jane) == [("mastercard", True), ("visa", False)]


def test_a_card_never_moves_a_trial_to_payg_by_itself(web: FlaskClient) -> None:
    jane = customer()
    outcome(web, jane, add(web, jane, "pm_card_visa"))
    assert status(jane).plan == "trial"
    assert count("plan_changes") == 0


def test_payg_that_was_wanted_at_signup_begins_with_the_first_card(web: FlaskClient, mailbox: Mailbox) -> None:
    sign_up(web, plan="payg")
    drain()
    mail = mailbox.mail()
    jane = Customer(*sql("SELECT id, stripe_customer_id FROM customers")[0], mail.key)
    outcome(web, jane, add(web, jane, "pm_card_visa"))
    assert status(jane).plan == "payg"
    assert outcome(web, jane, web.delete("/api/v1/subscription", headers=jane.headers))["state"] == "succeeded"
    outcome(web, jane, add(web, jane, "pm_card_mastercard"))
    assert status(jane).plan == "trial"  # their own choice since: another card does not take it back


def test_a_card_charges_what_failed_for_want_of_one(web: FlaskClient, stripe: StripeSandbox) -> None:
    jane = customer("payg")
    deploy(jane, 1)
    drain()
    assert charge_states(jane) == ["declined"]
    outcome(web, jane, add(web, jane, "pm_card_visa"))
    assert charge_states(jane) == ["succeeded"]
    assert taken(stripe, jane) == 1500


def test_a_declined_card_changes_nothing_and_says_why(web: FlaskClient, stripe: StripeSandbox) -> None:
    jane = customer()
    bad = client().v1.payment_methods.create({"type": "card", "card": {"token": "tok_visa_chargeDeclined"}}).id
    done = outcome(web, jane, add(web, jane, bad))
    assert done["state"] == "dead"
    assert done["error"]["kind"] == "permanent"
    assert "generic_decline" in done["error"]["message"]
    assert cards(web, jane) == []
    assert default_in_stripe(jane) is None
    assert (status(jane).included, status(jane).subscription_status) == (5, "trial")


def test_a_card_of_another_customer_is_refused(web: FlaskClient) -> None:
    jane, eve = customer(), customer()
    hers = outcome(web, jane, add(web, jane, "pm_card_visa"))["result"]["payment_method"]
    done = outcome(web, eve, add(web, eve, hers))
    assert done["state"] == "dead"
    assert "another customer" in done["error"]["message"]
    assert web.delete(f"/api/v1/payment-methods/{hers}", headers=eve.headers).status_code == 404
    assert cards(web, eve) == []
    assert cards(web, jane) == [("visa", True)]


def test_a_payment_method_that_is_none_is_refused(web: FlaskClient) -> None:
    jane = customer()
    refused = outcome(web, jane, add(web, jane, "pm_nothing"))["error"]
    assert refused == {"kind": "permanent", "message": "Stripe knows no such payment method"}
    for body in ({"payment_method": "tok_visa"}, {"payment_method": "4242424242424242"}, {}):
        answer = web.post("/api/v1/payment-methods", json=body, headers=jane.headers)
        assert answer.status_code == 422


def test_adding_the_same_card_again_is_harmless(web: FlaskClient, stripe: StripeSandbox) -> None:
    jane = customer()
    first = add(web, jane, "pm_card_visa", key="once")
    assert add(web, jane, "pm_card_visa", key="once").json == first.json
    method = outcome(web, jane, first)["result"]["payment_method"]
    outcome(web, jane, add(web, jane, method))
    assert cards(web, jane) == [("visa", True)]
    assert len(stripe.requests(ATTACH)) == 1


def test_a_lost_answer_attaches_no_second_card(web: FlaskClient, stripe: StripeSandbox) -> None:
    jane = customer()
    stripe.fault("lose", operation=ATTACH)
    accepted = add(web, jane, "pm_card_visa")
    drain()
    time_passes()
    assert outcome(web, jane, accepted)["state"] == "succeeded"
    assert len([m for m in stripe.objects("payment_method") if m["customer"] == jane.stripe_id]) == 1


def test_a_card_waits_for_provisioning(web: FlaskClient) -> None:
    jane = customer()
    sql("UPDATE customers SET stripe_customer_id = NULL")
    accepted = add(web, jane, "pm_card_visa")
    assert outcome(web, jane, accepted)["state"] == "queued"
    sql("UPDATE customers SET stripe_customer_id = %(id)s", id=jane.stripe_id)
    time_passes()
    assert outcome(web, jane, accepted)["state"] == "succeeded"


def test_a_customer_deleted_in_stripe_is_marked(web: FlaskClient) -> None:
    jane = customer()
    client().v1.customers.delete(jane.stripe_id)
    done = outcome(web, jane, add(web, jane, "pm_card_visa"))
    assert (done["state"], "deleted in Stripe" in done["error"]["message"]) == ("dead", True)
    assert one("SELECT stripe_deleted_at FROM customers") is not None


def test_when_the_default_goes_the_newest_of_the_others_is_charged(web: FlaskClient) -> None:
    jane = customer()
    visa = outcome(web, jane, add(web, jane, "pm_card_visa"))["result"]["payment_method"]
    master = outcome(web, jane, add(web, jane, "pm_card_mastercard"))["result"]["payment_method"]
    assert outcome(web, jane, web.delete(f"/api/v1/payment-methods/{master}", headers=jane.headers))["error"] is None
    assert cards(web, jane) == [("visa", True)]
    assert default_in_stripe(jane) == visa
    outcome(web, jane, web.delete(f"/api/v1/payment-methods/{visa}", headers=jane.headers))
    assert cards(web, jane) == []
    assert default_in_stripe(jane) is None
    again = outcome(web, jane, add(web, jane, visa))
    assert (again["state"], "detached" in again["error"]["message"]) == ("dead", True)


def test_a_card_that_was_attached_in_stripe_beside_the_default_can_be_removed(web: FlaskClient) -> None:
    ada = customer()
    outcome(web, ada, add(web, ada, "pm_card_visa"))
    beside = client().v1.payment_methods.attach("pm_card_amex", {"customer": ada.stripe_id}).id
    with transaction() as db:
        enqueue(db, SyncCustomer(customer_id=ada.id, occasion="event:evt_1"))
    drain()
    assert len(cards(web, ada)) == 2
    removed = web.delete(f"/api/v1/payment-methods/{beside}", headers=ada.headers)
    assert outcome(web, ada, removed)["state"] == "succeeded"
    assert cards(web, ada) == [("visa", True)]


def test_a_trial_without_a_card_is_a_trial_again(web: FlaskClient) -> None:
    ada = customer()
    card = outcome(web, ada, add(web, ada, "pm_card_visa"))["result"]["payment_method"]
    assert status(ada).subscription_status == "active"
    outcome(web, ada, web.delete(f"/api/v1/payment-methods/{card}", headers=ada.headers))
    assert status(ada).subscription_status == "trial"


def test_of_two_cards_the_one_that_was_added_later_is_charged_though_the_other_took_longer(
    web: FlaskClient, stripe: StripeSandbox
) -> None:
    ada = customer()
    stripe.fault("refuse", operation=ATTACH)
    add(web, ada, "pm_card_visa")
    drain()
    outcome(web, ada, add(web, ada, "pm_card_mastercard"))
    time_passes()
    drain()
    assert sorted(cards(web, ada)) == [("mastercard", True), ("visa", False)]


def test_a_card_that_took_longer_is_charged_where_the_later_one_is_gone_again(
    web: FlaskClient, stripe: StripeSandbox
) -> None:
    ada = customer()
    stripe.fault("refuse", operation=ATTACH)
    add(web, ada, "pm_card_visa")
    drain()
    later = outcome(web, ada, add(web, ada, "pm_card_mastercard"))["result"]["payment_method"]
    outcome(web, ada, web.delete(f"/api/v1/payment-methods/{later}", headers=ada.headers))
    time_passes()
    drain()
    assert cards(web, ada) == [("visa", True)]


def test_a_card_is_removed_though_the_other_one_has_gone_in_stripe(web: FlaskClient, stripe: StripeSandbox) -> None:
    ada = customer()
    visa = outcome(web, ada, add(web, ada, "pm_card_visa"))["result"]["payment_method"]
    mastercard = outcome(web, ada, add(web, ada, "pm_card_mastercard"))["result"]["payment_method"]
    client().v1.payment_methods.detach(visa)  # and nobody has told us
    accepted = web.delete(f"/api/v1/payment-methods/{mastercard}", headers=ada.headers)
    drain()
    time_passes()
    assert outcome(web, ada, accepted)["state"] == "succeeded"
    assert (cards(web, ada), default_in_stripe(ada)) == ([], None)


def test_a_card_detached_in_stripe_can_be_removed_here(web: FlaskClient) -> None:
    jane = customer()
    visa = outcome(web, jane, add(web, jane, "pm_card_visa"))["result"]["payment_method"]
    client().v1.payment_methods.detach(visa)
    done = outcome(web, jane, web.delete(f"/api/v1/payment-methods/{visa}", headers=jane.headers))
    assert done["state"] == "succeeded"
    assert cards(web, jane) == []


@pytest.mark.parametrize(
    "path", ["/api/v1/payment-methods/pm_x", "/api/v1/payment-methods/%00", "/api/v1/payment-methods/ü"]
)
def test_what_is_not_theirs_is_not_there(web: FlaskClient, path: str) -> None:
    assert web.delete(path, headers=customer().headers).status_code == 404


# Stripe Checkout


def test_a_card_from_checkout_is_kept_when_the_browser_returns(web: FlaskClient, stripe: StripeSandbox) -> None:
    jane = customer("payg")
    deploy(jane, 1)
    drain()
    page = open_page(web, jane, "payment_method")
    back = give_card_at(page["url"], "visa")
    assert page["session_id"] in back
    answer = web.get(back)
    assert answer.status_code == 200
    assert "Thank you" in answer.text
    assert web.get(back).status_code == 200  # a reload changes nothing
    drain()
    assert cards(web, jane) == [("visa", True)]
    assert default_in_stripe(jane) is not None
    assert taken(stripe, jane) == 1500
    assert one("SELECT count(*) FROM jobs WHERE name = 'complete_checkout'") == 1


def test_a_page_that_is_heard_of_late_does_not_replace_the_card_that_was_added_since(
    web: FlaskClient, stripe: StripeSandbox
) -> None:
    jane = customer()
    back = give_card_at(open_page(web, jane, "payment_method")["url"], "visa")
    stripe.advance(60)
    outcome(web, jane, add(web, jane, "pm_card_mastercard"))
    master = default_in_stripe(jane)
    stripe.advance(60)
    web.get(back)
    drain()
    assert sorted(cards(web, jane)) == [("mastercard", True), ("visa", False)]
    assert default_in_stripe(jane) == master
    web.get(give_card_at(open_page(web, jane, "payment_method")["url"], "amex"))
    drain()
    assert ("amex", True) in cards(web, jane)


def test_a_card_from_a_page_that_was_taken_away_before_we_heard_of_it_is_not_kept(
    web: FlaskClient, stripe: StripeSandbox
) -> None:
    jane = customer()
    back = give_card_at(open_page(web, jane, "payment_method")["url"], "visa")
    client().v1.payment_methods.detach(stripe.objects("payment_method")[0]["id"])
    web.get(back)
    drain()
    assert one("SELECT state FROM jobs WHERE name = 'complete_checkout'") == "succeeded"
    assert (cards(web, jane), default_in_stripe(jane)) == ([], None)


def test_a_page_of_a_customer_deleted_in_stripe_is_done_with(web: FlaskClient) -> None:
    jane = customer()
    back = give_card_at(open_page(web, jane, "payment_method")["url"], "visa")
    client().v1.customers.delete(jane.stripe_id)
    web.get(back)
    drain()
    assert one("SELECT state FROM jobs WHERE name = 'complete_checkout'") == "succeeded"
    assert cards(web, jane) == []


def test_a_page_that_was_not_completed_brings_nothing(web: FlaskClient) -> None:
    jane = customer()
    page = open_page(web, jane, "payment_method")
    back = urlsplit(client().v1.checkout.sessions.retrieve(page["session_id"]).success_url or "")
    query = back.query.replace("{CHECKOUT_SESSION_ID}", page["session_id"])
    assert web.get(f"{back.path}?{query}").status_code == 200
    drain()
    state = "SELECT state FROM jobs WHERE name = 'complete_checkout'"
    assert one(state) == "queued"
    sql("UPDATE jobs SET busy_since = busy_since - interval '10 minutes' WHERE name = 'complete_checkout'")
    time_passes()
    drain()
    assert one(state) == "succeeded"
    assert cards(web, jane) == []


def test_a_page_of_another_customer_brings_nothing(web: FlaskClient) -> None:
    jane, eve = customer(), customer()
    hers, evil = open_page(web, jane, "payment_method"), open_page(web, eve, "payment_method")
    give_card_at(hers["url"], "visa")
    back = give_card_at(evil["url"], "visa")
    web.get(back.replace(evil["session_id"], hers["session_id"]))
    drain()
    assert one("SELECT error_message FROM jobs WHERE name = 'complete_checkout'").endswith("is another customer's")
    assert cards(web, eve) == []


def test_the_return_page_opens_for_no_made_up_token(web: FlaskClient) -> None:
    assert web.get("/billing/return?session=cs_test_1&token=x").status_code == 403
    assert count("jobs") == 0
