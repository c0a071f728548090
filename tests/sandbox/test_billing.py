"""Products, prices, subscriptions, invoice items and invoices, through renewals and failures."""

from datetime import UTC, datetime

import pytest
import stripe

from tests.sandbox.conformance import OPENAPI, missing_fields

DAY = 24 * 3600
JANUARY_31 = int(datetime(2030, 1, 31, 12, tzinfo=UTC).timestamp())


def date(moment):
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")


@pytest.fixture
def price(api):
    product = api.products.create({"name": "Teams"})
    return api.prices.create(
        {
            "product": product.id,
            "currency": "usd",
            "unit_amount": 49900,
            "recurring": {"interval": "month"},
            "lookup_key": "teams_monthly",
        }
    )


class Time:
    """A test clock, moved to a date or by some seconds."""

    def __init__(self, api):
        self._api = api
        self.id = api.test_helpers.test_clocks.create({"frozen_time": JANUARY_31}).id

    @property
    def now(self):
        return self._api.test_helpers.test_clocks.retrieve(self.id).frozen_time

    def pass_(self, seconds):
        self._api.test_helpers.test_clocks.advance(self.id, {"frozen_time": self.now + seconds})

    def pass_to(self, moment):
        self._api.test_helpers.test_clocks.advance(self.id, {"frozen_time": moment})


@pytest.fixture
def time(api):
    return Time(api)


@pytest.fixture
def customer(api, time):
    customer = api.customers.create({"email": "teams@example.com", "test_clock": time.id})
    method = api.payment_methods.attach("pm_card_visa", {"customer": customer.id})
    return api.customers.update(customer.id, {"invoice_settings": {"default_payment_method": method.id}})


def card_of(customer):
    return customer.invoice_settings.default_payment_method


def subscribe(api, customer, price, **more):
    return api.subscriptions.create({"customer": customer.id, "items": [{"price": price.id}]} | more)


def end_of(subscription):
    return subscription["items"].data[0].current_period_end


def types(sandbox, prefix=""):
    return [event["type"] for event in sandbox.objects("event")[::-1] if event["type"].startswith(prefix)]


def test_a_price_is_found_by_its_lookup_key_and_archived(api, price):
    found = api.prices.list({"lookup_keys": ["teams_monthly"], "active": True, "expand": ["data.product"]}).data
    assert [(p.id, p.unit_amount, p.product.name) for p in found] == [(price.id, 49900, "Teams")]
    with pytest.raises(stripe.InvalidRequestError, match="already uses that lookup key"):
        api.prices.create(
            {"product": price.product, "currency": "usd", "unit_amount": 1, "lookup_key": "teams_monthly"}
        )
    dearer = api.prices.create(
        {
            "product": price.product,
            "currency": "usd",
            "unit_amount": 59900,
            "recurring": {"interval": "month"},
            "lookup_key": "teams_monthly",
            "transfer_lookup_key": True,
        }
    )
    assert [p.id for p in api.prices.list({"lookup_keys": ["teams_monthly"]}).data] == [dearer.id]
    assert api.prices.retrieve(price.id).lookup_key is None
    assert not api.prices.update(price.id, {"active": False}).active
    assert [p.id for p in api.prices.list({"product": price.product, "active": True}).data] == [dearer.id]


def test_a_product_is_made_with_an_id_changed_and_archived(api):
    product = api.products.create({"id": "teams", "name": "Teams", "metadata": {"plan": "teams"}})
    assert product.id == "teams"
    with pytest.raises(stripe.InvalidRequestError):
        api.products.create({"id": "teams", "name": "Again"})
    assert not api.products.update("teams", {"active": False}).active
    assert api.products.list({"active": True}).data == []
    assert api.products.delete("teams").deleted


def test_a_subscription_starts_paid_and_active(api, customer, price, sandbox, time):
    subscription = subscribe(api, customer, price, metadata={"customer_id": "7"}, expand=["latest_invoice.payments"])
    assert subscription.status == "active"
    assert date(end_of(subscription)) == "2030-02-28 12:00"
    invoice = subscription.latest_invoice
    assert (invoice.status, invoice.amount_paid, invoice.billing_reason) == ("paid", 49900, "subscription_create")
    assert invoice.parent.subscription_details.subscription == subscription.id
    line = invoice.lines.data[0]
    assert (line.amount, line.pricing.price_details.price) == (49900, price.id)
    payment = invoice.payments.data[0]
    assert (payment.status, payment.amount_paid) == ("paid", 49900)
    assert api.payment_intents.retrieve(payment.payment.payment_intent).status == "succeeded"
    told = types(sandbox)
    assert told.index("customer.subscription.created") < told.index("invoice.created") < told.index("invoice.paid")
    assert told[-1] == "customer.subscription.updated"


def test_a_renewal_is_a_draft_for_an_hour_then_paid(api, customer, price, sandbox, time):
    subscription = subscribe(api, customer, price)
    time.pass_to(end_of(subscription) + 60)
    renewed = api.subscriptions.retrieve(subscription.id, {"expand": ["latest_invoice"]})
    assert date(end_of(renewed)) == "2030-03-31 12:00"
    draft = renewed.latest_invoice
    assert (draft.status, draft.billing_reason, draft.amount_due) == ("draft", "subscription_cycle", 49900)
    assert (date(draft.period_start), date(draft.period_end)) == ("2030-01-31 12:00", "2030-02-28 12:00")
    assert draft.automatically_finalizes_at == end_of(subscription) + 3600
    time.pass_(3600)
    paid = api.invoices.retrieve(draft.id)
    assert (paid.status, paid.number[-4:]) == ("paid", "0002")
    assert types(sandbox, "invoice.")[-4:] == [
        "invoice.created",
        "invoice.finalized",
        "invoice.paid",
        "invoice.payment_succeeded",
    ]


def test_a_year_of_renewals(api, customer, price, time):
    subscription = subscribe(api, customer, price)
    time.pass_(365 * DAY + 2 * 3600)
    invoices = api.invoices.list({"subscription": subscription.id, "limit": 100}).data
    assert [invoice.status for invoice in invoices] == ["paid"] * 13
    assert sum(invoice.amount_paid for invoice in invoices) == 13 * 49900


def test_overage_is_one_pending_item_on_the_next_invoice(api, customer, price, time):
    subscription = subscribe(api, customer, price)
    item = api.invoice_items.create(
        {
            "customer": customer.id,
            "amount": 800,
            "currency": "usd",
            "description": "1 fix over 60",
            "metadata": {"period": "2030-01"},
        }
    )
    api.invoice_items.update(item.id, {"amount": 2400, "description": "3 fixes over 60"})
    assert [i.id for i in api.invoice_items.list({"customer": customer.id, "pending": True}).data] == [item.id]
    assert api.invoices.create_preview({"subscription": subscription.id}).total == 49900 + 2400
    time.pass_to(end_of(subscription) + 60)
    (invoice,) = api.invoices.list({"customer": customer.id, "status": "draft"}).data
    assert invoice.total == 49900 + 2400
    assert api.invoice_items.retrieve(item.id).invoice == invoice.id
    api.invoice_items.update(item.id, {"amount": 3200})
    late = api.invoice_items.create(
        {"customer": customer.id, "amount": 800, "currency": "usd", "invoice": invoice.id, "description": "late"}
    )
    assert api.invoices.retrieve(invoice.id).total == 49900 + 3200 + 800
    api.invoice_items.delete(late.id)
    time.pass_(3600)
    assert api.invoices.retrieve(invoice.id).amount_paid == 49900 + 3200
    with pytest.raises(stripe.InvalidRequestError) as refused:
        api.invoice_items.update(item.id, {"amount": 1})
    assert refused.value.code == "invoice_not_editable"
    assert api.invoice_items.list({"customer": customer.id, "pending": True}).data == []
    assert len(api.invoice_items.list({"invoice": invoice.id}).data) == 1


def test_at_most_250_items_wait(api, connect, sandbox):
    customer = api.customers.create()
    for _ in range(250):
        api.invoice_items.create({"customer": customer.id, "amount": 1, "currency": "usd"})
    with pytest.raises(stripe.InvalidRequestError, match="250"):
        api.invoice_items.create({"customer": customer.id, "amount": 1, "currency": "usd"})


def test_a_failed_renewal_is_retried_then_ends_the_subscription(api, customer, price, sandbox, time):
    subscription = subscribe(api, customer, price)
    sandbox.change_card(card_of(customer), "chargeDeclinedInsufficientFunds")
    time.pass_to(end_of(subscription) + 3700)
    late = api.subscriptions.retrieve(subscription.id, {"expand": ["latest_invoice"]})
    assert (late.status, late.latest_invoice.status, late.latest_invoice.attempt_count) == ("past_due", "open", 1)
    assert late.latest_invoice.next_payment_attempt == end_of(subscription) + 3600 + 3 * DAY
    assert "invoice.payment_failed" in types(sandbox)
    time.pass_(15 * DAY)
    over = api.subscriptions.retrieve(subscription.id)
    assert (over.status, over.cancellation_details.reason) == ("canceled", "payment_failed")
    assert api.invoices.retrieve(late.latest_invoice.id).attempt_count == 4
    assert types(sandbox, "customer.")[-1] == "customer.subscription.deleted"


def test_after_the_last_retry_a_subscription_can_be_unpaid_and_is_active_once_paid(api, customer, price, sandbox, time):
    sandbox.change_settings(after_last_retry="unpaid")
    subscription = subscribe(api, customer, price)
    sandbox.change_card(card_of(customer), "chargeDeclined")
    time.pass_to(end_of(subscription) + 20 * DAY)
    unpaid = api.subscriptions.retrieve(subscription.id)
    assert unpaid.status == "unpaid"
    sandbox.change_card(card_of(customer), "visa")
    assert api.invoices.pay(unpaid.latest_invoice).status == "paid"
    assert api.subscriptions.retrieve(subscription.id).status == "active"


def test_a_new_card_pays_what_is_past_due(api, customer, price, sandbox, time):
    subscription = subscribe(api, customer, price)
    sandbox.change_card(card_of(customer), "chargeDeclined")
    time.pass_to(end_of(subscription) + 3700)
    invoice = api.subscriptions.retrieve(subscription.id).latest_invoice
    with pytest.raises(stripe.CardError):
        api.invoices.pay(invoice)
    good = api.payment_methods.attach("pm_card_mastercard", {"customer": customer.id})
    assert api.invoices.pay(invoice, {"payment_method": good.id}).status == "paid"
    assert api.subscriptions.retrieve(subscription.id).status == "active"
    with pytest.raises(stripe.InvalidRequestError, match="already paid"):
        api.invoices.pay(invoice)


def test_a_renewal_can_wait_for_its_holder(api, customer, price, sandbox, time):
    subscription = subscribe(api, customer, price)
    sandbox.change_card(card_of(customer), "authenticationRequired")
    time.pass_to(end_of(subscription) + 3700)
    late = api.subscriptions.retrieve(subscription.id, {"expand": ["latest_invoice.payments"]})
    assert late.status == "past_due"
    assert "invoice.payment_action_required" in types(sandbox)
    sandbox.authenticate(late.latest_invoice.payments.data[0].payment.payment_intent)
    assert api.subscriptions.retrieve(subscription.id).status == "active"
    assert api.invoices.retrieve(late.latest_invoice.id).status == "paid"


def test_a_declined_first_payment_is_incomplete_and_expires(api, customer, price, sandbox, time):
    sandbox.change_card(card_of(customer), "chargeDeclined")
    subscription = subscribe(api, customer, price)
    assert subscription.status == "incomplete"
    assert api.invoices.retrieve(subscription.latest_invoice).status == "open"
    time.pass_(24 * 3600)
    assert api.subscriptions.retrieve(subscription.id).status == "incomplete_expired"
    assert api.invoices.retrieve(subscription.latest_invoice).status == "void"


def test_error_if_incomplete_starts_nothing(api, customer, price, sandbox):
    sandbox.change_card(card_of(customer), "chargeDeclined")
    with pytest.raises(stripe.CardError):
        subscribe(api, customer, price, payment_behavior="error_if_incomplete")
    assert sandbox.objects("subscription") == []
    assert sandbox.objects("invoice") == []


def test_default_incomplete_waits_for_the_customer(api, customer, price):
    subscription = subscribe(
        api,
        customer,
        price,
        payment_behavior="default_incomplete",
        payment_settings={"save_default_payment_method": "on_subscription"},
        expand=["latest_invoice.confirmation_secret"],
    )
    assert subscription.status == "incomplete"
    intent = subscription.latest_invoice.confirmation_secret.client_secret.split("_secret_")[0]
    api.payment_intents.confirm(intent, {"payment_method": card_of(customer)})
    started = api.subscriptions.retrieve(subscription.id)
    assert (started.status, started.default_payment_method) == ("active", card_of(customer))


def test_nothing_starts_without_a_card_or_on_an_archived_price(api, customer, price):
    with pytest.raises(stripe.InvalidRequestError, match="no attached payment source"):
        subscribe(api, api.customers.create(), price)
    api.prices.update(price.id, {"active": False})
    with pytest.raises(stripe.InvalidRequestError, match="inactive"):
        subscribe(api, customer, price)


def test_a_trial_costs_nothing_until_it_ends(api, customer, price, sandbox, time):
    subscription = subscribe(api, customer, price, trial_period_days=7, expand=["latest_invoice"])
    assert (subscription.status, subscription.latest_invoice.status) == ("trialing", "paid")
    assert subscription.latest_invoice.total == 0
    time.pass_(5 * DAY)
    assert types(sandbox).count("customer.subscription.trial_will_end") == 1
    time.pass_(2 * DAY + 3700)
    assert api.subscriptions.retrieve(subscription.id).status == "active"
    assert api.invoices.list({"subscription": subscription.id}).data[0].amount_paid == 49900


def test_a_trial_without_a_card_pauses_and_resumes(api, price, sandbox, time):
    customer = api.customers.create({"test_clock": time.id})
    subscription = subscribe(
        api,
        customer,
        price,
        trial_period_days=7,
        trial_settings={"end_behavior": {"missing_payment_method": "pause"}},
    )
    time.pass_(8 * DAY)
    assert api.subscriptions.retrieve(subscription.id).status == "paused"
    method = api.payment_methods.attach("pm_card_visa", {"customer": customer.id})
    api.customers.update(customer.id, {"invoice_settings": {"default_payment_method": method.id}})
    assert api.subscriptions.resume(subscription.id, {"billing_cycle_anchor": "now"}).status == "active"
    assert "customer.subscription.paused" in types(sandbox)
    assert "customer.subscription.resumed" in types(sandbox)


def test_a_subscription_ends_with_its_period_and_bills_what_waits(api, customer, price, sandbox, time):
    subscription = subscribe(api, customer, price)
    going = api.subscriptions.update(subscription.id, {"cancel_at_period_end": True})
    assert (going.status, going.cancel_at) == ("active", end_of(subscription))
    assert api.subscriptions.update(subscription.id, {"cancel_at_period_end": False}).cancel_at is None
    api.subscriptions.update(subscription.id, {"cancel_at_period_end": True})
    api.invoice_items.create({"customer": customer.id, "amount": 1600, "currency": "usd", "description": "2 over"})
    assert api.invoices.create_preview({"subscription": subscription.id}).total == 1600
    time.pass_to(end_of(subscription) + 3700)
    gone = api.subscriptions.retrieve(subscription.id)
    assert (gone.status, gone.ended_at) == ("canceled", end_of(subscription))
    assert "customer.subscription.deleted" in types(sandbox)
    last = api.invoices.list({"subscription": subscription.id}).data[0]
    assert (last.amount_paid, last.status) == (1600, "paid")


def test_canceling_now_can_give_back_and_bill_at_once(api, customer, price, time):
    subscription = subscribe(api, customer, price)
    time.pass_(14 * DAY)
    api.invoice_items.create({"customer": customer.id, "amount": 80000, "currency": "usd"})
    gone = api.subscriptions.cancel(subscription.id, {"invoice_now": True, "prorate": True})
    assert gone.status == "canceled"
    last = api.invoices.list({"customer": customer.id}).data[0]
    assert (last.status, last.total) == ("paid", 80000 - 24950)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        api.subscriptions.update(subscription.id, {"metadata": {"a": "b"}})
    assert refused.value.code == "resource_missing"


def test_canceling_now_leaves_what_waits(api, customer, price):
    subscription = subscribe(api, customer, price)
    api.invoice_items.create({"customer": customer.id, "amount": 800, "currency": "usd"})
    api.subscriptions.cancel(subscription.id)
    assert len(api.invoice_items.list({"customer": customer.id, "pending": True}).data) == 1


def test_a_plan_change_is_prorated(api, customer, price, time):
    dearer = api.prices.create(
        {"product": price.product, "currency": "usd", "unit_amount": 99800, "recurring": {"interval": "month"}}
    )
    subscription = subscribe(api, customer, price)
    item = subscription["items"].data[0].id
    time.pass_(14 * DAY)
    changed = api.subscriptions.update(subscription.id, {"items": [{"id": item, "price": dearer.id}]})
    assert changed["items"].data[0].price.id == dearer.id
    assert end_of(changed) == end_of(subscription)
    waiting = api.invoice_items.list({"customer": customer.id, "pending": True}).data
    assert sorted(i.amount for i in waiting) == [-24950, 49900]
    assert all(i.proration for i in waiting)
    time.pass_to(end_of(subscription) + 3700)
    assert api.invoices.list({"subscription": subscription.id}).data[0].amount_paid == 99800 + 24950


def test_a_plan_change_can_be_billed_at_once_or_not_at_all(api, customer, price, time):
    subscription = subscribe(api, customer, price)
    item = subscription["items"].data[0].id
    time.pass_(14 * DAY)
    api.subscriptions.update(
        subscription.id, {"items": [{"id": item, "quantity": 3}], "proration_behavior": "always_invoice"}
    )
    latest = api.invoices.list({"subscription": subscription.id}).data[0]
    assert (latest.billing_reason, latest.status, latest.amount_paid) == ("subscription_update", "paid", 49900)
    api.subscriptions.update(subscription.id, {"items": [{"id": item, "quantity": 1}], "proration_behavior": "none"})
    assert api.invoice_items.list({"customer": customer.id, "pending": True}).data == []


def test_another_interval_starts_a_new_period(api, customer, price, time):
    yearly = api.prices.create(
        {"product": price.product, "currency": "usd", "unit_amount": 499000, "recurring": {"interval": "year"}}
    )
    subscription = subscribe(api, customer, price)
    time.pass_(14 * DAY)
    item = subscription["items"].data[0].id
    changed = api.subscriptions.update(subscription.id, {"items": [{"id": item, "price": yearly.id}]})
    assert date(end_of(changed)) == "2031-02-14 12:00"
    assert api.invoices.retrieve(changed.latest_invoice).amount_paid == 499000 - 24950


def test_subscriptions_are_listed_by_status(api, customer, price):
    first = subscribe(api, customer, price)
    second = subscribe(api, customer, price)
    api.subscriptions.cancel(first.id)

    def found(**filters):
        return [s.id for s in api.subscriptions.list({"customer": customer.id} | filters).data]

    assert found() == [second.id]
    assert found(status="all") == [second.id, first.id]
    assert found(status="canceled") == found(status="ended") == [first.id]
    assert found(price=price.id, status="active") == [second.id]
    assert found(price="price_other") == []


def test_deleting_a_customer_ends_its_subscriptions(api, customer, price):
    subscription = subscribe(api, customer, price)
    api.customers.delete(customer.id)
    assert api.subscriptions.retrieve(subscription.id).status == "canceled"


def test_an_invoice_by_hand_is_paid_voided_or_given_up(api, customer, sandbox):
    def invoice():
        draft = api.invoices.create({"customer": customer.id, "metadata": {"a": "b"}})
        api.invoice_items.create({"customer": customer.id, "amount": 1000, "currency": "usd", "invoice": draft.id})
        return api.invoices.finalize_invoice(draft.id)

    paid = api.invoices.pay(invoice().id)
    assert (paid.status, paid.amount_paid) == ("paid", 1000)
    by_bank = api.invoices.pay(invoice().id, {"paid_out_of_band": True})
    assert (by_bank.status, by_bank.amount_paid_off_stripe) == ("paid", 1000)
    voided = api.invoices.void_invoice(invoice().id)
    assert (voided.status, voided.amount_remaining) == ("void", 1000)
    lost = api.invoices.mark_uncollectible(invoice().id)
    assert lost.status == "uncollectible"
    assert api.invoices.pay(lost.id).status == "paid"
    with pytest.raises(stripe.InvalidRequestError):
        api.invoices.void_invoice(paid.id)
    with pytest.raises(stripe.InvalidRequestError):
        api.invoices.finalize_invoice(paid.id)
    assert {"invoice.voided", "invoice.marked_uncollectible", "invoice.paid"} <= set(types(sandbox))
    (payment,) = api.invoice_payments.list({"invoice": voided.id}).data
    assert api.payment_intents.retrieve(payment.payment.payment_intent).status == "canceled"


def test_a_draft_by_hand_can_take_what_waits_and_be_deleted(api, customer):
    api.invoice_items.create({"customer": customer.id, "amount": 700, "currency": "usd"})
    draft = api.invoices.create({"customer": customer.id, "pending_invoice_items_behavior": "include"})
    assert draft.total == 700
    assert api.invoices.delete(draft.id).deleted
    with pytest.raises(stripe.InvalidRequestError):
        api.invoices.retrieve(draft.id)


def test_a_balance_is_used_up_by_invoices(api, customer):
    api.customers.update(customer.id, {"balance": -600})
    draft = api.invoices.create({"customer": customer.id})
    api.invoice_items.create({"customer": customer.id, "amount": 1000, "currency": "usd", "invoice": draft.id})
    invoice = api.invoices.finalize_invoice(draft.id)
    assert (invoice.amount_due, invoice.ending_balance) == (400, 0)
    assert api.customers.retrieve(customer.id).balance == 0


def test_the_sandboxs_own_clock_renews_as_well(api, price, sandbox):
    customer = api.customers.create()
    method = api.payment_methods.attach("pm_card_visa", {"customer": customer.id})
    subscription = subscribe(api, customer, price, default_payment_method=method.id)
    sandbox.advance(32 * DAY)
    invoices = api.invoices.list({"subscription": subscription.id}).data
    assert [invoice.status for invoice in invoices] == ["paid", "paid"]
    assert invoices[0].status_transitions.finalized_at == end_of(subscription) + 3600


def test_time_alone_finalizes_and_charges(api, price, sandbox):
    from app.sandbox.stripe import wait_until

    sandbox.change_settings(finalize_after_s=1)
    customer = api.customers.create()
    method = api.payment_methods.attach("pm_card_visa", {"customer": customer.id})
    api.customers.update(customer.id, {"invoice_settings": {"default_payment_method": method.id}})
    api.invoice_items.create({"customer": customer.id, "amount": 900, "currency": "usd"})
    draft = api.invoices.create(
        {"customer": customer.id, "auto_advance": True, "pending_invoice_items_behavior": "include"}
    )
    wait_until(lambda: api.invoices.retrieve(draft.id).status == "paid", 30)


@pytest.mark.skipif(not OPENAPI.exists(), reason=f"Stripe's samples are absent: {OPENAPI.parent}")
def test_shapes_have_every_field_of_stripes_samples(api, customer, price):
    item = api.invoice_items.create({"customer": customer.id, "amount": 1, "currency": "usd"})
    subscription = subscribe(api, customer, price)
    invoice = api.invoices.retrieve(subscription.latest_invoice)
    (payment,) = api.invoice_payments.list({"invoice": invoice.id}).data
    assert missing_fields(api.products.retrieve(price.product).to_dict(), "product") == set()
    assert missing_fields(price.to_dict(), "price") == set()
    assert missing_fields(item.to_dict(), "invoiceitem") == set()
    assert missing_fields(subscription.to_dict(), "subscription") == set()
    assert missing_fields(subscription["items"].data[0].to_dict(), "subscription_item") == set()
    assert missing_fields(invoice.to_dict(), "invoice") == set()
    assert missing_fields(payment.to_dict(), "invoice_payment") == set()


def test_paused_collection_leaves_drafts(api, customer, price, time):
    subscription = subscribe(api, customer, price)
    api.subscriptions.update(subscription.id, {"pause_collection": {"behavior": "keep_as_draft"}})
    time.pass_to(end_of(subscription) + DAY)
    renewed = api.subscriptions.retrieve(subscription.id, {"expand": ["latest_invoice"]})
    assert (renewed.status, renewed.latest_invoice.status) == ("active", "draft")
    assert api.subscriptions.update(subscription.id, {"pause_collection": ""}).pause_collection is None


def test_what_was_made_for_a_subscription_waits_for_its_invoice(api, customer, price, time):
    first = subscribe(api, customer, price)
    second = subscribe(api, customer, price)
    api.invoice_items.create({"customer": customer.id, "amount": 800, "currency": "usd", "subscription": second.id})
    time.pass_to(end_of(first) + 60)
    totals = {s.id: api.invoices.list({"subscription": s.id, "status": "draft"}).data[0].total for s in (first, second)}
    assert totals == {first.id: 49900, second.id: 49900 + 800}


def test_a_customer_deleted_within_the_drafts_hour_is_not_charged(api, customer, price, time):
    subscription = subscribe(api, customer, price)
    api.subscriptions.update(subscription.id, {"cancel_at_period_end": True})
    api.invoice_items.create({"customer": customer.id, "amount": 800, "currency": "usd"})
    time.pass_to(end_of(subscription) + 60)
    api.customers.delete(customer.id)
    time.pass_(2 * DAY)
    assert [i.status for i in api.invoices.list({"subscription": subscription.id}).data] == ["draft", "paid"]


def test_an_unpaid_subscription_goes_on_with_drafts(api, customer, price, sandbox, time):
    sandbox.change_settings(after_last_retry="unpaid")
    subscription = subscribe(api, customer, price)
    sandbox.change_card(card_of(customer), "chargeDeclined")
    time.pass_to(end_of(subscription) + 35 * DAY)
    statuses = [i.status for i in api.invoices.list({"subscription": subscription.id}).data]
    assert statuses == ["draft", "open", "paid"]
