"""Refunds, in full or in part, of a charge or of the charge that paid an intent."""

from typing import Literal

from pydantic import Field

from app.sandbox.stripe.account import Account
from app.sandbox.stripe.cards import CARDS
from app.sandbox.stripe.errors import InvalidParameter, InvalidState
from app.sandbox.stripe.objects import Object, new_id
from app.sandbox.stripe.operations import Call, Operations
from app.sandbox.stripe.params import DatedListParams, Metadata, Params, merged
from app.sandbox.stripe.resources.charges import charge_to_refund, move_balance
from app.sandbox.stripe.schedule import when_due

operations: Operations[Object] = Operations()

_FAILS_AFTER_S = 3600


class RefundCreate(Params):
    charge: str | None = None
    payment_intent: str | None = None
    amount: int | None = Field(default=None, ge=1)
    reason: Literal["duplicate", "fraudulent", "requested_by_customer"] | None = None
    metadata: Metadata


class RefundUpdate(Params):
    metadata: Metadata


class RefundList(DatedListParams):
    charge: str | None = None
    payment_intent: str | None = None


def refund_charge(
    account: Account,
    charge: Object,
    amount: int | None = None,
    reason: str | None = None,
    metadata: Object | None = None,
) -> Object:
    """Gives back so many cents of a charge, or all that is left. Raises `InvalidState` for more than that."""
    left = charge["amount"] - charge["amount_refunded"]
    if charge["status"] != "succeeded":
        raise InvalidState(f"Charge {charge['id']} has not been paid and cannot be refunded.", param="charge")
    if charge["disputed"]:
        raise InvalidState(
            f"Charge {charge['id']} has been charged back; cannot issue a refund.", code="charge_disputed"
        )
    if left == 0:
        raise InvalidState(f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded")
    if amount is not None and amount > left:
        raise InvalidState(
            f"Refund amount (${amount / 100:.2f}) is greater than unrefunded amount on charge (${left / 100:.2f})",
            param="amount",
        )
    given_back = left if amount is None else amount
    refund: Object = {
        "id": new_id("re"),
        "object": "refund",
        "amount": given_back,
        "balance_transaction": None,
        "charge": charge["id"],
        "created": account.now(charge),
        "currency": charge["currency"],
        "customer": charge["customer"],
        "customer_account": None,
        "destination_details": {
            "type": "card",
            "card": {"type": "refund", "reference_status": "pending", "reference_type": "acquirer_reference_number"},
        },
        "metadata": metadata or {},
        "payment_intent": charge["payment_intent"],
        "payment_method": charge["payment_method"],
        "reason": reason,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
        "_clock": charge["_clock"],
    }
    refund["balance_transaction"] = move_balance(account, refund, -given_back, 0, "refund")["id"]
    if CARDS[charge["_card"]].refund_fails:
        refund["_due"] = refund["created"] + _FAILS_AFTER_S
    account.add(refund, "refund.created")
    charge["amount_refunded"] += given_back
    charge["refunded"] = charge["amount_refunded"] == charge["amount"]
    account.save(charge, "charge.refunded")
    return refund


def fail_refund(account: Account, refund: Object) -> Object:
    """The bank could not give the money back: it is the account's again, and the charge is paid by so much."""
    if refund["status"] == "failed":
        raise InvalidState("The refund has failed already.")
    back = move_balance(account, refund, refund["amount"], 0, "payment_failure_refund")
    refund |= {"status": "failed", "failure_reason": "unknown", "failure_balance_transaction": back["id"]}
    refund.pop("_due", None)
    charge = account.get("charge", refund["charge"])
    charge["amount_refunded"] -= refund["amount"]
    charge["refunded"] = False
    account.save(charge, "charge.updated")
    return account.save(refund, "refund.updated", "refund.failed", "charge.refund.updated")


@when_due("refund")
def _fail_when_due(account: Account, refund: Object) -> None:
    fail_refund(account, refund)


@operations("POST /v1/refunds", RefundCreate)
def create(call: Call[RefundCreate]) -> Object:
    account, params = call.account, call.params
    if params.charge:
        charge = account.get("charge", params.charge, "charge")
    elif params.payment_intent:
        charge = charge_to_refund(account, params.payment_intent)
    else:
        raise InvalidParameter(
            "One of the following params should be provided for this request: payment_intent or charge.",
            code="parameter_missing",
            param="charge",
        )
    return refund_charge(account, charge, params.amount, params.reason, merged({}, params.metadata))


@operations("GET /v1/refunds/{refund}", Params)
def retrieve(call: Call[Params]) -> Object:
    return call.account.get("refund", call.id)


@operations("POST /v1/refunds/{refund}", RefundUpdate)
def update(call: Call[RefundUpdate]) -> Object:
    refund = call.account.get("refund", call.id)
    return call.account.save(call.params.apply_to(refund), "refund.updated")


@operations("GET /v1/refunds", RefundList)
def list_all(call: Call[RefundList]) -> Object:
    filters = {"charge": call.params.charge, "payment_intent": call.params.payment_intent}
    return call.account.list("refund", "/v1/refunds", call.params, **filters)
