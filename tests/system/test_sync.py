"""What is in Stripe is read and kept, whoever changed it there: charges with their refunds and disputes, cards,
invoices, subscriptions (failures.md 7 to 9, 21, 22, 32, 33). After each test whatever was read is read again, twice and
in another order: nothing changes by it, and the audit finds that Stripe agrees."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.billing import charges
from app.contracts.billing import OfCustomer, SyncSubscription
from app.contracts.upkeep import WarnOfExpiringCards
from app.contracts.webhooks import SyncCharge, SyncCustomer, SyncInvoices
from app.db import transaction
from app.ledger.enqueue import enqueue
from app.sandbox.stripe import StripeSandbox
from app.stripe import catalog
from app.stripe.client import client
from tests.system import money
from tests.system.money import Customer
from tests.system.scene import Mailbox, drain, drain_to_the_end, during, findings, job, one, sql, time_passes
from tests.system.test_payment_methods import add, cards, default_in_stripe, give_card_at, open_page, outcome
from tests.system.test_plans import DAY, cancel, choose, invoices, on_teams, plan
from tests.system.test_webhook_commands import deliver, dry_run

CONFIRM = "POST /v1/payment_intents/{intent}/confirm"
REFUND = "POST /v1/refunds"

_occasions = count(1)


def commands(customer_id: int) -> list[OfCustomer]:
    """Whatever can be read anew of the customer."""
    about: dict[str, Any] = {"customer_id": customer_id, "occasion": f"event:evt_{next(_occasions)}"}
    mine = {"id": customer_id}
    of_charges = sql("SELECT id FROM charges WHERE customer_id = %(id)s ORDER BY id", **mine)
    of_subscriptions = sql("SELECT id FROM subscriptions WHERE customer_id = %(id)s AND id ~ 'sub_.{6}'", **mine)
    return [
        SyncCustomer(**about),
        *(SyncCharge(**about, charge_id=row.id) for row in of_charges),
        SyncInvoices(**about),
        *(SyncSubscription(**about, subscription_id=row.id) for row in of_subscriptions),
    ]


def sync(of: Customer) -> None:
    """Events tell of all that the customer has in Stripe."""
    with transaction() as db:
        for command in commands(of.id):
            enqueue(db, command)
    drain()


def picture() -> dict[str, list[Any]]:
    """All that is known of customers, and what they were told."""
    tables = "customers charges charge_entries disputes payment_methods invoices invoice_entries plan_changes"
    known = {table: sql(f"SELECT * FROM {table} ORDER BY id") for table in tables.split()}
    known["told"] = sql("SELECT key FROM jobs WHERE name = 'send_notice' ORDER BY key")
    columns = "id, status, plan_after, past_due_since, ended_at"
    known["subscriptions"] = sql(f"SELECT {columns} FROM subscriptions ORDER BY id")
    return known


@pytest.fixture(autouse=True)
def what_is_read_again_changes_nothing(stripe: StripeSandbox) -> Iterator[None]:
    yield
    before, moved = picture(), len(stripe.objects("balance_transaction"))
    for turn in (1, -1):
        for [customer_id] in sql("SELECT id FROM customers"):
            with transaction() as db:
                for command in commands(customer_id)[::turn]:
                    enqueue(db, command)
                    enqueue(db, command, key=f"{command.dedup_key}:again")
            drain()
    assert picture() == before
    assert len(stripe.objects("balance_transaction")) == moved
    assert findings() == []


@pytest.fixture
def price(stripe: StripeSandbox) -> str:
    return catalog.sync()["price"]


def charged(card: str = "pm_card_visa") -> Customer:
    """A customer of payg with one fix, as its charge came out."""
    made = money.customer("payg")
    method = client().v1.payment_methods.attach(card, {"customer": made.stripe_id}).id
    client().v1.customers.update(made.stripe_id, {"invoice_settings": {"default_payment_method": method}})
    sync(made)
    money.deploy(made, 1)
    drain()
    return made


def intent(stripe: StripeSandbox) -> Any:
    [found] = stripe.objects("payment_intent")
    return found


def kept(stripe: StripeSandbox, of: Customer) -> int:
    """Cents that are with us by our entries, which has to be what Stripe's balance says."""
    ours = sum(cents for _, cents in money.entries(of))
    assert ours == sum(move["amount"] for move in stripe.objects("balance_transaction"))
    return ours


def refundable() -> int:
    with transaction() as db:
        return charges.refundable(db, one("SELECT id FROM charges"))


def ask_refund(cents: int | None = None) -> None:
    with transaction() as db:
        charges.ask_refund(db, one("SELECT id FROM fixes"), cents, actor="ops", reason="kind")


def mails(mailbox: Mailbox, subject: str) -> int:
    return sum(subject in mail.subject for mail in mailbox.mails())


# Charges


def test_refunds_made_in_the_dashboard_are_entries_and_are_told(stripe: StripeSandbox, mailbox: Mailbox) -> None:
    ada = charged()
    client().v1.refunds.create({"payment_intent": intent(stripe)["id"], "amount": 500})
    sync(ada)
    assert (kept(stripe, ada), refundable()) == (1000, 1000)
    client().v1.refunds.create({"payment_intent": intent(stripe)["id"], "amount": 300})
    client().v1.refunds.create({"payment_intent": intent(stripe)["id"]})
    sync(ada)
    assert money.entries(ada)[2:] == [("refunded", -500), ("refunded", -300), ("refunded", -700)]
    assert (kept(stripe, ada), refundable()) == (0, 0)
    assert mails(mailbox, "We have refunded") == 3
    assert mails(mailbox, "$7.00") == 1


def test_more_refunds_than_stripe_shows_at_once_are_all_entries(stripe: StripeSandbox) -> None:
    ada = charged()
    for _ in range(12):
        client().v1.refunds.create({"payment_intent": intent(stripe)["id"], "amount": 100})
    sync(ada)
    assert money.entries(ada)[2:] == [("refunded", -100)] * 12
    assert kept(stripe, ada) == 300


@pytest.mark.parametrize("seen_between", [True, False])
def test_a_refund_that_the_bank_could_not_make_is_taken_back(
    stripe: StripeSandbox, mailbox: Mailbox, seen_between: bool
) -> None:
    ada = charged()
    client().v1.refunds.create({"payment_intent": intent(stripe)["id"], "amount": 500})
    if seen_between:
        sync(ada)
    stripe.fail_refund(stripe.objects("refund")[0]["id"])
    sync(ada)
    assert money.entries(ada)[2:] == [("refunded", -500), ("refund_failed", 500)]
    assert (kept(stripe, ada), refundable()) == (1500, 1500)
    assert mails(mailbox, "We have refunded") == seen_between
    assert mails(mailbox, "Our refund of $5.00 did not arrive") == 1


def test_a_refund_that_ops_asked_for_and_the_bank_could_not_make_can_be_asked_for_again(stripe: StripeSandbox) -> None:
    ada = charged()
    ask_refund()
    drain()
    stripe.fail_refund(stripe.objects("refund")[0]["id"])
    sync(ada)
    assert (kept(stripe, ada), refundable()) == (1500, 1500)
    ask_refund(400)
    drain()
    sync(ada)
    assert (kept(stripe, ada), refundable()) == (1100, 1100)


def test_a_refund_whose_answer_was_lost_is_one_refund_whoever_sees_it_first(
    stripe: StripeSandbox, mailbox: Mailbox
) -> None:
    ada = charged()
    stripe.fault("lose", operation=REFUND, count=1)
    ask_refund(500)
    drain()
    assert refundable() == 1000
    sync(ada)
    assert (money.entries(ada)[-1], refundable()) == (("refunded", -500), 1000)
    drain_to_the_end()
    assert money.entries(ada)[2:] == [("refund_asked", 0), ("refunded", -500)]
    assert kept(stripe, ada) == 1000
    assert mails(mailbox, "We have refunded") == 1


@pytest.mark.parametrize("seen_between", [True, False])
@pytest.mark.parametrize(("ends", "left"), [("won", 1500), ("lost", 0)])
def test_a_dispute_withdraws_and_gives_back_only_if_it_is_won(
    stripe: StripeSandbox, mailbox: Mailbox, ends: str, left: int, seen_between: bool
) -> None:
    ada = charged()
    dispute = stripe.dispute(intent(stripe)["latest_charge"])
    if seen_between:
        sync(ada)
        assert (kept(stripe, ada), refundable()) == (0, 0)
        with pytest.raises(charges.RefundRefused):
            ask_refund()
        client().v1.disputes.update(dispute["id"], {"evidence": {"receipt": "r"}})
        sync(ada)
        assert one("SELECT status FROM disputes") == "under_review"
        assert one("SELECT closed_at FROM disputes") is None
    stripe.close_dispute(dispute["id"], ends)
    sync(ada)
    given_back = [("dispute_reinstated", 1500)] if ends == "won" else []
    assert money.entries(ada)[2:] == [("dispute_withdrawn", -1500), *given_back]
    assert (kept(stripe, ada), refundable()) == (left, left)
    [row] = sql("SELECT * FROM disputes")
    assert (row.status, row.amount_cents, row.reason, row.closed_at is None) == (ends, 1500, "fraudulent", False)
    assert mails(mailbox, "is disputed") == seen_between


def test_a_card_that_disputes_at_once_is_charged_and_disputed(stripe: StripeSandbox, mailbox: Mailbox) -> None:
    ada = charged("pm_card_createDispute")
    sync(ada)
    assert money.charge_states(ada) == ["succeeded"]
    assert money.entries(ada)[-2:] == [("succeeded", 1500), ("dispute_withdrawn", -1500)]
    assert mails(mailbox, "is disputed") == 1


def test_a_refund_and_a_dispute_of_one_charge_add_up(stripe: StripeSandbox) -> None:
    ada = charged()
    client().v1.refunds.create({"payment_intent": intent(stripe)["id"], "amount": 500})
    dispute = stripe.dispute(intent(stripe)["latest_charge"])
    sync(ada)
    assert kept(stripe, ada) == 0
    stripe.fail_refund(stripe.objects("refund")[0]["id"])
    sync(ada)
    assert (kept(stripe, ada), refundable()) == (500, 500)
    stripe.close_dispute(dispute["id"], "won")
    sync(ada)
    assert (kept(stripe, ada), refundable()) == (1500, 1500)


def test_the_audit_finds_a_dispute_that_we_do_not_know(stripe: StripeSandbox) -> None:
    ada = charged()
    stripe.dispute(intent(stripe)["latest_charge"])
    [finding] = findings()
    assert "1500 cents" in finding["detail"]
    assert "disputes in Stripe, 0 here" in finding["detail"]
    sync(ada)


def test_a_payment_whose_answer_was_lost_is_known_by_the_first_who_looks(stripe: StripeSandbox) -> None:
    ada = money.customer("payg", "pm_card_visa")
    stripe.fault("lose", operation=CONFIRM, count=1)
    money.deploy(ada, 1)
    drain()
    assert money.charge_states(ada) == ["pending"]
    sync(ada)
    assert money.charge_states(ada) == ["succeeded"]
    drain_to_the_end()
    assert money.entries(ada) == [("accepted", 0), ("succeeded", 1500)]


def test_an_intent_that_was_made_and_not_stored_is_found(stripe: StripeSandbox) -> None:
    ada = charged()
    sql("UPDATE charges SET payment_intent = NULL")
    sync(ada)
    assert one("SELECT payment_intent FROM charges") == intent(stripe)["id"]


def test_a_charge_that_has_no_intent_yet_waits_for_its_own_job(stripe: StripeSandbox) -> None:
    ada = money.customer("payg", "pm_card_visa")
    stripe.fault("status", status=500, operation="POST /v1/payment_intents", count=1)
    money.deploy(ada, 1)
    drain()
    sync(ada)
    assert one("SELECT state FROM jobs WHERE name = 'sync_charge'") == "succeeded"
    assert money.charge_states(ada) == ["pending"]
    drain_to_the_end()


def test_who_pays_by_the_link_is_known_to_have_paid_at_once(stripe: StripeSandbox, mailbox: Mailbox) -> None:
    ada = charged("pm_card_authenticationRequired")
    sync(ada)
    assert money.charge_states(ada) == ["requires_action"]
    assert mails(mailbox, "Please confirm") == 1
    stripe.authenticate(intent(stripe)["id"])
    sync(ada)
    assert money.charge_states(ada) == ["succeeded"]
    assert mails(mailbox, "went through") == 1
    money.days_pass(ada, 20)
    drain_to_the_end()
    assert kept(stripe, ada) == 1500


def test_who_pays_when_all_attempts_have_failed_is_past_due_no_longer(stripe: StripeSandbox) -> None:
    ada = charged("pm_card_authenticationRequired")
    for _ in range(4):
        money.days_pass(ada, 7)
        drain()
    assert money.charge_states(ada) == ["uncollectible"]
    sync(ada)
    assert money.charge_states(ada) == ["uncollectible"]
    stripe.authenticate(intent(stripe)["id"])
    sync(ada)
    assert money.charge_states(ada) == ["succeeded"]
    assert (money.status(ada).subscription_status, money.status(ada).can_use_service) == ("active", True)


def test_a_link_is_mailed_once_whoever_sees_first_that_it_is_wanted(stripe: StripeSandbox, mailbox: Mailbox) -> None:
    ada = charged("pm_card_authenticationRequired")
    sql("UPDATE charges SET state = 'pending', confirms = 1")  # as if its worker had died before it knew
    sync(ada)
    assert money.charge_states(ada) == ["requires_action"]
    assert mails(mailbox, "Please confirm") == 1


def test_what_was_refused_is_left_to_the_retries(stripe: StripeSandbox) -> None:
    ada = charged("pm_card_chargeCustomerFail")
    stripe.clear_requests()
    before = money.entries(ada)
    sync(ada)
    assert (money.charge_states(ada), money.entries(ada)) == (["declined"], before)
    assert stripe.requests(CONFIRM) == []


def give_up(of: Customer) -> None:
    """The last retry has failed."""
    with transaction() as db:
        charges.give_up(db, charges.get(db, one("SELECT id FROM charges")), "insufficient_funds")
    drain()
    assert money.charge_states(of) == ["uncollectible"]


@pytest.mark.parametrize("given_up", [False, True])
def test_a_charge_whose_intent_is_cancelled_in_the_dashboard_is_written_off(
    web: FlaskClient, stripe: StripeSandbox, mailbox: Mailbox, given_up: bool
) -> None:
    ada = charged("pm_card_chargeCustomerFail")
    if given_up:
        give_up(ada)
        assert money.status(ada).subscription_status == "past_due"
    client().v1.payment_intents.cancel(intent(stripe)["id"])
    sync(ada)
    assert money.charge_states(ada) == ["written_off"]
    assert money.entries(ada)[-1] == ("written_off", 0)
    assert mails(mailbox, "You no longer owe $15.00") == 1
    outcome(web, ada, add(web, ada, "pm_card_visa"))
    drain_to_the_end()
    assert (money.charge_states(ada), money.taken(stripe, ada)) == (["written_off"], 0)
    assert (money.status(ada).subscription_status, money.status(ada).can_use_service) == ("active", True)


def test_who_was_deleted_in_stripe_is_told_nothing_of_cards(stripe: StripeSandbox, mailbox: Mailbox) -> None:
    ada = charged("pm_card_chargeCustomerFail")
    mailbox.clear()
    client().v1.customers.delete(ada.stripe_id)
    sync(ada)
    money.days_pass(ada, 1)
    drain()
    assert (money.charge_states(ada), mailbox.mails()) == (["uncollectible"], [])


def test_an_intent_that_somebody_changed_is_refused_aloud(stripe: StripeSandbox) -> None:
    ada = charged("pm_card_chargeCustomerFail")
    client().v1.payment_intents.update(intent(stripe)["id"], {"amount": 9900})
    sync(ada)
    assert one("SELECT state FROM jobs WHERE name = 'sync_charge'") == "dead"
    assert "9900" in one("SELECT error_message FROM jobs WHERE name = 'sync_charge'")
    client().v1.payment_intents.update(intent(stripe)["id"], {"amount": 1500})


# Cards


def attach(of: Customer, card: str) -> str:
    """In the dashboard."""
    return client().v1.payment_methods.attach(card, {"customer": of.stripe_id}).id


def make_default(of: Customer, method: str) -> None:
    """In the dashboard."""
    client().v1.customers.update(of.stripe_id, {"invoice_settings": {"default_payment_method": method}})


def test_a_customer_deleted_in_stripe_is_marked_and_has_no_cards(stripe: StripeSandbox, web: FlaskClient) -> None:
    ada = charged()
    client().v1.customers.delete(ada.stripe_id)
    sync(ada)
    assert one("SELECT stripe_deleted_at FROM customers") is not None
    assert cards(web, ada) == []
    assert not money.status(ada).can_use_service
    money.deploy(ada, 2)
    drain()
    assert money.charge_states(ada) == ["succeeded", "uncollectible"]
    assert money.taken(stripe, ada) == 1500


def test_the_first_card_is_as_one_that_was_added(stripe: StripeSandbox, web: FlaskClient) -> None:
    ada = money.customer("payg")
    money.deploy(ada, 1)
    drain()
    assert money.charge_states(ada) == ["declined"]
    visa = attach(ada, "pm_card_visa")
    sync(ada)
    assert cards(web, ada) == [("visa", True)]
    assert default_in_stripe(ada) == visa
    assert one("SELECT bonus_at FROM customers") is not None
    assert money.charge_states(ada) == ["succeeded"]
    assert money.status(ada).subscription_status == "active"


@pytest.mark.parametrize(("news_for", "begins"), [(timedelta(days=1), "payg"), (timedelta(0), "trial")])
def test_a_card_that_is_heard_of_late_begins_no_plan(
    stripe: StripeSandbox, monkeypatch: pytest.MonkeyPatch, news_for: timedelta, begins: str
) -> None:
    """After a restore every card is a first one: payg may have been had, and left, since."""
    monkeypatch.setattr("app.billing.payment_methods._NEWS", news_for)
    ada = money.customer()
    sql("UPDATE customers SET wanted_plan = 'payg'")
    attach(ada, "pm_card_visa")
    sync(ada)
    assert (plan(ada), one("SELECT default_payment_method IS NOT NULL FROM customers")) == (begins, True)


def test_another_card_is_listed_and_charged_only_once_it_is_the_default(web: FlaskClient) -> None:
    ada = money.customer()
    outcome(web, ada, add(web, ada, "pm_card_visa"))
    master = attach(ada, "pm_card_mastercard")
    sync(ada)
    assert cards(web, ada) == [("mastercard", False), ("visa", True)]
    make_default(ada, master)
    sync(ada)
    assert cards(web, ada) == [("mastercard", True), ("visa", False)]


def test_a_default_changed_in_stripe_is_what_teams_is_charged_to(
    web: FlaskClient, stripe: StripeSandbox, price: str
) -> None:
    ada = on_teams(web)
    master = attach(ada, "pm_card_mastercard")
    make_default(ada, master)
    sync(ada)
    assert cards(web, ada) == [("mastercard", True), ("visa", False)]
    assert stripe.objects("subscription")[0]["default_payment_method"] == master


def test_a_card_detached_in_stripe_is_gone_and_the_newest_of_the_others_is_charged(web: FlaskClient) -> None:
    ada = money.customer()
    visa = outcome(web, ada, add(web, ada, "pm_card_visa"))["result"]["payment_method"]
    amex, master = attach(ada, "pm_card_amex"), attach(ada, "pm_card_mastercard")
    client().v1.payment_methods.detach(visa)
    sync(ada)
    assert cards(web, ada) == [("mastercard", True), ("amex", False)]
    assert default_in_stripe(ada) == master
    for method in (amex, master):
        client().v1.payment_methods.detach(method)
    sync(ada)
    assert cards(web, ada) == []
    assert one("SELECT default_payment_method FROM customers") is None


def test_a_card_that_goes_while_it_is_made_the_default_is_looked_at_again(
    web: FlaskClient, stripe: StripeSandbox
) -> None:
    ada = money.customer()
    visa, master = attach(ada, "pm_card_visa"), attach(ada, "pm_card_mastercard")
    change = "POST /v1/customers/{customer}"
    during(stripe, change, lambda: sync(ada), lambda: client().v1.payment_methods.detach(master))
    drain_to_the_end()
    assert [attempt["outcome"] for attempt in job("sync_customer")["history"]] == ["busy", "succeeded"]
    assert cards(web, ada) == [("visa", True)]
    assert default_in_stripe(ada) == visa


def test_a_card_from_checkout_is_charged_though_stripe_showed_it_before(web: FlaskClient) -> None:
    ada = money.customer()
    outcome(web, ada, add(web, ada, "pm_card_visa"))
    back = give_card_at(open_page(web, ada, "payment_method")["url"], "mastercard")
    sync(ada)
    assert cards(web, ada) == [("mastercard", False), ("visa", True)]
    web.get(back)
    drain()
    assert cards(web, ada) == [("mastercard", True), ("visa", False)]


def test_a_lost_charge_of_payg_says_nothing_of_teams_and_all_of_what_comes_after_it(
    web: FlaskClient, stripe: StripeSandbox, price: str
) -> None:
    ada = money.customer("payg")
    outcome(web, ada, add(web, ada, "pm_card_visa"))
    [card] = stripe.objects("payment_method")
    stripe.change_card(card["id"], "chargeCustomerFail")
    money.deploy(ada, 1)
    drain()
    stripe.change_card(card["id"], "visa")
    assert outcome(web, ada, choose(web, ada, "teams"))["state"] == "succeeded"
    give_up(ada)
    assert (money.status(ada).subscription_status, money.status(ada).can_use_service) == ("active", True)
    assert outcome(web, ada, cancel(web, ada))["state"] == "succeeded"
    assert (plan(ada), money.status(ada).subscription_status) == ("trial", "past_due")


def expire(method: str, at: datetime) -> None:
    client().v1.payment_methods.update(method, {"card": {"exp_month": at.month, "exp_year": at.year}})


def keep_house(day: str) -> None:
    with transaction() as db:
        enqueue(db, WarnOfExpiringCards(period=day))
    drain()


def test_who_is_charged_on_a_card_that_expires_is_told_once(web: FlaskClient, mailbox: Mailbox) -> None:
    now = datetime.now(UTC)
    ada = charged()
    [method] = one("SELECT array_agg(id) FROM payment_methods")
    keep_house("2026-01-01")
    assert mails(mailbox, "expires soon") == 0
    expire(method, now)
    sync(ada)
    row = sql("SELECT exp_month, exp_year FROM payment_methods")[0]
    assert tuple(row) == (now.month, now.year)
    keep_house("2026-01-02")
    assert mails(mailbox, "ending in 4242 expires soon") == 1
    expire(method, now.replace(year=now.year + 3, day=1))
    sync(ada)
    keep_house("2026-01-03")
    assert mails(mailbox, "expires soon") == 1


def test_who_knows_of_no_event_is_told_by_the_calendar(mailbox: Mailbox) -> None:
    now = datetime.now(UTC)
    charged()
    [method] = one("SELECT array_agg(id) FROM payment_methods")
    expire(method, now)
    sql("UPDATE payment_methods SET exp_month = %(month)s, exp_year = %(year)s", month=now.month, year=now.year)
    keep_house("2026-01-01")
    keep_house("2026-01-02")
    assert mails(mailbox, "expires soon") == 1
    assert f"{now.month:02}/{now.year}" in mailbox.mails()[-1].text


# Teams: invoices, dunning and grace


def renewal_that_fails(web: FlaskClient, stripe: StripeSandbox, card: str = "chargeCustomerFail") -> Customer:
    made = on_teams(web)
    stripe.change_card(stripe.objects("payment_method")[0]["id"], card)
    stripe.advance(32 * DAY)
    sync(made)
    assert sorted(invoices(made)) == [("open", 49900, 0), ("paid", 49900, 49900)]
    return made


SETTLES: dict[str, Callable[[str], Any]] = {
    "paid": lambda invoice: client().v1.invoices.pay(invoice, {"paid_out_of_band": True}),
    "void": lambda invoice: client().v1.invoices.void_invoice(invoice),
    "uncollectible": lambda invoice: client().v1.invoices.mark_uncollectible(invoice),
}


@pytest.mark.parametrize("status", SETTLES)
def test_the_status_of_an_invoice_follows(web: FlaskClient, stripe: StripeSandbox, price: str, status: str) -> None:
    ada = renewal_that_fails(web, stripe)
    [open_one] = [invoice for invoice in stripe.objects("invoice") if invoice["status"] == "open"]
    SETTLES[status](open_one["id"])
    with transaction() as db:
        enqueue(db, SyncInvoices(customer_id=ada.id, occasion="event:evt_x"))
    drain()
    assert one("SELECT status FROM invoices WHERE id = %(id)s", id=open_one["id"]) == status
    sync(ada)
    assert money.status(ada).subscription_status == "active"
    assert money.status(ada).can_use_service


def test_a_bank_that_wants_to_hear_the_customer_of_teams_gets_them_by_link(
    web: FlaskClient, stripe: StripeSandbox, price: str, mailbox: Mailbox
) -> None:
    ada = renewal_that_fails(web, stripe, "authenticationRequired")
    [open_one] = [invoice for invoice in stripe.objects("invoice") if invoice["status"] == "open"]
    [mail] = [mail for mail in mailbox.mails() if "Please confirm" in mail.subject]
    assert open_one["hosted_invoice_url"] in mail.text
    [waiting] = [intent for intent in stripe.objects("payment_intent") if intent["status"] == "requires_action"]
    stripe.authenticate(waiting["id"])
    sync(ada)
    assert money.status(ada).subscription_status == "active"
    assert mails(mailbox, "Please confirm") == 1


def test_the_end_of_free_time_is_told_once(
    web: FlaskClient, stripe: StripeSandbox, price: str, mailbox: Mailbox
) -> None:
    ada, bob = charged(), money.customer()
    money.give_card(bob, "pm_card_visa")
    for of, days in ((ada, 2), (bob, 10)):
        made = client().v1.subscriptions.create(
            {
                "customer": of.stripe_id,
                "items": [{"price": price}],
                "trial_period_days": days,
                "metadata": {"customer_id": str(of.id)},
            }
        )
        with transaction() as db:
            enqueue(db, SyncSubscription(customer_id=of.id, subscription_id=made.id, occasion="event:evt_x"))
        sync(of)
        assert (money.status(of).subscription_status, money.status(of).can_use_service) == ("trialing", True)
    [mail] = [mail for mail in mailbox.mails() if "free time" in mail.subject]
    assert one("SELECT email FROM customers WHERE id = %(id)s", id=ada.id) in mail.to


def test_a_renewal_that_the_bank_wants_confirmed_is_one_mail(
    web: FlaskClient, stripe: StripeSandbox, price: str, mailbox: Mailbox
) -> None:
    ada = on_teams(web)
    stripe.change_card(stripe.objects("payment_method")[0]["id"], "authenticationRequired")
    mailbox.clear()
    stripe.advance(31 * DAY + 7200)
    sync(ada)
    assert [mail.subject for mail in mailbox.mails()] == ["Please confirm a payment of $499.00"]


def test_free_time_that_is_ended_early_ends_its_period(stripe: StripeSandbox, price: str) -> None:
    ada = money.customer()
    money.give_card(ada, "pm_card_visa")
    sync(ada)
    free = {"items": [{"price": price}], "trial_period_days": 20, "metadata": {"customer_id": str(ada.id)}}
    made = client().v1.subscriptions.create({"customer": ada.stripe_id, **free}).id

    def look(occasion: str) -> None:
        with transaction() as db:
            enqueue(db, SyncSubscription(customer_id=ada.id, subscription_id=made, occasion=occasion))
        drain()

    look("evt_1")
    stripe.advance(5 * DAY)
    client().v1.subscriptions.update(made, {"trial_end": "now"})
    stripe.advance(2 * 3600)
    look("evt_2")
    paid_from = one("SELECT max(starts_at) FROM billing_periods")
    assert one("SELECT min(ends_at) FROM billing_periods") == paid_from
    money.deploy(ada, 1, at=paid_from + timedelta(days=1))
    drain()
    assert one("SELECT period_start FROM fixes") == paid_from


@pytest.mark.parametrize(
    ("status", "days_past_due", "may_use"),
    [
        ("active", None, True),
        ("trialing", None, True),
        ("past_due", 1, True),
        ("past_due", 6.9, True),
        ("past_due", 7.1, False),
        ("unpaid", 1, False),
        ("paused", None, False),
        ("incomplete", None, False),
        ("something_that_stripe_adds", None, False),
    ],
)
def test_who_may_use_teams(web: FlaskClient, status: str, days_past_due: float | None, may_use: bool) -> None:
    ada = money.teams()
    sql(
        "UPDATE subscriptions SET status = %(status)s,"
        " past_due_since = clock_timestamp() - make_interval(secs => %(days)s * 86400)",
        status=status,
        days=days_past_due,
    )
    answer = web.get("/api/v1/billing/status", headers=ada.headers)
    assert answer.json["can_use_service"] is may_use


@pytest.mark.parametrize("after", ["past_due", "unpaid"])
def test_a_renewal_that_is_never_paid_ends_the_service(
    web: FlaskClient, stripe: StripeSandbox, price: str, mailbox: Mailbox, after: str
) -> None:
    stripe.change_settings(after_last_retry=after)
    ada = renewal_that_fails(web, stripe)
    assert money.status(ada).can_use_service
    stripe.advance(25 * DAY)
    time_passes()
    sync(ada)
    sql("UPDATE subscriptions SET past_due_since = past_due_since - interval '8 days'")
    status = money.status(ada)
    assert (status.subscription_status, status.can_use_service) == (after, False)
    assert mails(mailbox, "Your payment for Teams failed") == 1


def test_where_stripe_cancels_what_is_never_paid_the_trial_is_back(
    web: FlaskClient, stripe: StripeSandbox, price: str, mailbox: Mailbox
) -> None:
    stripe.change_settings(after_last_retry="cancel")
    ada = renewal_that_fails(web, stripe)
    stripe.advance(25 * DAY)
    sync(ada)
    assert plan(ada) == "trial"
    assert mails(mailbox, "Your plan: the trial") == 1


# What a mail says of an invoice is what Stripe still asks for, and for what


def bill(of: Customer, cents: int, *, charge: bool, **metadata: str) -> None:
    """In the dashboard, for something else than Teams; `charge`: Stripe charges it, else it waits to be paid."""
    client().v1.invoice_items.create({"customer": of.stripe_id, "currency": "usd", "amount": cents})
    made = client().v1.invoices.create(
        {
            "customer": of.stripe_id,
            "pending_invoice_items_behavior": "include",
            "auto_advance": charge,
            "metadata": metadata,
        }
    )
    client().v1.invoices.finalize_invoice(made.id)


@pytest.mark.parametrize(
    ("card", "subject", "says"),
    [
        ("chargeCustomerFail", "Your payment for Teams failed", "We could not charge $399.00 for Teams."),
        ("authenticationRequired", "Please confirm a payment of $399.00", "the $399.00 of an invoice for Teams"),
    ],
)
def test_what_a_credit_has_paid_is_not_asked_for(
    web: FlaskClient, stripe: StripeSandbox, price: str, mailbox: Mailbox, card: str, subject: str, says: str
) -> None:
    ada = on_teams(web)
    client().v1.customers.update(ada.stripe_id, {"balance": -10000})
    stripe.change_card(stripe.objects("payment_method")[0]["id"], card)
    stripe.advance(32 * DAY)
    sync(ada)
    assert sorted(invoices(ada)) == [("open", 49900, 0), ("paid", 49900, 49900)]
    [mail] = [mail for mail in mailbox.mails() if subject in mail.subject]
    assert says in " ".join(mail.text.split())


def test_an_open_invoice_for_something_else_is_not_owed_for_teams(
    web: FlaskClient, stripe: StripeSandbox, price: str, mailbox: Mailbox
) -> None:
    ada = on_teams(web)
    bill(ada, 10000, charge=False)
    stripe.change_card(stripe.objects("payment_method")[0]["id"], "chargeCustomerFail")
    stripe.advance(32 * DAY)
    sync(ada)
    assert invoices(ada)[-1] == ("open", 10000, 0)
    [mail] = [mail for mail in mailbox.mails() if "Your payment for Teams failed" in mail.subject]
    assert "We could not charge $499.00 for Teams." in " ".join(mail.text.split())


@pytest.mark.parametrize(
    ("card", "subject", "says"),
    [
        ("chargeCustomerFail", "An invoice of $100.00 could not be charged", "the $100.00 of an invoice."),
        ("authenticationRequired", "Please confirm a payment of $100.00", "confirm the $100.00 of an invoice."),
    ],
)
def test_an_invoice_for_something_else_that_fails_is_not_called_one_for_teams(
    web: FlaskClient, stripe: StripeSandbox, price: str, mailbox: Mailbox, card: str, subject: str, says: str
) -> None:
    ada = on_teams(web)
    stripe.change_card(stripe.objects("payment_method")[0]["id"], card)
    bill(ada, 10000, charge=True)
    stripe.advance(2 * 3600)
    sync(ada)
    [mail] = [mail for mail in mailbox.mails() if subject in mail.subject]
    told = " ".join(mail.text.split())
    assert says in told
    assert "Teams" not in told
    assert money.status(ada).subscription_status == "active"


def test_the_invoice_after_the_end_of_teams_is_called_the_last_one(
    web: FlaskClient, stripe: StripeSandbox, price: str, mailbox: Mailbox
) -> None:
    ada = on_teams(web)
    stripe.change_card(stripe.objects("payment_method")[0]["id"], "chargeCustomerFail")
    bill(ada, 1600, charge=True, final_of="sub_1")
    stripe.advance(2 * 3600)
    sync(ada)
    [mail] = [mail for mail in mailbox.mails() if "An invoice of $16.00 could not be charged" in mail.subject]
    assert "the $16.00 of your last invoice for Teams." in " ".join(mail.text.split())


def test_a_card_that_stripe_has_renewed_has_its_new_number(web: FlaskClient) -> None:
    ada = charged()
    [method] = one("SELECT array_agg(id) FROM payment_methods")
    sent = deliver(web, "payment_method.automatically_updated", {"id": method, "customer": ada.stripe_id})
    assert dry_run(sent) == []
    sql("UPDATE payment_methods SET brand = 'mastercard', last4 = '4444'")  # as it was before it was renewed
    [[subject, ours, theirs]] = dry_run(sent)
    assert (subject, ours) == (f"payment_method:{method}", "attached")
    assert theirs == "attached, with another number or expiry"
    sync(ada)
    assert tuple(sql("SELECT brand, last4 FROM payment_methods")[0]) == ("visa", "4242")
    assert dry_run(sent) == []
