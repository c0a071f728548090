"""Checkout sessions: a hosted page where a customer gives a card (`mode=setup`) or subscribes with one.

The page itself is in `pages`; here is what it does. Paying once (`mode=payment`) is not part of the sandbox.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from app.sandbox.stripe import rendering
from app.sandbox.stripe.account import Account
from app.sandbox.stripe.errors import InvalidParameter, InvalidState
from app.sandbox.stripe.objects import Object, list_object, new_id, public
from app.sandbox.stripe.operations import Call, Operations
from app.sandbox.stripe.params import DatedListParams, List, Metadata, Params, Strict, merged, validate
from app.sandbox.stripe.resources.customers import CustomerCreate, get_customer, make_customer
from app.sandbox.stripe.resources.payment_intents import CardOnly
from app.sandbox.stripe.resources.payment_methods import attach_to, make_method
from app.sandbox.stripe.resources.prices import active_price
from app.sandbox.stripe.resources.setup_intents import new_setup, try_setup
from app.sandbox.stripe.resources.subscription_params import SubscriptionCreate
from app.sandbox.stripe.resources.subscriptions import subscribe
from app.sandbox.stripe.schedule import when_due

operations: Operations[Object] = Operations()

KIND = "checkout.session"
_OPEN_FOR_S = 24 * 3600


class LineItem(Strict):
    price: str
    quantity: int = Field(default=1, ge=1)


class SetupData(Strict):
    description: str | None = None
    metadata: Metadata


class SubscriptionData(Strict):
    description: str | None = None
    metadata: Metadata
    trial_period_days: int | None = Field(default=None, ge=1)


class SessionCreate(Params):
    billing_address_collection: Literal["auto", "required"] | None = None
    cancel_url: str | None = None
    client_reference_id: str | None = None
    currency: str | None = None
    customer: str | None = None
    customer_creation: Literal["always", "if_required"] | None = None
    customer_email: str | None = None
    expires_at: int | None = None
    line_items: List[LineItem] = Field(default_factory=list)
    locale: str | None = None
    metadata: Metadata
    mode: Literal["setup", "subscription"]
    payment_method_types: Annotated[CardOnly, Field(default_factory=list)]
    setup_intent_data: SetupData | None = None
    subscription_data: SubscriptionData | None = None
    success_url: str
    ui_mode: Literal["hosted_page"] = "hosted_page"


class SessionUpdate(Params):
    metadata: Metadata


class SessionList(DatedListParams):
    customer: str | None = None
    status: Literal["complete", "expired", "open"] | None = None
    subscription: str | None = None


@operations("POST /v1/checkout/sessions", SessionCreate)
def create(call: Call[SessionCreate]) -> Object:
    account, params = call.account, call.params
    _refuse_incomplete(params)
    customer = get_customer(account, params.customer) if params.customer else None
    now = account.now(customer)
    expires = params.expires_at or now + _OPEN_FOR_S
    lines = [_line(account, item, place) for place, item in enumerate(params.line_items)]
    setup = _setup(account, customer, params) if params.mode == "setup" else None
    total = sum(line["amount_total"] for line in lines) if lines else None
    session_id = new_id("cs_live" if account.livemode else "cs_test", 58)
    session: Object = {
        "id": session_id,
        "object": KIND,
        "adaptive_pricing": None,
        "after_expiration": None,
        "allow_promotion_codes": None,
        "amount_subtotal": total,
        "amount_total": total,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "billing_address_collection": params.billing_address_collection,
        "cancel_url": params.cancel_url,
        "client_reference_id": params.client_reference_id,
        "client_secret": None,
        "collected_information": None,
        "consent": None,
        "consent_collection": None,
        "created": now,
        "currency": lines[0]["currency"] if lines else (params.currency or "").lower() or None,
        "currency_conversion": None,
        "custom_fields": [],
        "custom_text": dict.fromkeys(("after_submit", "shipping_address", "submit", "terms_of_service_acceptance")),
        "customer": params.customer,
        "customer_account": None,
        "customer_creation": params.customer_creation or (None if customer else "always"),
        "customer_details": _details(customer, params.customer_email),
        "customer_email": params.customer_email,
        "discounts": None,
        "excluded_payment_method_types": [],
        "expires_at": expires,
        "integration_identifier": None,
        "invoice": None,
        "invoice_creation": None,
        "livemode": account.livemode,
        "locale": params.locale,
        "managed_payments": None,
        "metadata": merged({}, params.metadata),
        "mode": params.mode,
        "origin_context": None,
        "payment_intent": None,
        "payment_link": None,
        "payment_method_collection": "always",
        "payment_method_configuration_details": None,
        "payment_method_options": {},
        "payment_method_types": ["card"],
        "payment_status": "no_payment_required" if params.mode == "setup" else "unpaid",
        "permissions": None,
        "phone_number_collection": {"enabled": False},
        "recovered_from": None,
        "saved_payment_method_options": None,
        "setup_intent": setup["id"] if setup else None,
        "shipping_address_collection": None,
        "shipping_cost": None,
        "shipping_options": [],
        "status": "open",
        "submit_type": None,
        "subscription": None,
        "success_url": params.success_url,
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0} if lines else None,
        "ui_mode": params.ui_mode,
        "url": f"{account.base_url}/c/pay/{session_id}",
        "wallet_options": None,
        "_clock": customer["_clock"] if customer else None,
        "_due": expires,
        "_lines": lines,
        "_subscription_data": params.subscription_data.model_dump() if params.subscription_data else {},
    }
    return account.add(session)


@operations("GET /v1/checkout/sessions/{session}", Params)
def retrieve(call: Call[Params]) -> Object:
    return call.account.get(KIND, call.id)


@operations("POST /v1/checkout/sessions/{session}", SessionUpdate)
def update(call: Call[SessionUpdate]) -> Object:
    return call.account.save(call.params.apply_to(call.account.get(KIND, call.id)))


@operations("POST /v1/checkout/sessions/{session}/expire", Params)
def expire(call: Call[Params]) -> Object:
    session = call.account.get(KIND, call.id)
    if session["status"] != "open":
        raise InvalidState(
            f'Only Checkout Sessions with a status in ["open"] can be expired. This one is {session["status"]}.'
        )
    return _expire(call.account, session)


@operations("GET /v1/checkout/sessions", SessionList)
def list_all(call: Call[SessionList]) -> Object:
    params = call.params
    filters = {"customer": params.customer, "status": params.status, "subscription": params.subscription}
    return call.account.list(KIND, "/v1/checkout/sessions", params, **filters)


@rendering.includable(KIND, "line_items")
def _line_items(account: Account, session: Object) -> Object:
    kept = account.get(KIND, session["id"])
    return list_object(f"/v1/checkout/sessions/{session['id']}/line_items", kept["_lines"])


def complete(account: Account, session: Object, card: str) -> Object:
    """The customer gave a test card at the page, and has authenticated where the card wants that. Answers
    with the session, complete; raises the 402 of a decline, which leaves it open, and `InvalidState` for a
    session that is over."""
    if session["status"] != "open":
        raise InvalidState(f"This Checkout Session is {session['status']}.")
    customer = _customer(account, session)
    method = make_method(account, card, account.now(session))
    method["billing_details"]["email"] = session["customer_details"]["email"]
    account.save(method)
    if session["mode"] == "setup":
        setup = account.get("setup_intent", session["setup_intent"])
        if customer:
            setup["customer"] = customer["id"]
        try_setup(account, setup, method, authenticated=True)
    else:
        assert customer is not None
        _subscribe(account, session, customer, method)
    done = session | {"status": "complete", "url": None, "_due": None}
    return account.save(done, "checkout.session.completed")


def _customer(account: Account, session: Object) -> Object | None:
    """The customer of a session; one is made at the page where the session has none and wants one."""
    if session["customer"]:
        return get_customer(account, session["customer"])
    if session["mode"] == "setup" and session["customer_creation"] != "always":
        return None
    customer = make_customer(account, validate(CustomerCreate, {"email": session["customer_email"] or ""}))
    session["customer"] = customer["id"]
    return customer


def _subscribe(account: Account, session: Object, customer: Object, method: Object) -> None:
    attach_to(account, method, customer)
    # Whoever gives a card at the page is there to authenticate as well; afterwards nobody is.
    account.save(method | {"_holder_consents": True})
    data: dict[str, Any] = {
        "customer": customer["id"],
        "items": [{"price": line["price"]["id"], "quantity": line["quantity"]} for line in session["_lines"]],
        "default_payment_method": method["id"],
        "payment_behavior": "error_if_incomplete",
    }
    given = {name: value for name, value in session["_subscription_data"].items() if value is not None}
    subscription = subscribe(account, customer, validate(SubscriptionCreate, data | given))
    kept = account.get("payment_method", method["id"])
    account.save(kept | {"_holder_consents": False, "_set_up": True})
    session |= {
        "invoice": subscription["latest_invoice"],
        "payment_status": "paid",
        "subscription": subscription["id"],
    }


@when_due(KIND)
def _expire(account: Account, session: Object) -> Object:
    session |= {"status": "expired", "url": None, "_due": None}
    return account.save(session, "checkout.session.expired")


def _refuse_incomplete(params: SessionCreate) -> None:
    if params.mode == "subscription" and not params.line_items:
        raise InvalidParameter("Missing required param: line_items.", code="parameter_missing", param="line_items")
    if params.mode == "setup" and not (params.currency or params.payment_method_types):
        raise InvalidParameter(
            "`currency` is required in `setup` mode when `payment_method_types` is not given.",
            code="parameter_missing",
            param="currency",
        )


def _line(account: Account, item: LineItem, place: int) -> Object:
    price = active_price(account, item.price, f"line_items[{place}][price]")
    total = price["unit_amount"] * item.quantity
    return {
        "id": new_id("li"),
        "object": "item",
        "adjustable_quantity": None,
        "amount_discount": 0,
        "amount_subtotal": total,
        "amount_tax": 0,
        "amount_total": total,
        "currency": price["currency"],
        "description": price["nickname"] or price["lookup_key"],
        "discounts": [],
        "metadata": {},
        "price": public(price),
        "quantity": item.quantity,
        "taxes": [],
    }


def _setup(account: Account, customer: Object | None, params: SessionCreate) -> Object:
    setup = new_setup(account, customer)
    if params.setup_intent_data:
        setup["description"] = params.setup_intent_data.description
        setup["metadata"] = merged({}, params.setup_intent_data.metadata)
    return account.add(setup, "setup_intent.created")


def _details(customer: Object | None, email: str | None) -> Object:
    return {
        "address": customer["address"] if customer else None,
        "business_name": None,
        "email": customer["email"] if customer else email,
        "individual_name": None,
        "name": customer["name"] if customer else None,
        "phone": customer["phone"] if customer else None,
        "tax_exempt": customer["tax_exempt"] if customer else "none",
        "tax_ids": None,
    }
