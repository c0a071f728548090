"""Invoices: made by hand or by subscriptions, finalized, paid, voided, given up; and previews of the next."""

from typing import Literal

from pydantic import Field

from app.sandbox.stripe import cycles, drafts, invoicing, rendering
from app.sandbox.stripe.account import Account
from app.sandbox.stripe.errors import InvalidParameter, InvalidState
from app.sandbox.stripe.intervals import period_end
from app.sandbox.stripe.objects import Object, list_object, new_id
from app.sandbox.stripe.operations import Call, Operations
from app.sandbox.stripe.params import Clearable, DatedListParams, Metadata, Params, SearchParams, Strict
from app.sandbox.stripe.resources.customers import before_delete, get_customer
from app.sandbox.stripe.resources.payment_methods import resolve
from app.sandbox.stripe.search import search

operations: Operations[Object] = Operations()


class InvoiceFields(Params):
    auto_advance: bool = False
    collection_method: Literal["charge_automatically", "send_invoice"] = "charge_automatically"
    days_until_due: int | None = Field(default=None, ge=0)
    default_payment_method: Clearable[str] = None
    description: Clearable[str] = None
    footer: Clearable[str] = None
    metadata: Metadata


class InvoiceCreate(InvoiceFields):
    currency: str = "usd"
    customer: str
    pending_invoice_items_behavior: Literal["exclude", "include"] = "exclude"
    subscription: str | None = None


class InvoiceFinalize(Params):
    auto_advance: bool = False


class InvoicePay(Params):
    off_session: bool = True
    paid_out_of_band: bool = False
    payment_method: str | None = None


class InvoiceList(DatedListParams):
    collection_method: Literal["charge_automatically", "send_invoice"] | None = None
    customer: str | None = None
    status: Literal["draft", "open", "paid", "uncollectible", "void"] | None = None
    subscription: str | None = None


class PreviewDetails(Strict):
    cancel_at_period_end: bool = False
    cancel_now: bool = False


class InvoicePreview(Params):
    customer: str | None = None
    subscription: str | None = None
    subscription_details: PreviewDetails = PreviewDetails()


@operations("POST /v1/invoices", InvoiceCreate)
def create(call: Call[InvoiceCreate]) -> Object:
    account, params = call.account, call.params
    customer = get_customer(account, params.customer)
    if params.subscription:
        subscription = account.get("subscription", params.subscription, "subscription")
        draft = cycles.draft_for(account, subscription, "manual") | {"auto_advance": False}
    else:
        draft = drafts.new_draft(account, customer, "manual", params.currency.lower())
    params.apply_to(draft, "currency", "customer", "days_until_due", "pending_invoice_items_behavior", "subscription")
    _set_due_date(draft, params)
    _schedule(account, draft)
    account.add(draft)
    if params.pending_invoice_items_behavior == "include":
        pending = drafts.pending_items(account, customer["id"], draft["currency"], params.subscription)
        drafts.set_lines(draft, drafts.take_items(account, draft, pending))
    return account.save(draft, "invoice.created")


@operations("GET /v1/invoices/{invoice}", Params)
def retrieve(call: Call[Params]) -> Object:
    return call.account.get("invoice", call.id)


@operations("POST /v1/invoices/{invoice}", InvoiceFields)
def update(call: Call[InvoiceFields]) -> Object:
    account, params = call.account, call.params
    invoice = account.get("invoice", call.id)
    frozen = params.model_fields_set - {"auto_advance", "metadata", "expand", "default_payment_method"}
    if invoice["status"] != "draft" and frozen:
        raise InvalidState(
            f"Finalized invoices can't be updated in this way ({', '.join(sorted(frozen))}).",
            code="invoice_not_editable",
        )
    params.apply_to(invoice, "days_until_due")
    _set_due_date(invoice, params)
    _schedule(account, invoice)
    return account.save(invoice, "invoice.updated")


@operations("DELETE /v1/invoices/{invoice}", Params)
def delete(call: Call[Params]) -> Object:
    account = call.account
    invoice = account.get("invoice", call.id)
    if invoice["status"] != "draft" or drafts.subscription_of(invoice):
        raise InvalidState("You can only delete draft invoices that no subscription made.")
    for item in account.find("invoiceitem", invoice=invoice["id"]):
        account.remove(item, "invoiceitem.deleted")
    return account.remove(invoice, "invoice.deleted")


@operations("POST /v1/invoices/{invoice}/finalize", InvoiceFinalize)
def finalize(call: Call[InvoiceFinalize]) -> Object:
    invoice = call.account.get("invoice", call.id)
    if "auto_advance" in call.params.model_fields_set:
        invoice["auto_advance"] = call.params.auto_advance
    return invoicing.finalize(call.account, invoice)


@operations("POST /v1/invoices/{invoice}/pay", InvoicePay)
def pay(call: Call[InvoicePay]) -> Object:
    account, params = call.account, call.params
    invoice = account.get("invoice", call.id)
    if invoice["status"] == "draft":
        invoice = invoicing.finalize(account, invoice)
    if invoice["status"] not in ("open", "uncollectible"):
        raise InvalidState(f"Invoice is already {invoice['status']}")
    if params.paid_out_of_band:
        return invoicing.settle(account, invoice, out_of_band=True)
    method = resolve(account, params.payment_method, account.now(invoice)) if params.payment_method else None
    return invoicing.collect(account, invoice, method)


@operations("POST /v1/invoices/{invoice}/send", Params)
def send(call: Call[Params]) -> Object:
    account = call.account
    invoice = account.get("invoice", call.id)
    if invoice["status"] == "draft":
        invoice = invoicing.finalize(account, invoice)
    account.emit("invoice.sent", invoice)
    return invoice


@operations("POST /v1/invoices/{invoice}/void", Params)
def void(call: Call[Params]) -> Object:
    return invoicing.void(call.account, call.account.get("invoice", call.id))


@operations("POST /v1/invoices/{invoice}/mark_uncollectible", Params)
def mark_uncollectible(call: Call[Params]) -> Object:
    return invoicing.mark_uncollectible(call.account, call.account.get("invoice", call.id))


@operations("GET /v1/invoices", InvoiceList)
def list_all(call: Call[InvoiceList]) -> Object:
    params = call.params
    filters = {
        "collection_method": params.collection_method,
        "customer": params.customer,
        "status": params.status,
        "parent__subscription_details__subscription": params.subscription,
    }
    return call.account.list("invoice", "/v1/invoices", params, **filters)


@operations("GET /v1/invoices/search", SearchParams)
def search_all(call: Call[SearchParams]) -> Object:
    return search(call.account, "invoice", "/v1/invoices/search", call.params)


@operations("POST /v1/invoices/create_preview", InvoicePreview)
def create_preview(call: Call[InvoicePreview]) -> Object:
    """The invoice that comes next, if nothing changes: the next period, and what waits for it."""
    account, params = call.account, call.params
    if not params.subscription:
        return _preview_of_items(account, params)
    subscription = account.get("subscription", params.subscription, "subscription")
    draft = cycles.draft_for(account, subscription, "upcoming")
    start = cycles.current_end(subscription)
    lines: list[Object] = []
    ends = params.subscription_details.cancel_at_period_end or params.subscription_details.cancel_now
    if not (ends or subscription["cancel_at"]):
        recurring = cycles.items_of(subscription)[0]["price"]["recurring"]
        finish = period_end(subscription["billing_cycle_anchor"], start, recurring)
        lines = cycles.plan_lines(subscription, {"start": start, "end": finish})
    moment = account.now(subscription) if params.subscription_details.cancel_now else start
    draft |= {"created": moment, "period_end": moment}
    return _preview(account, draft, lines)


def _preview_of_items(account: Account, params: InvoicePreview) -> Object:
    if not params.customer:
        raise InvalidParameter("Missing required param: customer.", code="parameter_missing", param="customer")
    customer = get_customer(account, params.customer)
    return _preview(account, drafts.new_draft(account, customer, "upcoming", "usd"), [])


def _preview(account: Account, draft: Object, lines: list[Object]) -> Object:
    subscription_id = drafts.subscription_of(draft)
    pending = drafts.pending_items(account, draft["customer"], draft["currency"], subscription_id)
    if not lines and not pending:
        raise InvalidState(f"No upcoming invoices for customer: {draft['customer']}", code="invoice_upcoming_none")
    draft["id"] = new_id("upcoming_in")
    draft["starting_balance"] = get_customer(account, draft["customer"])["balance"]
    return drafts.set_lines(draft, lines + [drafts.line_of_item(item) for item in pending])


@before_delete
def _ask_no_more(account: Account, customer: Object) -> None:
    """Nothing of a deleted customer is finalized or charged by itself any more."""
    for invoice in account.find("invoice", customer=customer["id"], status=["draft", "open"]):
        account.save(invoice | {"auto_advance": False, "next_payment_attempt": None, "_due": None})


def _set_due_date(invoice: Object, params: InvoiceFields) -> None:
    if params.days_until_due is not None:
        invoice["due_date"] = invoice["created"] + params.days_until_due * 24 * 3600


def _schedule(account: Account, invoice: Object) -> None:
    """A draft that advances by itself is finalized about an hour later."""
    if invoice["status"] == "draft":
        moment = account.now(invoice) + account.settings.finalize_after_s if invoice["auto_advance"] else None
        invoice |= {"automatically_finalizes_at": moment, "_due": moment}


@rendering.includable("invoice", "payments")
def _payments(account: Account, invoice: Object) -> Object:
    found = account.find("invoice_payment", invoice=invoice["id"])
    return list_object(f"/v1/invoice_payments?invoice={invoice['id']}", found)


@rendering.includable("invoice", "confirmation_secret")
def _confirmation_secret(account: Account, invoice: Object) -> Object | None:
    payments = account.find("invoice_payment", 1, invoice=invoice["id"])
    if not payments:
        return None
    intent = account.get("payment_intent", payments[0]["payment"]["payment_intent"])
    return {"client_secret": intent["client_secret"], "type": "payment_intent"}
