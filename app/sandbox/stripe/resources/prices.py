"""Prices per unit, once or each interval. What a price costs never changes; it is archived for another."""

from typing import Literal

from pydantic import Field

from app.sandbox.stripe.account import Account
from app.sandbox.stripe.errors import InvalidParameter, InvalidState
from app.sandbox.stripe.objects import Object, new_id
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
from app.sandbox.stripe.resources.products import make_product
from app.sandbox.stripe.search import search

operations: Operations[Object] = Operations()

Interval = Literal["day", "week", "month", "year"]


class Recurring(Strict):
    interval: Interval
    interval_count: int = Field(default=1, ge=1)
    usage_type: Literal["licensed"] = "licensed"


class ProductData(Strict):
    name: str
    active: bool = True
    id: str | None = None
    metadata: Metadata
    statement_descriptor: str | None = None
    unit_label: str | None = None


class PriceFields(Params):
    active: bool = True
    lookup_key: Clearable[str] = None
    metadata: Metadata
    nickname: Clearable[str] = None
    tax_behavior: Literal["exclusive", "inclusive", "unspecified"] = "unspecified"
    transfer_lookup_key: bool = False


class PriceCreate(PriceFields):
    billing_scheme: Literal["per_unit"] = "per_unit"
    currency: str
    product: str | None = None
    product_data: ProductData | None = None
    recurring: Recurring | None = None
    unit_amount: int | None = Field(default=None, ge=0)


class RecurringFilter(Strict):
    interval: Interval | None = None
    usage_type: Literal["licensed", "metered"] | None = None


class PriceList(DatedListParams):
    active: bool | None = None
    currency: str | None = None
    lookup_keys: List[str] | None = None
    product: str | None = None
    recurring: RecurringFilter | None = None
    type: Literal["one_time", "recurring"] | None = None


@operations("POST /v1/prices", PriceCreate)
def create(call: Call[PriceCreate]) -> Object:
    account, params = call.account, call.params
    if params.unit_amount is None:
        raise InvalidParameter("Missing required param: unit_amount.", code="parameter_missing", param="unit_amount")
    price: Object = {
        "id": new_id("price"),
        "object": "price",
        "active": params.active,
        "billing_scheme": "per_unit",
        "created": account.now(),
        "currency": params.currency.lower(),
        "custom_unit_amount": None,
        "livemode": account.livemode,
        "lookup_key": None,
        "metadata": merged({}, params.metadata),
        "nickname": params.nickname,
        "product": _product(account, params),
        "recurring": params.recurring.model_dump() | {"meter": None} if params.recurring else None,
        "tax_behavior": params.tax_behavior,
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "recurring" if params.recurring else "one_time",
        "unit_amount": params.unit_amount,
        "unit_amount_decimal": str(params.unit_amount),
    }
    _take_lookup_key(account, price, params)
    return account.add(price, "price.created")


@operations("GET /v1/prices/{price}", Params)
def retrieve(call: Call[Params]) -> Object:
    return call.account.get("price", call.id)


@operations("POST /v1/prices/{price}", PriceFields)
def update(call: Call[PriceFields]) -> Object:
    account, params = call.account, call.params
    price = params.apply_to(account.get("price", call.id), "lookup_key", "transfer_lookup_key")
    if "lookup_key" in params.model_fields_set:
        _take_lookup_key(account, price, params)
    return account.save(price, "price.updated")


@operations("GET /v1/prices", PriceList)
def list_all(call: Call[PriceList]) -> Object:
    params = call.params
    recurring = params.recurring or RecurringFilter()
    filters = {
        "active": params.active,
        "currency": params.currency,
        "lookup_key": params.lookup_keys,
        "product": params.product,
        "type": params.type,
        "recurring__interval": recurring.interval,
        "recurring__usage_type": recurring.usage_type,
    }
    return call.account.list("price", "/v1/prices", params, **filters)


@operations("GET /v1/prices/search", SearchParams)
def search_all(call: Call[SearchParams]) -> Object:
    return search(call.account, "price", "/v1/prices/search", call.params)


def active_price(account: Account, price_id: str, param: str) -> Object:
    """A price that can be sold. Raises `InvalidState` for one that is archived."""
    price = account.get("price", price_id, param)
    if not price["active"]:
        raise InvalidState("The price specified is inactive. This field only accepts active prices.", param=param)
    return price


def _product(account: Account, params: PriceCreate) -> str:
    if params.product:
        return str(account.get("product", params.product, "product")["id"])
    if params.product_data is None:
        raise InvalidParameter(
            "You must specify either `product` or `product_data` when creating a price.", param="product"
        )
    data = params.product_data
    product = make_product(account, data.name, data.id) | {
        "active": data.active,
        "metadata": merged({}, data.metadata),
        "statement_descriptor": data.statement_descriptor,
        "unit_label": data.unit_label,
    }
    return str(account.add(product, "product.created")["id"])


def _take_lookup_key(account: Account, price: Object, params: PriceFields) -> None:
    """A lookup key names one price; another has to hand it over explicitly."""
    if params.lookup_key:
        for holder in account.find("price", lookup_key=params.lookup_key):
            if holder["id"] == price["id"]:
                continue
            if not params.transfer_lookup_key:
                raise InvalidState(f"A price (`{holder['id']}`) already uses that lookup key.", param="lookup_key")
            account.save(holder | {"lookup_key": None}, "price.updated")
    price["lookup_key"] = params.lookup_key
