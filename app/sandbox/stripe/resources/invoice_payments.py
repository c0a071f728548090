"""Invoice payments: which intent is to pay an invoice, or did."""

from typing import Literal

from app.sandbox.stripe.objects import Object
from app.sandbox.stripe.operations import Call, Operations
from app.sandbox.stripe.params import DatedListParams, Params, Strict

operations: Operations[Object] = Operations()


class PaymentFilter(Strict):
    type: Literal["payment_intent"]
    payment_intent: str


class PaymentList(DatedListParams):
    invoice: str | None = None
    payment: PaymentFilter | None = None
    status: Literal["canceled", "open", "paid"] | None = None


@operations("GET /v1/invoice_payments/{invoice_payment}", Params)
def retrieve(call: Call[Params]) -> Object:
    return call.account.get("invoice_payment", call.id)


@operations("GET /v1/invoice_payments", PaymentList)
def list_all(call: Call[PaymentList]) -> Object:
    params = call.params
    filters = {
        "invoice": params.invoice,
        "payment.payment_intent": params.payment.payment_intent if params.payment else None,
        "status": params.status,
    }
    return call.account.list("invoice_payment", "/v1/invoice_payments", params, **filters)
