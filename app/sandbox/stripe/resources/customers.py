"""Customers: create, retrieve, update, delete, list, search."""

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from app.sandbox.stripe.account import Account
from app.sandbox.stripe.errors import InvalidState
from app.sandbox.stripe.objects import Object, new_id, random_chars
from app.sandbox.stripe.operations import Call, Operations
from app.sandbox.stripe.params import (
    Address,
    Clearable,
    DatedListParams,
    List,
    Metadata,
    Params,
    SearchParams,
    Strict,
    merged,
)
from app.sandbox.stripe.search import search

operations: Operations[Object] = Operations()

_before_delete: list[Callable[[Account, Object], None]] = []


def before_delete(leave: Callable[[Account, Object], None]) -> Callable[[Account, Object], None]:
    """`@before_delete` on what another resource does with its part of a customer that is deleted."""
    _before_delete.append(leave)
    return leave


class CustomField(Strict):
    name: str
    value: str


class RenderingOptions(Strict):
    amount_tax_display: Clearable[Literal["exclude_tax", "include_inclusive_tax"]] = None
    template: str | None = None


class InvoiceSettings(Strict):
    custom_fields: Clearable[List[CustomField]] = None
    default_payment_method: Clearable[str] = None
    footer: Clearable[str] = None
    rendering_options: Clearable[RenderingOptions] = None


class Shipping(Strict):
    address: Address
    name: str
    phone: Clearable[str] = None


class CustomerFields(Params):
    address: Clearable[Address] = None
    balance: int = 0
    description: Clearable[str] = None
    email: Clearable[str] = None
    invoice_prefix: str | None = None
    invoice_settings: InvoiceSettings = InvoiceSettings()
    metadata: Metadata
    name: Clearable[str] = None
    next_invoice_sequence: int = 1
    phone: Clearable[str] = None
    preferred_locales: List[str] = Field(default_factory=list)
    shipping: Clearable[Shipping] = None
    tax_exempt: Literal["", "exempt", "none", "reverse"] = "none"


class CustomerCreate(CustomerFields):
    test_clock: str | None = None


class CustomerList(DatedListParams):
    email: str | None = None
    test_clock: str | None = None


def get_customer(account: Account, customer_id: str, param: str = "customer") -> Object:
    """The customer that another object names. Raises `Missing` for a deleted one."""
    return account.get("customer", customer_id, param)


def delete_customer(account: Account, customer: Object) -> Object:
    """Deletes a customer; what is left of it can still be retrieved."""
    for leave in _before_delete:
        leave(account, customer)
    account.emit("customer.deleted", customer)
    return account.save({"id": customer["id"], "object": "customer", "deleted": True})


def make_customer(account: Account, params: CustomerCreate) -> Object:
    """A new customer, as the parameters say."""
    clock = account.get("test_helpers.test_clock", params.test_clock, "test_clock") if params.test_clock else None
    customer: Object = {
        "id": new_id("cus", 14),
        "object": "customer",
        "address": None,
        "balance": params.balance,
        "created": clock["frozen_time"] if clock else account.now(),
        "currency": None,
        "customer_account": None,
        "default_source": None,
        "delinquent": False,
        "description": params.description,
        "discount": None,
        "email": params.email,
        "invoice_prefix": params.invoice_prefix or random_chars(8).upper(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": account.livemode,
        "metadata": merged({}, params.metadata),
        "name": params.name,
        "next_invoice_sequence": params.next_invoice_sequence,
        "phone": params.phone,
        "preferred_locales": params.preferred_locales,
        "shipping": None,
        "tax_exempt": params.tax_exempt or "none",
        "test_clock": params.test_clock,
        "_clock": params.test_clock,
    }
    _apply_nested(account, customer, params)
    return account.add(customer, "customer.created")


@operations("POST /v1/customers", CustomerCreate)
def create(call: Call[CustomerCreate]) -> Object:
    return make_customer(call.account, call.params)


@operations("GET /v1/customers/{customer}", Params)
def retrieve(call: Call[Params]) -> Object:
    return call.account.get("customer", call.id, deleted=True)


@operations("POST /v1/customers/{customer}", CustomerFields)
def update(call: Call[CustomerFields]) -> Object:
    account, params = call.account, call.params
    customer = account.get("customer", call.id)
    params.apply_to(customer, "address", "invoice_settings", "shipping")
    _apply_nested(account, customer, params)
    return account.save(customer, "customer.updated")


@operations("DELETE /v1/customers/{customer}", Params)
def delete(call: Call[Params]) -> Object:
    account = call.account
    return delete_customer(account, account.get("customer", call.id))


@operations("GET /v1/customers", CustomerList)
def list_all(call: Call[CustomerList]) -> Object:
    filters = {"email": call.params.email, "test_clock": call.params.test_clock}
    return call.account.list("customer", "/v1/customers", call.params, **filters)


@operations("GET /v1/customers/search", SearchParams)
def search_all(call: Call[SearchParams]) -> Object:
    return search(call.account, "customer", "/v1/customers/search", call.params)


def _apply_nested(account: Account, customer: Object, params: CustomerFields) -> None:
    """The parameters that are objects: an address as a whole, invoice settings key by key."""
    given = params.model_fields_set
    if "address" in given:
        customer["address"] = params.address.model_dump() if params.address else None
    if "shipping" in given:
        customer["shipping"] = params.shipping.model_dump() if params.shipping else None
    if "invoice_settings" in given:
        _refuse_anothers_method(account, customer, params.invoice_settings.default_payment_method)
        customer["invoice_settings"] |= params.invoice_settings.model_dump(exclude_unset=True)


def _refuse_anothers_method(account: Account, customer: Object, method_id: str | None) -> None:
    if method_id is None:
        return
    param = "invoice_settings[default_payment_method]"
    method = account.get("payment_method", method_id, param)
    if method["customer"] != customer["id"]:
        raise InvalidState(
            f"The customer does not have a payment method with the ID {method_id}. The payment method must be "
            "attached to the customer.",
            code="resource_missing",
            param=param,
        )
