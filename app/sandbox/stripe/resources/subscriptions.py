"""Subscriptions: create, change, cancel, resume, retrieve, list, search."""

from typing import Any

from app.sandbox.stripe import cycles, plan_changes
from app.sandbox.stripe.account import Account
from app.sandbox.stripe.errors import InvalidParameter, InvalidState
from app.sandbox.stripe.intervals import period_end
from app.sandbox.stripe.objects import Object, list_object, new_id
from app.sandbox.stripe.operations import Call, Operations
from app.sandbox.stripe.params import Params, SearchParams, merged
from app.sandbox.stripe.resources.customers import before_delete, get_customer
from app.sandbox.stripe.resources.payment_methods import resolve
from app.sandbox.stripe.resources.prices import active_price
from app.sandbox.stripe.resources.subscription_params import (
    PaymentSettings,
    SubscriptionCancel,
    SubscriptionCreate,
    SubscriptionFields,
    SubscriptionList,
    SubscriptionResume,
    SubscriptionUpdate,
)
from app.sandbox.stripe.search import search

operations: Operations[Object] = Operations()

# What a list leaves out unless it is asked for by status.
_LISTED = ["active", "incomplete", "past_due", "paused", "trialing", "unpaid"]
_NOT_COPIED = (
    "cancel_at_period_end",
    "cancel_at",
    "default_payment_method",
    "off_session",
    "payment_behavior",
    "payment_settings",
    "proration_behavior",
    "trial_end",
    "billing_mode",
    "currency",
    "customer",
    "items",
    "trial_period_days",
    "cancellation_details",
    "proration_date",
)


@operations("POST /v1/subscriptions", SubscriptionCreate)
def create(call: Call[SubscriptionCreate]) -> Object:
    account, params = call.account, call.params
    customer = get_customer(account, params.customer)
    return subscribe(account, customer, params)


def subscribe(account: Account, customer: Object, params: SubscriptionCreate) -> Object:
    """Starts a subscription for a customer, as the parameters say, and bills its first period."""
    if not params.items:
        raise InvalidParameter("Missing required param: items.", code="parameter_missing", param="items")
    now = account.now(customer)
    prices = [active_price(account, item.price, f"items[{place}][price]") for place, item in enumerate(params.items)]
    if any(price["recurring"] is None for price in prices):
        raise InvalidParameter("Prices of a subscription have to be recurring.", param="items[0][price]")
    method = resolve(account, params.default_payment_method, now) if params.default_payment_method else None
    trial_end = now + params.trial_period_days * 24 * 3600 if params.trial_period_days else params.trial_end
    trialing = bool(trial_end and trial_end > now)
    _refuse_without_card(customer, method, params, trialing)
    anchor = trial_end if trialing and trial_end else now
    finish = anchor if trialing else period_end(anchor, now, prices[0]["recurring"])
    subscription_id = new_id("sub")
    items = [
        cycles.new_item(subscription_id, price, item.quantity, merged({}, item.metadata), now, finish)
        for price, item in zip(prices, params.items, strict=True)
    ]
    subscription: Object = {
        "id": subscription_id,
        "object": "subscription",
        "application": None,
        "application_fee_percent": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": anchor,
        "billing_cycle_anchor_config": None,
        "billing_mode": {"flexible": None, "type": params.billing_mode.type},
        "billing_schedules": [],
        "billing_thresholds": None,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "cancellation_details": {"comment": None, "feedback": None, "reason": None},
        "collection_method": "charge_automatically",
        "created": now,
        "currency": prices[0]["currency"],
        "customer": customer["id"],
        "customer_account": None,
        "days_until_due": None,
        "default_payment_method": method["id"] if method else None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "ended_at": None,
        "invoice_settings": {
            "account_tax_ids": None,
            "custom_fields": None,
            "description": None,
            "footer": None,
            "issuer": {"type": "self"},
        },
        "items": list_object(f"/v1/subscription_items?subscription={subscription_id}", items),
        "latest_invoice": None,
        "livemode": account.livemode,
        "managed_payments": None,
        "metadata": {},
        "next_pending_invoice_item_invoice": None,
        "on_behalf_of": None,
        "pause_collection": None,
        "payment_settings": _payment_settings(params.payment_settings),
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": None,
        "schedule": None,
        "start_date": now,
        "status": _first_status(params, trialing),
        "test_clock": customer["test_clock"],
        "transfer_data": None,
        "trial_end": trial_end if trialing else None,
        "trial_settings": params.trial_settings.model_dump(),
        "trial_start": now if trialing else None,
        "_clock": customer["_clock"],
    }
    params.apply_to(subscription, *_NOT_COPIED)
    _set_cancellation(account, subscription, params)
    if params.collection_method == "send_invoice" and params.days_until_due is None:
        raise InvalidParameter(
            "You must pass days_until_due for subscriptions with collection_method send_invoice.",
            param="days_until_due",
        )
    return cycles.start(account, subscription, params.payment_behavior)


@operations("GET /v1/subscriptions/{subscription_exposed_id}", Params)
def retrieve(call: Call[Params]) -> Object:
    return call.account.get("subscription", call.id)


@operations("POST /v1/subscriptions/{subscription_exposed_id}", SubscriptionUpdate)
def update(call: Call[SubscriptionUpdate]) -> Object:
    account, params = call.account, call.params
    subscription = _alive(account, call.id)
    given = params.model_fields_set
    params.apply_to(subscription, *_NOT_COPIED)
    if "default_payment_method" in given:
        chosen = params.default_payment_method
        method = resolve(account, chosen, account.now(subscription)) if chosen else None
        subscription["default_payment_method"] = method["id"] if method else None
    if "payment_settings" in given:
        subscription["payment_settings"] |= _payment_settings(params.payment_settings)
    subscription["cancellation_details"] |= params.cancellation_details.model_dump(exclude_unset=True)
    _set_cancellation(account, subscription, params)
    if "trial_end" in given:
        _move_trial_end(account, subscription, params.trial_end or 0)
    if params.items:
        return plan_changes.change_items(account, subscription, params)
    return cycles.save(account, subscription, "customer.subscription.updated")


@operations("DELETE /v1/subscriptions/{subscription_exposed_id}", SubscriptionCancel)
def cancel(call: Call[SubscriptionCancel]) -> Object:
    account, params = call.account, call.params
    subscription = _alive(account, call.id)
    now = account.now(subscription)
    details = params.cancellation_details.model_dump(exclude_unset=True)
    subscription["cancellation_details"] |= details
    if params.prorate and subscription["status"] != "trialing":
        for item in cycles.items_of(subscription):
            account.add(plan_changes.unused(account, subscription, item, now), "invoiceitem.created")
    cycles.end(account, subscription, "cancellation_requested")
    if params.invoice_now:
        cycles.bill_pending(account, subscription, "allow_incomplete")
    return account.get("subscription", subscription["id"])


@operations("POST /v1/subscriptions/{subscription}/resume", SubscriptionResume)
def resume(call: Call[SubscriptionResume]) -> Object:
    account = call.account
    subscription = account.get("subscription", call.id)
    if subscription["status"] != "paused":
        raise InvalidState("Only paused subscriptions can be resumed.")
    now = account.now(subscription)
    subscription |= {"status": "active", "trial_end": None, "billing_cycle_anchor": now}
    finish = period_end(now, now, cycles.items_of(subscription)[0]["price"]["recurring"])
    cycles.set_period(subscription, now, finish)
    cycles.save(account, subscription, "customer.subscription.updated", "customer.subscription.resumed")
    return cycles.bill_period(account, subscription, "allow_incomplete")


@operations("GET /v1/subscriptions", SubscriptionList)
def list_all(call: Call[SubscriptionList]) -> Object:
    params = call.params
    statuses: dict[str | None, Any] = {None: _LISTED, "all": None, "ended": list(cycles.ENDED)}
    filters = {
        "customer": params.customer,
        "test_clock": params.test_clock,
        "status": statuses.get(params.status, params.status),
        "items.data[0].price.id": params.price,
    }
    return call.account.list("subscription", "/v1/subscriptions", params, **filters)


@operations("GET /v1/subscriptions/search", SearchParams)
def search_all(call: Call[SearchParams]) -> Object:
    return search(call.account, "subscription", "/v1/subscriptions/search", call.params)


@before_delete
def _cancel_all(account: Account, customer: Object) -> None:
    for subscription in account.find("subscription", customer=customer["id"], status=_LISTED):
        cycles.end(account, subscription, "cancellation_requested")


def _alive(account: Account, subscription_id: str) -> Object:
    subscription = account.get("subscription", subscription_id)
    if subscription["status"] in cycles.ENDED:
        raise InvalidState(
            f"No such subscription: '{subscription_id}' (it has ended and cannot be changed).",
            code="resource_missing",
            param="id",
        )
    return subscription


def _refuse_without_card(customer: Object, method: Object | None, params: SubscriptionCreate, trialing: bool) -> None:
    """Stripe starts nothing that it would have to charge to a customer without a card."""
    if method and method["customer"] != customer["id"]:
        raise InvalidState(
            f"The customer does not have a payment method with the ID {method['id']}. The payment method must "
            "be attached to the customer.",
            code="resource_missing",
            param="default_payment_method",
        )
    charged = params.collection_method == "charge_automatically" and params.payment_behavior != "default_incomplete"
    if not charged or trialing or method or customer["invoice_settings"]["default_payment_method"]:
        return
    raise InvalidState(
        "This customer has no attached payment source or default payment method. Please consider adding a "
        "default payment method.",
        code="resource_missing",
    )


def _first_status(params: SubscriptionCreate, trialing: bool) -> str:
    if trialing:
        return "trialing"
    return "active" if params.collection_method == "send_invoice" else "incomplete"


def _payment_settings(settings: PaymentSettings) -> Object:
    return {"payment_method_options": None} | settings.model_dump()


def _set_cancellation(account: Account, subscription: Object, params: SubscriptionFields) -> None:
    given = params.model_fields_set
    if "cancel_at_period_end" in given:
        ends = params.cancel_at_period_end
        subscription["cancel_at_period_end"] = ends
        subscription["cancel_at"] = cycles.current_end(subscription) if ends else None
    elif "cancel_at" in given:
        subscription |= {"cancel_at": params.cancel_at, "cancel_at_period_end": False}
    else:
        return
    planned = subscription["cancel_at"] is not None
    subscription["canceled_at"] = account.now(subscription) if planned else None
    subscription["cancellation_details"]["reason"] = "cancellation_requested" if planned else None


def _move_trial_end(account: Account, subscription: Object, moment: int) -> None:
    """A trial is made longer, or ends now (a moment that is over)."""
    if subscription["status"] != "trialing":
        raise InvalidState("The trial of this subscription is over.", param="trial_end")
    ends = max(moment, account.now(subscription))
    subscription |= {"trial_end": ends, "billing_cycle_anchor": ends}
    cycles.set_period(subscription, cycles.items_of(subscription)[0]["current_period_start"], ends)
