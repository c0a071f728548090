"""Cards, setup and payment intents, charges, refunds and disputes."""

import pytest
import stripe

from tests.sandbox.conformance import OPENAPI, missing_fields

DECLINING = {
    "pm_card_visa_chargeDeclined": ("card_declined", "generic_decline"),
    "pm_card_visa_chargeDeclinedInsufficientFunds": ("card_declined", "insufficient_funds"),
    "pm_card_visa_chargeDeclinedStolenCard": ("card_declined", "stolen_card"),
    "pm_card_chargeDeclinedExpiredCard": ("expired_card", "expired_card"),
    "pm_card_chargeDeclinedProcessingError": ("processing_error", "processing_error"),
}


@pytest.fixture
def customer(api):
    return api.customers.create({"email": "payer@example.com"})


def attach(api, customer, card="pm_card_visa"):
    return api.payment_methods.attach(card, {"customer": customer.id})


def intend(api, customer, **more):
    return api.payment_intents.create(
        {"amount": 1500, "currency": "usd", "customer": customer.id, "metadata": {"fix_id": "f1"}} | more
    )


def pay(api, customer, card="pm_card_visa", **more):
    return intend(api, customer, payment_method=card, confirm=True, off_session=True, **more)


def types(sandbox):
    return [event["type"] for event in sandbox.objects("event")][::-1]


def test_a_card_is_attached_listed_updated_and_detached(api, customer, sandbox):
    method = attach(api, customer)
    assert (method.customer, method.card.last4, method.card.brand) == (customer.id, "4242", "visa")
    assert [m.id for m in api.payment_methods.list({"customer": customer.id, "type": "card"}).data] == [method.id]
    assert [m.id for m in api.customers.payment_methods.list(customer.id).data] == [method.id]
    updated = api.payment_methods.update(method.id, {"card": {"exp_year": 2040}, "metadata": {"a": "b"}})
    assert (updated.card.exp_year, updated.metadata.to_dict()) == (2040, {"a": "b"})
    api.customers.update(customer.id, {"invoice_settings": {"default_payment_method": method.id}})
    assert api.payment_methods.detach(method.id).customer is None
    assert api.customers.payment_methods.list(customer.id).data == []
    assert api.customers.retrieve(customer.id).invoice_settings.default_payment_method is None
    with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
        attach(api, customer, method.id)
    assert [name for name in types(sandbox) if name.startswith("payment_method")] == [
        "payment_method.attached",
        "payment_method.updated",
        "payment_method.detached",
    ]


def test_every_use_of_a_test_id_makes_a_method_of_its_own(api, customer):
    assert attach(api, customer).id != attach(api, customer).id


def test_a_method_belongs_to_one_customer(api, customer):
    method = attach(api, customer)
    with pytest.raises(stripe.InvalidRequestError, match="already been attached"):
        attach(api, api.customers.create(), method.id)


@pytest.mark.parametrize("card", DECLINING)
def test_a_declining_card_is_refused_when_it_is_attached(api, customer, card):
    with pytest.raises(stripe.CardError) as declined:
        attach(api, customer, card)
    assert (declined.value.code, declined.value.error.decline_code) == DECLINING[card]


def test_a_method_made_of_a_declining_token_is_refused_when_it_is_attached(api, customer):
    method = api.payment_methods.create({"type": "card", "card": {"token": "tok_visa_chargeDeclined"}})
    with pytest.raises(stripe.CardError):
        attach(api, customer, method.id)
    good = api.payment_methods.create({"type": "card", "card": {"token": "tok_visa"}})
    assert attach(api, customer, good.id).id == good.id


def test_an_intent_is_created_then_confirmed(api, customer, sandbox):
    method = attach(api, customer)
    intent = intend(api, customer)
    assert intent.status == "requires_payment_method"
    paid = api.payment_intents.confirm(intent.id, {"payment_method": method.id, "off_session": True})
    assert (paid.status, paid.amount_received, paid.payment_method) == ("succeeded", 1500, method.id)
    charge = api.charges.retrieve(paid.latest_charge, {"expand": ["balance_transaction", "customer"]})
    assert (charge.amount, charge.paid, charge.customer.id) == (1500, True, customer.id)
    assert charge.metadata.to_dict() == {"fix_id": "f1"}
    assert charge.balance_transaction.net == 1500 - round(1500 * 0.029) - 30
    assert types(sandbox)[-3:] == ["payment_intent.created", "charge.succeeded", "payment_intent.succeeded"]


def test_an_intent_succeeds_once_at_most(api, customer):
    paid = pay(api, customer)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        api.payment_intents.confirm(paid.id, {"payment_method": "pm_card_visa"})
    assert refused.value.code == "payment_intent_unexpected_state"
    assert refused.value.error.payment_intent.status == "succeeded"
    with pytest.raises(stripe.InvalidRequestError):
        api.payment_intents.cancel(paid.id)
    with pytest.raises(stripe.InvalidRequestError):
        api.payment_intents.update(paid.id, {"amount": 2000})


@pytest.mark.parametrize("card", DECLINING)
def test_a_decline_says_why_and_leaves_the_intent_open(api, customer, sandbox, card):
    code, decline_code = DECLINING[card]
    intent = intend(api, customer)
    with pytest.raises(stripe.CardError) as declined:
        api.payment_intents.confirm(intent.id, {"payment_method": card, "off_session": True})
    error = declined.value.error
    assert (declined.value.http_status, error.code, error.decline_code) == (402, code, decline_code)
    assert error.payment_intent.status == "requires_payment_method"
    assert error.payment_intent.last_payment_error.decline_code == decline_code
    assert api.charges.retrieve(error.charge).status == "failed"
    read = api.payment_intents.retrieve(intent.id)
    assert (read.last_payment_error.code, read.payment_method) == (code, None)
    assert types(sandbox)[-2:] == ["charge.failed", "payment_intent.payment_failed"]
    assert api.payment_intents.confirm(intent.id, {"payment_method": "pm_card_visa"}).status == "succeeded"


def test_a_card_can_be_attached_and_fail_when_charged(api, customer):
    method = attach(api, customer, "pm_card_chargeCustomerFail")
    with pytest.raises(stripe.CardError):
        pay(api, customer, method.id)


def test_a_key_remembers_a_decline_and_makes_one_charge(api, customer, sandbox):
    intent = intend(api, customer)
    for _ in range(2):
        with pytest.raises(stripe.CardError) as declined:
            api.payment_intents.confirm(
                intent.id, {"payment_method": "pm_card_visa_chargeDeclined"}, {"idempotency_key": "fix:1:confirm:1"}
            )
    assert declined.value.headers["idempotent-replayed"] == "true"
    assert len(sandbox.objects("charge")) == 1


def test_a_bank_changes_its_mind_about_a_card(api, customer, sandbox):
    method = attach(api, customer)
    assert pay(api, customer, method.id).status == "succeeded"
    sandbox.change_card(method.id, "chargeDeclinedInsufficientFunds")
    with pytest.raises(stripe.CardError) as declined:
        pay(api, customer, method.id)
    assert declined.value.error.decline_code == "insufficient_funds"
    sandbox.change_card(method.id, "visa")
    assert pay(api, customer, method.id).status == "succeeded"


def test_a_card_expires_as_time_passes(api, customer, sandbox):
    method = attach(api, customer)
    sandbox.advance(6 * 365 * 24 * 3600)
    with pytest.raises(stripe.CardError) as declined:
        pay(api, customer, method.id)
    assert declined.value.code == "expired_card"


def test_authentication_off_session_is_a_decline_and_on_session_a_page(api, customer, sandbox):
    method = attach(api, customer, "pm_card_authenticationRequired")
    intent = intend(api, customer)
    with pytest.raises(stripe.CardError) as declined:
        api.payment_intents.confirm(intent.id, {"payment_method": method.id, "off_session": True})
    assert declined.value.code == "authentication_required"
    assert declined.value.error.payment_intent.id == intent.id
    assert api.payment_intents.retrieve(intent.id).last_payment_error.payment_method.id == method.id
    asked = api.payment_intents.confirm(
        intent.id, {"payment_method": method.id, "return_url": "https://example.com/back"}
    )
    assert asked.status == "requires_action"
    assert asked.next_action.redirect_to_url.url.startswith(sandbox.url)
    assert types(sandbox)[-1] == "payment_intent.requires_action"
    assert sandbox.authenticate(intent.id)["status"] == "succeeded"


def test_a_holder_who_does_not_authenticate_is_a_decline(api, customer, sandbox):
    intent = intend(api, customer)
    api.payment_intents.confirm(intent.id, {"payment_method": "pm_card_threeDSecure2Required"})
    failed = sandbox.authenticate(intent.id, consents=False)
    assert failed["status"] == "requires_payment_method"
    assert failed["last_payment_error"]["code"] == "payment_intent_authentication_failure"


def test_a_card_that_was_set_up_pays_off_session(api, customer, sandbox):
    card = "pm_card_authenticationRequiredOnSetup"
    with pytest.raises(stripe.CardError):
        pay(api, customer, card)
    setup = api.setup_intents.create({"customer": customer.id, "payment_method": card, "confirm": True})
    assert setup.status == "requires_action"
    done = sandbox.authenticate(setup.id)
    assert done["status"] == "succeeded"
    assert pay(api, customer, done["payment_method"]).status == "succeeded"


def test_a_canceled_intent_cannot_be_confirmed(api, customer, sandbox):
    intent = intend(api, customer)
    canceled = api.payment_intents.cancel(intent.id, {"cancellation_reason": "abandoned"})
    assert (canceled.status, canceled.cancellation_reason) == ("canceled", "abandoned")
    with pytest.raises(stripe.InvalidRequestError) as refused:
        api.payment_intents.confirm(intent.id, {"payment_method": "pm_card_visa"})
    assert refused.value.code == "payment_intent_unexpected_state"
    assert types(sandbox)[-1] == "payment_intent.canceled"


def test_confirming_without_a_card_is_refused(api, customer):
    intent = intend(api, customer)
    with pytest.raises(stripe.InvalidRequestError, match="missing a payment method"):
        api.payment_intents.confirm(intent.id)


def test_anothers_card_is_refused(api, customer):
    method = attach(api, api.customers.create())
    with pytest.raises(stripe.InvalidRequestError, match="another customer"):
        pay(api, customer, method.id)


def test_nothing_is_charged_to_a_deleted_customer(api, customer):
    intent = intend(api, customer)
    method = attach(api, customer)
    api.customers.delete(customer.id)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        api.payment_intents.confirm(intent.id, {"payment_method": "pm_card_visa"})
    assert refused.value.code == "resource_missing"
    with pytest.raises(stripe.InvalidRequestError):
        intend(api, customer)
    assert api.payment_methods.retrieve(method.id).customer is None


def test_intents_are_listed_and_searched(api, customer, sandbox):
    sandbox.change_settings(search_lag_s=0)
    paid = pay(api, customer)
    pay(api, api.customers.create())
    assert [i.id for i in api.payment_intents.list({"customer": customer.id}).data] == [paid.id]
    found = api.payment_intents.search({"query": f'customer:"{customer.id}" AND status:"succeeded"'})
    assert [i.id for i in found.data] == [paid.id]
    assert len(api.payment_intents.search({"query": 'metadata["fix_id"]:"f1" AND amount>1499'}).data) == 2
    assert [c.id for c in api.charges.list({"payment_intent": paid.id}).data] == [paid.latest_charge]


def test_too_small_an_amount_is_refused(api, customer):
    with pytest.raises(stripe.InvalidRequestError) as refused:
        intend(api, customer, amount=10)
    assert refused.value.code == "amount_too_small"


def test_a_setup_intent_attaches_its_card(api, customer, sandbox):
    setup = api.setup_intents.create({"customer": customer.id, "usage": "off_session"})
    assert setup.status == "requires_payment_method"
    done = api.setup_intents.confirm(setup.id, {"payment_method": "pm_card_visa"})
    assert done.status == "succeeded"
    assert api.payment_methods.retrieve(done.payment_method).customer == customer.id
    assert types(sandbox)[-3:] == ["setup_intent.created", "payment_method.attached", "setup_intent.succeeded"]
    with pytest.raises(stripe.InvalidRequestError):
        api.setup_intents.cancel(setup.id)


def test_a_setup_intent_refuses_a_declining_card(api, customer):
    setup = api.setup_intents.create({"customer": customer.id})
    with pytest.raises(stripe.CardError) as declined:
        api.setup_intents.confirm(setup.id, {"payment_method": "pm_card_visa_chargeDeclined"})
    assert declined.value.error.setup_intent.last_setup_error.code == "card_declined"
    assert api.setup_intents.cancel(setup.id).status == "canceled"


def test_refunds_in_part_and_in_full(api, customer, sandbox):
    paid = pay(api, customer)
    part = api.refunds.create({"payment_intent": paid.id, "amount": 400, "reason": "requested_by_customer"})
    assert (part.status, part.amount, part.charge) == ("succeeded", 400, paid.latest_charge)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        api.refunds.create({"charge": paid.latest_charge, "amount": 1101})
    assert refused.value.param == "amount"
    rest = api.refunds.create({"charge": paid.latest_charge})
    assert rest.amount == 1100
    charge = api.charges.retrieve(paid.latest_charge, {"expand": ["refunds"]})
    assert (charge.amount_refunded, charge.refunded, len(charge.refunds.data)) == (1500, True, 2)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        api.refunds.create({"payment_intent": paid.id})
    assert refused.value.code == "charge_already_refunded"
    assert [r.id for r in api.refunds.list({"payment_intent": paid.id}).data] == [rest.id, part.id]
    assert types(sandbox)[-2:] == ["refund.created", "charge.refunded"]


def test_an_unpaid_intent_has_nothing_to_refund(api, customer):
    with pytest.raises(stripe.InvalidRequestError, match="does not have a successful charge"):
        api.refunds.create({"payment_intent": intend(api, customer).id})


def test_a_refund_can_fail_afterwards(api, customer, sandbox):
    paid = pay(api, customer, "pm_card_refundFail")
    refund = api.refunds.create({"payment_intent": paid.id, "amount": 500})
    assert refund.status == "succeeded"
    sandbox.advance(3601)
    failed = api.refunds.retrieve(refund.id)
    assert (failed.status, failed.failure_reason) == ("failed", "unknown")
    assert api.charges.retrieve(paid.latest_charge).amount_refunded == 0
    assert "refund.failed" in types(sandbox)
    good = api.refunds.create({"payment_intent": pay(api, customer).id})
    assert sandbox.fail_refund(good.id)["status"] == "failed"


def test_a_dispute_is_opened_answered_and_won(api, customer, sandbox):
    paid = pay(api, customer)
    opened = sandbox.dispute(paid.latest_charge, "product_not_received")
    dispute = api.disputes.retrieve(opened["id"])
    assert (dispute.status, dispute.amount, dispute.payment_intent) == ("needs_response", 1500, paid.id)
    assert api.charges.retrieve(paid.latest_charge).disputed
    with pytest.raises(stripe.InvalidRequestError) as refused:
        api.refunds.create({"payment_intent": paid.id})
    assert refused.value.code == "charge_disputed"
    answered = api.disputes.update(dispute.id, {"evidence": {"uncategorized_text": "It was sent."}})
    assert answered.status == "under_review"
    assert sandbox.close_dispute(dispute.id, "won")["status"] == "won"
    assert [name for name in types(sandbox) if "dispute" in name] == [
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.updated",
        "charge.dispute.funds_reinstated",
        "charge.dispute.closed",
    ]
    assert [d.id for d in api.disputes.list({"payment_intent": paid.id}).data] == [dispute.id]


def test_a_dispute_is_lost(api, customer, sandbox):
    paid = pay(api, customer, "pm_card_createDispute")
    (dispute,) = api.disputes.list({"charge": paid.latest_charge}).data
    assert dispute.reason == "fraudulent"
    assert api.disputes.close(dispute.id).status == "lost"
    assert types(sandbox)[-1] == "charge.dispute.closed"


@pytest.mark.skipif(not OPENAPI.exists(), reason=f"Stripe's samples are absent: {OPENAPI.parent}")
def test_shapes_have_every_field_of_stripes_samples(api, customer, sandbox):
    paid = pay(api, customer)
    refund = api.refunds.create({"payment_intent": paid.id, "amount": 100})
    setup = api.setup_intents.create({"customer": customer.id})
    charge = api.charges.retrieve(paid.latest_charge)
    dispute = sandbox.dispute(paid.latest_charge)
    assert missing_fields(paid.to_dict(), "payment_intent") == set()
    assert missing_fields(refund.to_dict(), "refund") == set()
    assert missing_fields(setup.to_dict(), "setup_intent") == set()
    assert missing_fields(charge.to_dict(), "charge") <= {"refunds"}  # only there when expanded
    assert missing_fields(dispute, "dispute") == set()
    assert missing_fields(attach(api, customer).to_dict(), "payment_method") == set()
