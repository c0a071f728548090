"""A deployed fix of payg is charged once, whatever is lost, repeated or refused (seed: "retries payment failures",
"recovers from stripe API failures"; failures.md 1 to 6 and 22 to 26, 38)."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from flask.testing import FlaskClient

from app.billing import charges
from app.contracts.billing import AttachPaymentMethod, ChargeFix, RefundCharge
from app.contracts.webhooks import SyncCharge
from app.db import get_engine, transaction
from app.ledger import ops
from app.ledger.enqueue import enqueue
from app.ledger.executor import Executor
from app.ledger.relay import Relay
from app.sandbox.stripe import StripeSandbox
from app.stripe.client import client
from tests.system import money
from tests.system.scene import Mailbox, drain, drain_to_the_end, during, findings, job, one, sql, time_passes
from tests.system.test_payment_methods import add, outcome

CREATE = "POST /v1/payment_intents"
CONFIRM = "POST /v1/payment_intents/{intent}/confirm"
REFUND = "POST /v1/refunds"


def test_a_fix_of_payg_is_charged_at_once_and_once(stripe: StripeSandbox) -> None:
    ada = money.customer("payg", "pm_card_visa")
    money.deploy(ada, 1)
    money.deploy(ada, 1, run="2")
    drain()
    assert money.charge_states(ada) == ["succeeded"]
    assert money.entries(ada) == [("accepted", 0), ("succeeded", 1500)]
    assert money.taken(stripe, ada) == 1500
    assert len(stripe.objects("payment_intent")) == 1
    assert money.status(ada).can_use_service


@pytest.mark.parametrize("operation", [CREATE, CONFIRM])
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "lose"},
        {"kind": "refuse"},
        {"kind": "lock_timeout"},
        {"kind": "status", "status": 409},
        {"kind": "status", "status": 429},
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 500, "when": "after"},
    ],
    ids=lambda fault: "-".join(str(part) for part in fault.values()),
)
def test_recovers_from_stripe_api_failures(stripe: StripeSandbox, operation: str, fault: dict[str, Any]) -> None:
    ada = money.customer("payg", "pm_card_visa")
    stripe.fault(operation=operation, count=3, **fault)
    money.deploy(ada, 1)
    drain_to_the_end()
    assert money.charge_states(ada) == ["succeeded"]
    assert money.taken(stripe, ada) == 1500
    assert len(stripe.objects("payment_intent")) == 1


def test_every_attempt_at_a_confirmation_has_its_key(stripe: StripeSandbox) -> None:
    ada = money.customer("payg", "pm_card_visa")
    stripe.fault("status", operation=CONFIRM, count=3, status=503)
    money.deploy(ada, 1)
    drain_to_the_end()
    keys = [entry["key"] for entry in stripe.requests(CONFIRM)]
    assert len(keys) == 4
    assert len(set(keys)) == 1
    assert keys[0].endswith(":confirm:1")


def test_an_answer_lost_for_longer_than_the_key_lives_makes_no_second_charge(stripe: StripeSandbox) -> None:
    ada = money.customer("payg", "pm_card_visa")
    for operation in (CREATE, CONFIRM):
        stripe.fault("lose", operation=operation, count=1)
    money.deploy(ada, 1)
    for _ in range(3):
        drain()
        stripe.advance(25 * 3600)
        sql("UPDATE external_calls SET first_sent_at = first_sent_at - interval '25 hours'")
        time_passes()
    drain_to_the_end()
    assert money.charge_states(ada) == ["succeeded"]
    assert len(stripe.objects("payment_intent")) == 1
    assert money.taken(stripe, ada) == 1500


def test_retries_payment_failures_after_1_3_5_and_7_days(stripe: StripeSandbox, mailbox: Mailbox) -> None:
    ada = money.customer("payg", "pm_card_chargeCustomerFail")
    money.deploy(ada, 1)
    drain()
    for waited in (1, 2, 2):
        assert money.charge_states(ada) == ["declined"]
        assert money.status(ada).can_use_service
        confirmed = len(stripe.requests(CONFIRM))
        money.days_pass(ada, waited)
        drain()
        assert len(stripe.requests(CONFIRM)) == confirmed + 1
    money.days_pass(ada, 2)
    drain()
    assert money.charge_states(ada) == ["uncollectible"]
    assert money.status(ada).subscription_status == "past_due"
    assert not money.status(ada).can_use_service
    assert money.taken(stripe, ada) == 0
    assert one("SELECT count(*) FROM jobs WHERE state IN ('queued', 'retrying')") == 0


def test_retries_that_were_held_for_days_come_one_by_one_when_they_are_released(stripe: StripeSandbox) -> None:
    ada = money.customer("payg", "pm_card_chargeCustomerFail")
    money.deploy(ada, 1)
    drain()
    money.days_pass(ada, 8)
    with get_engine().connect() as db:
        Relay(["billing"]).sweep(db)
        assert one("SELECT state FROM jobs WHERE name = 'charge_fix' AND state <> 'succeeded'") == "held"
        Relay([]).sweep(db)
    drain()
    assert len(stripe.requests(CONFIRM)) == 2
    waits = "SELECT run_at - clock_timestamp() FROM jobs WHERE state = 'queued'"
    for number, gap in ((3, 2), (4, 2), (5, 2)):
        assert timedelta(days=gap, minutes=-5) < one(waits) <= timedelta(days=gap)
        assert money.charge_states(ada) == ["declined"]
        money.days_pass(ada, gap)
        drain()
        assert len(stripe.requests(CONFIRM)) == number
    assert money.charge_states(ada) == ["uncollectible"]


def test_a_new_card_pays_what_had_failed_at_once_and_the_retries_find_it_paid(
    stripe: StripeSandbox, mailbox: Mailbox
) -> None:
    ada = money.customer("payg", "pm_card_chargeCustomerFail")
    money.deploy(ada, 1)
    drain()
    assert money.charge_states(ada) == ["declined"]
    method = money.give_card(ada, "pm_card_visa")
    with transaction() as db:
        charges.redrive(db, ada.id, method, "new")
    drain()
    assert money.charge_states(ada) == ["succeeded"]
    money.days_pass(ada, 10)
    drain_to_the_end()
    assert money.taken(stripe, ada) == 1500
    assert money.entries(ada)[-1] == ("succeeded", 1500)


def test_the_same_card_added_again_pays_each_time_what_is_open(stripe: StripeSandbox) -> None:
    ada = money.customer("payg")
    method = money.give_card(ada, "pm_card_chargeCustomerFail")

    def add_again(request: str) -> None:
        with transaction() as db:
            enqueue(db, AttachPaymentMethod(customer_id=ada.id, payment_method=method, request=request))
        drain()

    money.deploy(ada, 1)
    drain()
    add_again("before there is money on it")
    assert money.charge_states(ada) == ["declined"]
    stripe.change_card(method, "visa")
    add_again("with money on it")
    assert money.charge_states(ada) == ["succeeded"]
    assert money.taken(stripe, ada) == 1500


def test_a_hard_decline_is_not_tried_again_on_that_card(stripe: StripeSandbox, mailbox: Mailbox) -> None:
    ada = money.customer("payg")
    stripe.change_card(money.give_card(ada, "pm_card_visa"), "visa_chargeDeclinedStolenCard")
    money.deploy(ada, 1)
    drain()
    assert "Add another card" in mailbox.mail().text
    assert "stolen" not in mailbox.mail().text.lower()
    money.days_pass(ada, 10)
    drain_to_the_end()
    assert len(stripe.requests(CONFIRM)) == 1
    assert money.charge_states(ada) == ["uncollectible"]


def test_a_bank_that_wants_to_hear_the_customer_gets_the_same_intent_by_link(
    stripe: StripeSandbox, mailbox: Mailbox
) -> None:
    ada = money.customer("payg", "pm_card_authenticationRequired")
    money.deploy(ada, 1)
    drain()
    assert money.charge_states(ada) == ["requires_action"]
    [intent] = stripe.objects("payment_intent")
    assert intent["next_action"]["redirect_to_url"]["url"] in mailbox.mails()[-1].text
    stripe.authenticate(intent["id"])
    money.days_pass(ada, 1)
    drain_to_the_end()
    assert money.charge_states(ada) == ["succeeded"]
    assert len(stripe.objects("payment_intent")) == 1


def test_no_card_that_is_reported_lost_or_stolen_is_asked_again(stripe: StripeSandbox, web: FlaskClient) -> None:
    """Not either of two: while the first is the default again, its customer does not pay."""
    ada = money.customer("payg")
    stolen = outcome(web, ada, add(web, ada, "pm_card_visa"))["result"]["payment_method"]
    stripe.change_card(stolen, "chargeDeclinedStolenCard")
    money.deploy(ada, 1)
    drain()
    lost = client().v1.payment_methods.attach("pm_card_mastercard", {"customer": ada.stripe_id}).id
    stripe.change_card(lost, "chargeDeclinedLostCard")
    outcome(web, ada, add(web, ada, lost))
    outcome(web, ada, web.delete(f"/api/v1/payment-methods/{lost}", headers=ada.headers))
    assert one("SELECT default_payment_method FROM customers") == stolen
    assert not money.status(ada).can_use_service
    for days in (1, 2, 2, 2):
        money.days_pass(ada, days)
        drain()
    assert len(stripe.requests(CONFIRM)) == 2
    assert (money.charge_states(ada), findings()) == (["uncollectible"], [])


@pytest.mark.parametrize("asks", ["always", "at the last"])
def test_who_never_confirms_is_past_due_after_the_last_retry_and_the_link_still_pays(
    stripe: StripeSandbox, asks: str
) -> None:
    ada = money.customer("payg", f"pm_card_{'authenticationRequired' if asks == 'always' else 'chargeCustomerFail'}")
    money.deploy(ada, 1)
    drain()
    for days in (1, 2, 2, 2):
        if stripe.objects("payment_intent")[0]["status"] == "requires_action":
            stripe.authenticate(stripe.objects("payment_intent")[0]["id"], False)
        if len(stripe.requests(CONFIRM)) == 4 and asks == "at the last":
            stripe.change_card(stripe.objects("payment_method")[0]["id"], "authenticationRequired")
        money.days_pass(ada, days)
        drain()
    assert (money.charge_states(ada), money.status(ada).subscription_status) == (["uncollectible"], "past_due")
    assert findings() == []
    [intent] = stripe.objects("payment_intent")
    stripe.authenticate(intent["id"])
    with transaction() as db:
        enqueue(db, SyncCharge(customer_id=ada.id, charge_id=one("SELECT id FROM charges"), occasion="evt_1"))
    drain()
    assert (money.charge_states(ada), money.status(ada).subscription_status) == (["succeeded"], "active")


def test_a_second_link_whose_worker_died_is_mailed_by_the_next_retry(stripe: StripeSandbox, mailbox: Mailbox) -> None:
    ada = money.customer("payg", "pm_card_authenticationRequired")
    money.deploy(ada, 1)
    drain()
    [intent] = stripe.objects("payment_intent")
    stripe.authenticate(intent["id"], False)
    money.days_pass(ada, 1)
    drain()
    assert len(mailbox.mails()) == 2
    sql("UPDATE charges SET confirms = 2")  # as if its worker had died before it knew
    sql("DELETE FROM job_keys WHERE right(key, 10) = ':confirm:4'")
    mailbox.clear()
    for days in (2, 2):
        money.days_pass(ada, days)
        drain()
    [intent] = stripe.objects("payment_intent")
    assert intent["next_action"]["redirect_to_url"]["url"] in mailbox.mail().text
    assert len(stripe.requests(CONFIRM)) == 4


def test_no_charge_is_tried_for_a_customer_who_was_deleted_in_stripe(stripe: StripeSandbox) -> None:
    ada = money.customer("payg", "pm_card_visa")
    client().v1.customers.delete(ada.stripe_id)
    money.deploy(ada, 1)
    money.deploy(ada, 2)
    drain_to_the_end()
    assert money.charge_states(ada) == ["uncollectible", "uncollectible"]
    assert len(stripe.requests(CREATE)) == 1
    assert not money.status(ada).can_use_service


def test_a_card_detached_between_check_and_charge_takes_the_decline_path(stripe: StripeSandbox) -> None:
    ada = money.customer("payg")
    method = money.give_card(ada, "pm_card_visa")
    client().v1.payment_methods.detach(method)
    money.deploy(ada, 1)
    drain()
    assert money.charge_states(ada) == ["declined"]
    new = money.give_card(ada, "pm_card_visa")
    with transaction() as db:
        charges.redrive(db, ada.id, new, "new")
    drain()
    assert money.charge_states(ada) == ["succeeded"]


def test_the_kill_switch_holds_charges_while_fixes_are_counted(
    stripe: StripeSandbox, configure: Callable[..., None]
) -> None:
    ada = money.customer("payg", "pm_card_visa")
    money.deploy(ada, 1)
    with get_engine().connect() as db:
        Executor(["billing"]).drain("billing")
        Relay(["billing"]).sweep(db)
    assert money.outcomes(ada) == ["charge"]
    assert one("SELECT state FROM jobs WHERE name = 'charge_fix'") == "held"
    assert stripe.requests(CREATE) == []
    with get_engine().connect() as db:
        Relay([]).sweep(db)
    drain_to_the_end()
    assert money.taken(stripe, ada) == 1500


def test_an_intent_of_another_amount_is_refused_before_it_is_confirmed(stripe: StripeSandbox) -> None:
    ada = money.customer("payg", "pm_card_visa")
    stripe.fault("refuse", operation=CONFIRM, count=1)
    money.deploy(ada, 1)
    drain()
    [intent] = stripe.objects("payment_intent")
    client().v1.payment_intents.update(intent["id"], {"amount": 9900})
    drain_to_the_end()
    assert one("SELECT state FROM jobs WHERE name = 'charge_fix'") == "dead"
    assert "9900" in one("SELECT error_message FROM jobs WHERE name = 'charge_fix'")
    assert money.taken(stripe, ada) == 0


def test_refunds_add_up_and_never_exceed_what_was_taken(stripe: StripeSandbox) -> None:
    ada = money.customer("payg", "pm_card_visa")
    money.deploy(ada, 1)
    drain()
    fix = one("SELECT id FROM fixes")
    with transaction() as db:
        charges.ask_refund(db, fix, 500, actor="ops", reason="kind")
    for cents in (0, -5, 1001):
        with pytest.raises(charges.RefundRefused), transaction() as db:
            charges.ask_refund(db, fix, cents, actor="ops", reason="greedy")
    stripe.fault("lose", operation="POST /v1/refunds", count=1)
    drain_to_the_end()
    with transaction() as db:
        _, left = charges.ask_refund(db, fix, None, actor="ops", reason="all of it")
    assert left == 1000
    drain_to_the_end()
    assert money.entries(ada)[-4:] == [
        ("refund_asked", 0),
        ("refunded", -500),
        ("refund_asked", 0),
        ("refunded", -1000),
    ]
    assert sum(refund["amount"] for refund in stripe.objects("refund")) == 1500
    with pytest.raises(charges.RefundRefused), transaction() as db:
        charges.ask_refund(db, fix, 1, actor="ops", reason="once more")


def test_the_audit_finds_money_that_stripe_has_and_we_do_not(stripe: StripeSandbox) -> None:
    ada = money.customer("payg", "pm_card_visa")
    money.deploy(ada, 1)
    drain()
    assert findings() == []
    [intent] = stripe.objects("payment_intent")
    client().v1.refunds.create({"payment_intent": intent["id"], "amount": 100})
    wanted = {"amount": 700, "currency": "usd", "customer": ada.stripe_id, "metadata": {"fix_id": "999", "fix": "f00"}}
    client().v1.payment_intents.create(wanted)
    details = [finding["detail"] for finding in findings()]
    assert len(details) == 2
    assert any("100 cents" in detail and "0 here" in detail for detail in details)
    assert any("it is not ours" in detail for detail in details)


def test_a_restored_database_whose_keys_stripe_has_with_other_parameters_takes_new_ones(stripe: StripeSandbox) -> None:
    ada = money.customer("payg", "pm_card_chargeCustomerFail")
    money.deploy(ada, 1)
    drain()
    sql("UPDATE charges SET payment_intent = NULL, state = 'pending', confirms = 0")
    sql("DELETE FROM external_calls")
    money.give_card(ada, "pm_card_visa")
    with transaction() as db:
        enqueue(db, ChargeFix(customer_id=ada.id, charge_id=one("SELECT id FROM charges"), occasion="restored"))
    for _ in range(4):
        time_passes()
        drain()
    assert money.charge_states(ada) == ["succeeded"]
    assert len(stripe.objects("payment_intent")) == 1
    assert money.taken(stripe, ada) == 1500


def test_a_database_restored_from_before_the_charge_finds_the_charge_in_stripe(stripe: StripeSandbox) -> None:
    ada = money.customer("payg", "pm_card_visa")
    money.deploy(ada, 1)
    drain()
    for statement in (
        "ALTER TABLE charge_entries DISABLE TRIGGER charge_entries_append_only",
        "DELETE FROM charge_entries WHERE kind <> 'accepted'",
        "ALTER TABLE charge_entries ENABLE TRIGGER charge_entries_append_only",
        "UPDATE charges SET state = 'pending', payment_intent = NULL, succeeded_at = NULL,"
        " created_at = created_at - interval '2 days'",
        "DELETE FROM external_calls",
    ):
        sql(statement)
    stripe.advance(2 * 86400)
    with transaction() as db:
        enqueue(db, ChargeFix(customer_id=ada.id, charge_id=one("SELECT id FROM charges"), occasion="restored"))
    drain()
    assert money.charge_states(ada) == ["succeeded"]
    assert len(stripe.objects("payment_intent")) == 1
    assert findings() == []


@pytest.mark.parametrize("known", [True, False])
def test_a_database_restored_from_before_the_refund_finds_the_refund_in_stripe(
    stripe: StripeSandbox, known: bool
) -> None:
    ada = money.customer("payg", "pm_card_visa")
    money.deploy(ada, 1)
    drain()
    with transaction() as db:
        charges.ask_refund(db, one("SELECT id FROM fixes"), 500, actor="ops", reason="kind")
    drain()
    charge = one("SELECT id FROM charges")
    for statement in (
        "ALTER TABLE charge_entries DISABLE TRIGGER charge_entries_append_only",
        "DELETE FROM charge_entries WHERE kind = 'refunded'",
        "UPDATE charge_entries SET at = at - interval '2 days'",
        "ALTER TABLE charge_entries ENABLE TRIGGER charge_entries_append_only",
        "DELETE FROM external_calls",
    ):
        sql(statement)
    stripe.advance(2 * 86400)
    with transaction() as db:
        if known:  # reconcile has found it first
            enqueue(db, SyncCharge(customer_id=ada.id, charge_id=charge, occasion="reconcile"))
    drain()
    with transaction() as db:
        again = RefundCharge(customer_id=ada.id, charge_id=charge, cents=500, number=1)
        enqueue(db, again, key="as it was in the backup")
    stripe.clear_requests()
    drain()
    assert [refund["amount"] for refund in stripe.objects("refund")] == [500]
    assert money.entries(ada)[2:] == [("refund_asked", 0), ("refunded", -500)]
    assert one("SELECT count(*) FROM jobs WHERE state <> 'succeeded'") == 0
    assert (stripe.requests("* /v1/refunds*") == []) is known
    assert findings() == []


def test_a_storm_burns_no_attempts_of_a_charge(stripe: StripeSandbox) -> None:
    ada = money.customer("payg", "pm_card_visa")
    stripe.fault("status", operation=CONFIRM, count=40, status=503)
    money.deploy(ada, 1)
    drain_to_the_end(rounds=90)
    seen = job("charge_fix")
    assert len(stripe.requests(CONFIRM)) == 41 > seen["max_attempts"]
    assert seen["state"] == "succeeded"
    assert money.taken(stripe, ada) == 1500


def test_a_charge_that_was_held_for_a_day_is_taken_from_the_card_that_is_the_default_now(
    stripe: StripeSandbox,
) -> None:
    ada = money.customer("payg", "pm_card_visa")
    money.deploy(ada, 1)
    stripe.fault("refuse", operation=CONFIRM)
    drain()
    new = money.give_card(ada, "pm_card_mastercard")
    sql("UPDATE external_calls SET first_sent_at = first_sent_at - interval '25 hours'")
    drain_to_the_end()
    assert money.taken(stripe, ada) == 1500
    assert stripe.objects("payment_intent")[0]["payment_method"] == new


def test_a_refund_that_stripe_refuses_can_be_asked_for_again(stripe: StripeSandbox) -> None:
    ada = money.customer("payg", "pm_card_visa")
    money.deploy(ada, 1)
    drain()
    fix, charge = one("SELECT id FROM fixes"), one("SELECT id FROM charges")
    client().v1.refunds.create({"payment_intent": stripe.objects("payment_intent")[0]["id"], "amount": 1000})
    with transaction() as db:
        refused, _ = charges.ask_refund(db, fix, 1500, actor="ops", reason="before the dashboard's was heard of")
    drain()
    assert one("SELECT state FROM jobs WHERE id = %(id)s", id=refused) == "dead"
    with transaction() as db:
        enqueue(db, SyncCharge(customer_id=ada.id, charge_id=charge, occasion="event:evt_1"))
    drain()
    with transaction() as db:
        assert charges.refundable(db, charge) == 500
        charges.ask_refund(db, fix, 500, actor="ops", reason="the rest")
    drain()
    with transaction() as db:
        ops.requeue(db, refused, actor="ops")
    drain()
    assert sum(refund["amount"] for refund in stripe.objects("refund")) == 1500
    assert findings() == []


def test_a_key_of_another_account_marks_nobody_as_deleted(
    stripe: StripeSandbox, configure: Callable[..., None]
) -> None:
    ada = money.customer("payg", "pm_card_visa")
    money.deploy(ada, 1)
    configure(STRIPE_SECRET_KEY="sk_live_another")
    drain()
    charge = job("charge_fix")
    assert (charge["state"], charge["error"]["kind"]) == ("dead", "permanent")
    assert one("SELECT stripe_deleted_at FROM customers") is None
    configure(STRIPE_SECRET_KEY="sk_test_tallyhook")
    with transaction() as db:
        ops.requeue(db, UUID(charge["id"]), actor="ada")
    drain()
    assert (money.charge_states(ada), money.taken(stripe, ada)) == (["succeeded"], 1500)


def test_what_was_held_for_a_day_is_looked_for_once_and_then_sent_under_one_key(stripe: StripeSandbox) -> None:
    """A renewed key at each attempt would make a second refund where the first one's answer was slow (law 6)."""
    ada = money.customer("payg", "pm_card_visa")
    money.deploy(ada, 1)
    drain()
    with transaction() as db:
        charges.ask_refund(db, one("SELECT id FROM fixes"), 500, actor="ops", reason="kind")
    sql("ALTER TABLE charge_entries DISABLE TRIGGER charge_entries_append_only")
    sql("UPDATE charge_entries SET at = at - interval '25 hours'")
    sql("ALTER TABLE charge_entries ENABLE TRIGGER charge_entries_append_only")
    stripe.fault("refuse", operation=REFUND, count=3)
    drain_to_the_end()
    assert {entry["key"] for entry in stripe.requests(REFUND)} == {"refund:1:1:2"}
    assert len(stripe.requests(REFUND)) == 4
    assert [refund["amount"] for refund in stripe.objects("refund")] == [500]


def test_an_intent_that_is_paid_by_its_link_while_it_is_confirmed_is_looked_at_again(stripe: StripeSandbox) -> None:
    ada = money.customer("payg", "pm_card_authenticationRequired")
    money.deploy(ada, 1)
    drain()
    [intent] = stripe.objects("payment_intent")
    money.give_card(ada, "pm_card_visa")
    with transaction() as db:
        charges.redrive(db, ada.id, "pm_new", "new")
    during(stripe, CONFIRM, drain, lambda: stripe.authenticate(intent["id"]))
    drain_to_the_end()
    [busy] = sql("SELECT error_message FROM job_attempts WHERE outcome = 'busy'")
    assert "has just changed" in busy.error_message
    assert money.charge_states(ada) == ["succeeded"]
    assert money.taken(stripe, ada) == 1500
