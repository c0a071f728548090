"""Payment methods: cards, and Link, which can be kept and be a default, but is not charged. A test id (`pm_card_visa`)
makes a new card wherever an id is taken."""

from datetime import UTC, datetime
from typing import Literal

from app.sandbox.stripe import cards
from app.sandbox.stripe.account import Account
from app.sandbox.stripe.errors import InvalidParameter, InvalidState, Missing
from app.sandbox.stripe.objects import Object, new_id
from app.sandbox.stripe.operations import Call, Operations
from app.sandbox.stripe.params import Address, Clearable, ListParams, Metadata, Params, Strict
from app.sandbox.stripe.resources.customers import before_delete, get_customer

operations: Operations[Object] = Operations()

_GOOD_FOR_YEARS = 4


class BillingDetails(Strict):
    address: Clearable[Address] = None
    email: Clearable[str] = None
    name: Clearable[str] = None
    phone: Clearable[str] = None
    tax_id: str | None = None


class CardDetails(Strict):
    token: str | None = None
    number: str | None = None
    exp_month: int | None = None
    exp_year: int | None = None
    cvc: str | None = None


class CardUpdate(Strict):
    exp_month: int | None = None
    exp_year: int | None = None


AllowRedisplay = Literal["always", "limited", "unspecified"]


class MethodCreate(Params):
    type: Literal["card", "link"]
    card: CardDetails = CardDetails()
    billing_details: BillingDetails = BillingDetails()
    allow_redisplay: AllowRedisplay = "unspecified"
    metadata: Metadata


class MethodUpdate(Params):
    card: CardUpdate = CardUpdate()
    billing_details: BillingDetails = BillingDetails()
    allow_redisplay: AllowRedisplay = "unspecified"
    metadata: Metadata


class MethodAttach(Params):
    customer: str


class MethodList(ListParams):
    customer: str | None = None
    type: str | None = None
    allow_redisplay: AllowRedisplay | None = None


def make_method(account: Account, card: str, moment: int) -> Object:
    """A new payment method on the test card of this name, good for four years from `moment`."""
    details = cards.CARDS[card]
    method: Object = {
        "id": new_id("pm"),
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": BillingDetails().model_dump() | {"address": Address().model_dump()},
        "card": {
            "brand": details.brand,
            "checks": {
                "address_line1_check": None,
                "address_postal_code_check": None,
                "cvc_check": "unchecked",
            },
            "country": "US",
            "display_brand": details.brand,
            "exp_month": 8,
            "exp_year": datetime.fromtimestamp(moment, UTC).year + _GOOD_FOR_YEARS,
            "fingerprint": f"fp{details.number[-14:]}",
            "funding": "credit",
            "generated_from": None,
            "last4": details.number[-4:],
            "networks": {"available": [details.brand], "preferred": None},
            "regulated_status": "unregulated",
            "three_d_secure_usage": {"supported": True},
            "wallet": None,
        },
        "created": moment,
        "customer": None,
        "customer_account": None,
        "livemode": account.livemode,
        "metadata": {},
        "type": "card",
        "_card": card,
    }
    return account.add(method)


def _make_link(account: Account, params: MethodCreate) -> Object:
    """What a customer pays with who keeps their cards with Link: their address there is all that is seen of it."""
    method = make_method(account, "visa", account.now())
    del method["card"], method["_card"]
    return method | {"type": "link", "link": {"email": params.billing_details.email}}


def resolve(account: Account, method_id: str, moment: int, param: str = "payment_method") -> Object:
    """The payment method of an id, or a new one where that is a test id. Raises `Missing`."""
    if card := cards.by_test_id(method_id):
        if account.livemode:
            raise Missing("PaymentMethod", method_id, param, "test")
        return make_method(account, card, moment)
    return account.get("payment_method", method_id, param)


def attach_to(account: Account, method: Object, customer: Object) -> Object:
    """Gives a payment method to a customer, for good or until it is detached."""
    if method["customer"] == customer["id"]:
        return method
    if method["customer"]:
        raise InvalidState("The payment method you provided has already been attached to a customer.")
    refuse_spent(method)
    method["customer"] = customer["id"]
    method["_clock"] = customer["_clock"]
    return account.save(method, "payment_method.attached")


def refuse_spent(method: Object) -> None:
    """Raises `InvalidState` for a method that was detached: it can never be used again."""
    if method.get("_spent"):
        raise InvalidState(
            "This PaymentMethod was previously used without being attached to a Customer or was detached from "
            "a Customer, and may not be used again.",
            param="payment_method",
        )


def detach(account: Account, method: Object) -> Object:
    """Takes a payment method from its customer, and from where it was the customer's default."""
    customer_id, method["customer"] = method["customer"], None
    method["_spent"] = True
    account.save(method)
    account.emit("payment_method.detached", method, {"customer": customer_id})
    customer = account.store.get(customer_id)
    if customer and customer[0].get("invoice_settings", {}).get("default_payment_method") == method["id"]:
        customer[0]["invoice_settings"]["default_payment_method"] = None
        account.save(customer[0], "customer.updated")
    return method


@before_delete
def _detach_all(account: Account, customer: Object) -> None:
    for method in account.find("payment_method", customer=customer["id"]):
        detach(account, method)


@operations("POST /v1/payment_methods", MethodCreate)
def create(call: Call[MethodCreate]) -> Object:
    account, params = call.account, call.params
    if params.type == "link":
        made = params.apply_to(_make_link(account, params), "card", "billing_details")
        return account.save(_with_details(made, params))
    card = cards.by_test_id(params.card.token) if params.card.token else cards.by_number(params.card.number or "")
    if card is None:
        param = "card[token]" if params.card.token else "card[number]"
        raise InvalidParameter("No such test card in this sandbox.", code="incorrect_number", param=param)
    method = make_method(account, card, account.now())
    if params.card.number:
        method["card"] |= {"exp_month": params.card.exp_month, "exp_year": params.card.exp_year}
    return account.save(_with_details(params.apply_to(method, "card", "billing_details", "type"), params))


@operations("GET /v1/payment_methods/{payment_method}", Params)
def retrieve(call: Call[Params]) -> Object:
    return call.account.get("payment_method", call.id)


@operations("POST /v1/payment_methods/{payment_method}", MethodUpdate)
def update(call: Call[MethodUpdate]) -> Object:
    account, params = call.account, call.params
    method = account.get("payment_method", call.id)
    if not method["customer"]:
        raise InvalidState("You must save this PaymentMethod to a customer before you can update it.")
    params.apply_to(method, "card", "billing_details")
    if changes := params.card.model_dump(exclude_unset=True):
        method["card"] |= changes
    return account.save(_with_details(method, params), "payment_method.updated")


@operations("POST /v1/payment_methods/{payment_method}/attach", MethodAttach)
def attach(call: Call[MethodAttach]) -> Object:
    account = call.account
    customer = get_customer(account, call.params.customer)
    moment = account.now(customer)
    method = resolve(account, call.id, moment, "id")
    if method["type"] == "card":
        card = cards.card_of(method)
        if card.decline and not card.attaches:
            raise card.decline.error({})
    return attach_to(account, method, customer)


@operations("POST /v1/payment_methods/{payment_method}/detach", Params)
def detach_one(call: Call[Params]) -> Object:
    method = call.account.get("payment_method", call.id)
    if not method["customer"]:
        raise InvalidState("The payment method you provided is not attached to a customer so detachment is impossible.")
    return detach(call.account, method)


@operations("GET /v1/payment_methods", MethodList)
def list_all(call: Call[MethodList]) -> Object:
    return _list(call, call.params.customer, "/v1/payment_methods")


@operations("GET /v1/customers/{customer}/payment_methods", MethodList)
def list_of_customer(call: Call[MethodList]) -> Object:
    call.account.get("customer", call.id)
    return _list(call, call.id, f"/v1/customers/{call.id}/payment_methods")


@operations("GET /v1/customers/{customer}/payment_methods/{payment_method}", Params)
def retrieve_of_customer(call: Call[Params]) -> Object:
    customer_id, method_id = call.ids
    method = call.account.get("payment_method", method_id)
    if method["customer"] != customer_id:
        raise Missing("PaymentMethod", method_id)
    return method


def _list(call: Call[MethodList], customer: str | None, url: str) -> Object:
    if customer is None:
        raise InvalidParameter("Missing required param: customer.", code="parameter_missing", param="customer")
    filters = {"type": call.params.type, "allow_redisplay": call.params.allow_redisplay}
    return call.account.list("payment_method", url, call.params, customer=customer, **filters)


def _with_details(method: Object, params: MethodCreate | MethodUpdate) -> Object:
    details = params.billing_details.model_dump(exclude_unset=True)
    if details.get("address"):
        details["address"] = Address().model_dump() | details["address"]
    method["billing_details"] |= details
    return method
