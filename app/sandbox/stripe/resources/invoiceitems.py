"""Invoice items: amounts that wait for a customer's next invoice, or are on a draft already."""

from typing import Annotated

from pydantic import Field

from app.sandbox.stripe import drafts
from app.sandbox.stripe.account import Account
from app.sandbox.stripe.errors import InvalidParameter, InvalidState
from app.sandbox.stripe.objects import Object, new_id
from app.sandbox.stripe.operations import Call, Operations
from app.sandbox.stripe.params import Clearable, DatedListParams, Metadata, Params, Strict, merged
from app.sandbox.stripe.resources.customers import get_customer
from app.sandbox.stripe.resources.prices import active_price
from app.sandbox.stripe.store import NotNull, Null

operations: Operations[Object] = Operations()

MOST_PENDING = 250


class Period(Strict):
    start: int
    end: int


class PriceChoice(Strict):
    price: str


class ItemFields(Params):
    amount: int | None = None
    description: Clearable[str] = None
    discountable: bool = True
    metadata: Metadata
    period: Period | None = None
    quantity: Annotated[int, Field(ge=0)] = 1
    unit_amount_decimal: str | None = Field(default=None, pattern=r"^-?\d+$")


class ItemCreate(ItemFields):
    currency: str | None = None
    customer: str
    invoice: str | None = None
    pricing: PriceChoice | None = None
    subscription: str | None = None


class ItemList(DatedListParams):
    customer: str | None = None
    invoice: str | None = None
    pending: bool | None = None


def make_item(
    account: Account,
    customer: Object,
    currency: str,
    amount: int,
    description: str | None,
    period: Object,
    *,
    quantity: int = 1,
    price: Object | None = None,
    subscription: str | None = None,
    subscription_item: str | None = None,
    proration: bool = False,
) -> Object:
    """A new pending item of so many cents. Raises `InvalidState` where 250 are waiting already."""
    if account.count("invoiceitem", customer=customer["id"], invoice=Null()) >= MOST_PENDING:
        raise InvalidState(f"The customer has {MOST_PENDING} pending invoice items, and can have no more.")
    about: Object = {"subscription": subscription}
    if subscription_item:
        about["subscription_item"] = subscription_item
    item: Object = {
        "id": new_id("ii"),
        "object": "invoiceitem",
        "amount": amount,
        "currency": currency,
        "customer": customer["id"],
        "customer_account": None,
        "date": account.now(customer),
        "description": description,
        "discountable": not proration,
        "discounts": [],
        "invoice": None,
        "livemode": account.livemode,
        "metadata": {},
        "net_amount": amount,
        "parent": {"type": "subscription_details", "subscription_details": about} if subscription else None,
        "period": period,
        "pricing": drafts.price_details(price) if price else None,
        "proration": proration,
        "quantity": quantity,
        "quantity_decimal": str(quantity),
        "tax_rates": [],
        "test_clock": customer["test_clock"],
    }
    return item


@operations("POST /v1/invoiceitems", ItemCreate)
def create(call: Call[ItemCreate]) -> Object:
    account, params = call.account, call.params
    customer = get_customer(account, params.customer)
    price = active_price(account, params.pricing.price, "pricing[price]") if params.pricing else None
    currency = price["currency"] if price else (params.currency or "").lower()
    if not currency:
        raise InvalidParameter("Missing required param: currency.", code="parameter_missing", param="currency")
    if params.subscription:
        account.get("subscription", params.subscription, "subscription")
    now = account.now(customer)
    item = make_item(
        account,
        customer,
        currency,
        _amount(params, price),
        params.description,
        params.period.model_dump() if params.period else {"start": now, "end": now},
        quantity=params.quantity,
        price=price,
        subscription=params.subscription,
    )
    item["metadata"] = merged({}, params.metadata)
    account.add(item, "invoiceitem.created")
    if params.invoice:
        invoice = _draft(account, params.invoice)
        lines = drafts.take_items(account, invoice, [item])
        account.save(drafts.set_lines(invoice, invoice["lines"]["data"] + lines), "invoice.updated")
        return item | {"invoice": invoice["id"]}
    return item


@operations("GET /v1/invoiceitems/{invoiceitem}", Params)
def retrieve(call: Call[Params]) -> Object:
    return call.account.get("invoiceitem", call.id)


@operations("POST /v1/invoiceitems/{invoiceitem}", ItemFields)
def update(call: Call[ItemFields]) -> Object:
    account, params = call.account, call.params
    item = account.get("invoiceitem", call.id)
    draft = _draft(account, item["invoice"]) if item["invoice"] else None
    params.apply_to(item, "unit_amount_decimal")
    if params.unit_amount_decimal is not None:
        item["amount"] = int(params.unit_amount_decimal) * item["quantity"]
    item |= {"net_amount": item["amount"], "quantity_decimal": str(item["quantity"])}
    account.save(item)
    if draft:
        _replace_line(account, draft, item["id"], [drafts.line_of_item(item)])
    return item


@operations("DELETE /v1/invoiceitems/{invoiceitem}", Params)
def delete(call: Call[Params]) -> Object:
    account = call.account
    item = account.get("invoiceitem", call.id)
    if item["invoice"]:
        _replace_line(account, _draft(account, item["invoice"]), item["id"], [])
    return account.remove(item, "invoiceitem.deleted")


@operations("GET /v1/invoiceitems", ItemList)
def list_all(call: Call[ItemList]) -> Object:
    params = call.params
    filters: Object = {"customer": params.customer, "invoice": params.invoice}
    if params.pending is not None:
        filters["invoice"] = Null() if params.pending else NotNull()
    return call.account.list("invoiceitem", "/v1/invoiceitems", params, **filters)


def _amount(params: ItemCreate, price: Object | None) -> int:
    if params.amount is not None:
        return params.amount
    if price:
        return int(price["unit_amount"]) * params.quantity
    if params.unit_amount_decimal is not None:
        return int(params.unit_amount_decimal) * params.quantity
    raise InvalidParameter(
        "You must pass one of amount, pricing or unit_amount_decimal.", code="parameter_missing", param="amount"
    )


def _draft(account: Account, invoice_id: str) -> Object:
    invoice = account.get("invoice", invoice_id, "invoice")
    if invoice["status"] != "draft":
        raise InvalidState(
            "This invoice is no longer editable: its items can be neither added to, changed nor taken away.",
            code="invoice_not_editable",
            param="invoice",
        )
    return invoice


def _replace_line(account: Account, draft: Object, item_id: str, lines: list[Object]) -> None:
    def is_of_item(line: Object) -> bool:
        details = line["parent"]["invoice_item_details"]
        return bool(details) and details["invoice_item"] == item_id

    kept = [line for line in draft["lines"]["data"] if not is_of_item(line)]
    account.save(drafts.set_lines(draft, kept + lines), "invoice.updated")
