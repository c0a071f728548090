"""Payment intents: create, update, confirm, cancel, retrieve, list, search."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from app.sandbox.stripe import payments
from app.sandbox.stripe.account import Account
from app.sandbox.stripe.errors import InvalidParameter, InvalidState
from app.sandbox.stripe.objects import Object, public
from app.sandbox.stripe.operations import Call, Operations
from app.sandbox.stripe.params import (
    Clearable,
    DatedListParams,
    List,
    Metadata,
    Params,
    SearchParams,
    Strict,
    merged,
)
from app.sandbox.stripe.resources.customers import get_customer
from app.sandbox.stripe.resources.payment_methods import attach_to, refuse_spent, resolve
from app.sandbox.stripe.search import search

operations: Operations[Object] = Operations()

MOST_CENTS = 99_999_999
LEAST_CENTS = {"usd": 50}


CardOnly = List[Literal["card"]]


class AutomaticMethods(Strict):
    enabled: bool
    allow_redirects: Literal["always", "never"] = "always"


def _named_is_true(value: Any) -> Any:
    return True if value in ("one_off", "recurring") else value


OffSession = Annotated[bool, BeforeValidator(_named_is_true)]


class IntentFields(Params):
    description: Clearable[str] = None
    metadata: Metadata
    receipt_email: Clearable[str] = None
    setup_future_usage: Clearable[Literal["off_session", "on_session"]] = None
    statement_descriptor: str | None = None
    statement_descriptor_suffix: str | None = None


class IntentCreate(IntentFields):
    amount: int = Field(ge=1, le=MOST_CENTS)
    currency: str
    customer: str | None = None
    payment_method: str | None = None
    payment_method_types: CardOnly = Field(default_factory=list)
    automatic_payment_methods: AutomaticMethods | None = None
    confirm: bool = False
    off_session: OffSession = False
    return_url: str | None = None
    error_on_requires_action: bool = False
    capture_method: Literal["automatic", "automatic_async"] = "automatic"


class IntentUpdate(IntentFields):
    amount: int | None = Field(default=None, ge=1, le=MOST_CENTS)
    currency: str | None = None
    customer: str | None = None
    payment_method: Clearable[str] = None


class IntentConfirm(Params):
    payment_method: str | None = None
    off_session: OffSession = False
    return_url: str | None = None
    error_on_requires_action: bool = False
    setup_future_usage: Clearable[Literal["off_session", "on_session"]] = None
    receipt_email: Clearable[str] = None


class IntentCancel(Params):
    cancellation_reason: Literal["abandoned", "duplicate", "fraudulent", "requested_by_customer"] | None = None


class IntentRetrieve(Params):
    client_secret: str | None = None


class IntentList(DatedListParams):
    customer: str | None = None


@operations("POST /v1/payment_intents", IntentCreate)
def create(call: Call[IntentCreate]) -> Object:
    account, params = call.account, call.params
    currency = params.currency.lower()
    if params.amount < LEAST_CENTS.get(currency, 1):
        raise InvalidParameter("Amount must be at least $0.50 usd.", code="amount_too_small", param="amount")
    if params.off_session and not params.confirm:
        raise InvalidParameter("off_session can only be set when confirm is true.", param="off_session")
    customer = get_customer(account, params.customer) if params.customer else None
    intent = payments.new_intent(
        account,
        customer,
        params.amount,
        currency,
        automatic_payment_methods=_automatic(params),
        capture_method=params.capture_method,
        description=params.description,
        metadata=merged({}, params.metadata),
        receipt_email=params.receipt_email,
        setup_future_usage=params.setup_future_usage,
        statement_descriptor=params.statement_descriptor,
        statement_descriptor_suffix=params.statement_descriptor_suffix,
    )
    method = _usable(account, intent, params.payment_method) if params.payment_method else None
    if method:
        intent |= {"payment_method": method["id"], "status": "requires_confirmation"}
    account.add(intent, "payment_intent.created")
    if not params.confirm:
        return intent
    return _confirm(account, intent, method, params)


@operations("GET /v1/payment_intents/{intent}", IntentRetrieve)
def retrieve(call: Call[IntentRetrieve]) -> Object:
    return call.account.get("payment_intent", call.id)


@operations("POST /v1/payment_intents/{intent}", IntentUpdate)
def update(call: Call[IntentUpdate]) -> Object:
    account, params = call.account, call.params
    intent = account.get("payment_intent", call.id)
    given = params.model_fields_set
    if intent["status"] not in payments.CONFIRMABLE and given & {"amount", "currency", "customer", "payment_method"}:
        raise payments.unexpected_state(intent, "update")
    params.apply_to(intent, "payment_method")
    if params.customer:
        intent["_clock"] = get_customer(account, params.customer)["_clock"]
    if "payment_method" in given:
        method = _usable(account, intent, params.payment_method) if params.payment_method else None
        intent["payment_method"] = method["id"] if method else None
        intent["status"] = "requires_confirmation" if method else "requires_payment_method"
    return account.save(intent)


@operations("POST /v1/payment_intents/{intent}/confirm", IntentConfirm)
def confirm(call: Call[IntentConfirm]) -> Object:
    account, params = call.account, call.params
    intent = account.get("payment_intent", call.id)
    if intent["status"] not in payments.CONFIRMABLE:
        raise payments.unexpected_state(intent, "confirm")
    if intent["customer"]:
        get_customer(account, intent["customer"])
    intent |= params.given("payment_method", "off_session", "return_url", "error_on_requires_action")
    chosen = params.payment_method or intent["payment_method"]
    return _confirm(account, intent, _usable(account, intent, chosen) if chosen else None, params)


@operations("POST /v1/payment_intents/{intent}/cancel", IntentCancel)
def cancel(call: Call[IntentCancel]) -> Object:
    intent = call.account.get("payment_intent", call.id)
    if intent.get("_invoice"):
        raise InvalidState("PaymentIntents created by invoices cannot be canceled directly; void the invoice instead.")
    return payments.cancel(call.account, intent, call.params.cancellation_reason)


@operations("GET /v1/payment_intents", IntentList)
def list_all(call: Call[IntentList]) -> Object:
    return call.account.list("payment_intent", "/v1/payment_intents", call.params, customer=call.params.customer)


@operations("GET /v1/payment_intents/search", SearchParams)
def search_all(call: Call[SearchParams]) -> Object:
    return search(call.account, "payment_intent", "/v1/payment_intents/search", call.params)


def _automatic(params: IntentCreate) -> Object | None:
    """Stripe turns on automatic methods where nobody named any."""
    if params.automatic_payment_methods:
        return params.automatic_payment_methods.model_dump()
    if "payment_method_types" in params.model_fields_set:
        return None
    return {"enabled": True, "allow_redirects": "always"}


def _usable(account: Account, intent: Object, method_id: str) -> Object:
    """A payment method that may pay an intent. Raises `InvalidState` for one that is someone else's or spent."""
    method = resolve(account, method_id, account.now(intent))
    refuse_spent(method)
    if method["customer"] and method["customer"] != intent["customer"]:
        raise InvalidState(
            "The provided PaymentMethod cannot be used with this PaymentIntent: it belongs to another customer. "
            "Please include the Customer in the `customer` parameter on the PaymentIntent.",
            param="payment_method",
        )
    return method


def _confirm(account: Account, intent: Object, method: Object | None, params: IntentCreate | IntentConfirm) -> Object:
    if method is None:
        raise InvalidState(
            "You cannot confirm this PaymentIntent because it's missing a payment method. You can either update "
            "the PaymentIntent with a payment method and then confirm it again, or confirm it again directly "
            "with a payment method.",
            code="payment_intent_unexpected_state",
            extra={"payment_intent": public(intent)},
        )
    off_session = params.off_session or params.error_on_requires_action
    paid = payments.attempt(account, intent, method, off_session=off_session, return_url=params.return_url)
    if paid["setup_future_usage"] and paid["customer"] and not method["customer"]:
        attach_to(account, method, get_customer(account, paid["customer"]))
    return paid
