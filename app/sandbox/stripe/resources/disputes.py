"""Disputes. A cardholder opens one, by the control API or with the card that always does; a bank closes it."""

from typing import Annotated, Literal

from pydantic import Field

from app.sandbox.stripe import payments
from app.sandbox.stripe.account import Account
from app.sandbox.stripe.cards import CARDS
from app.sandbox.stripe.errors import InvalidState
from app.sandbox.stripe.objects import Object, new_id
from app.sandbox.stripe.operations import Call, Operations
from app.sandbox.stripe.params import DatedListParams, Metadata, Params
from app.sandbox.stripe.resources.charges import move_balance

operations: Operations[Object] = Operations()

_FEE_CENTS = 1500
_ANSWER_WITHIN_S = 9 * 24 * 3600
_EVIDENCE = [
    "access_activity_log",
    "billing_address",
    "cancellation_policy",
    "cancellation_policy_disclosure",
    "cancellation_rebuttal",
    "customer_communication",
    "customer_email_address",
    "customer_name",
    "customer_purchase_ip",
    "customer_signature",
    "duplicate_charge_documentation",
    "duplicate_charge_explanation",
    "duplicate_charge_id",
    "product_description",
    "receipt",
    "refund_policy",
    "refund_policy_disclosure",
    "refund_refusal_explanation",
    "service_date",
    "service_documentation",
    "shipping_address",
    "shipping_carrier",
    "shipping_date",
    "shipping_documentation",
    "shipping_tracking_number",
    "uncategorized_file",
    "uncategorized_text",
]

Reason = Literal["duplicate", "fraudulent", "general", "product_not_received", "subscription_canceled", "unrecognized"]


class DisputeUpdate(Params):
    evidence: Annotated[dict[str, str], Field(default_factory=dict)]
    metadata: Metadata
    submit: bool = True


class DisputeList(DatedListParams):
    charge: str | None = None
    payment_intent: str | None = None


def open_dispute(account: Account, charge: Object, reason: str) -> Object:
    """A cardholder disputes what is left of a charge: the money and a fee are withdrawn."""
    if charge["status"] != "succeeded" or charge["disputed"]:
        raise InvalidState(f"Charge {charge['id']} cannot be disputed (again).")
    moment = account.now(charge)
    dispute: Object = {
        "id": new_id("du"),
        "object": "dispute",
        "amount": charge["amount"] - charge["amount_refunded"],
        "balance_transactions": [],
        "charge": charge["id"],
        "created": moment,
        "currency": charge["currency"],
        "enhanced_eligibility_types": [],
        "evidence": dict.fromkeys(_EVIDENCE) | {"enhanced_evidence": {}},
        "evidence_details": {
            "due_by": moment + _ANSWER_WITHIN_S,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
        },
        "is_charge_refundable": False,
        "livemode": account.livemode,
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "payment_method_details": {
            "type": "card",
            "card": {
                "brand": charge["payment_method_details"]["card"]["brand"],
                "case_type": "chargeback",
                "network": charge["payment_method_details"]["card"]["brand"],
                "network_reason_code": "10.4",
            },
        },
        "reason": reason,
        "status": "needs_response",
        "_clock": charge["_clock"],
    }
    withdrawn = move_balance(account, dispute, -dispute["amount"], _FEE_CENTS, "adjustment")
    dispute["balance_transactions"] = [withdrawn]
    charge["disputed"] = True
    account.save(charge, "charge.updated")
    return account.add(dispute, "charge.dispute.created", "charge.dispute.funds_withdrawn")


def close_dispute(account: Account, dispute: Object, outcome: Literal["won", "lost"]) -> Object:
    """The bank decides. A dispute that was won gives the money back; one that was lost stays closed."""
    if dispute["status"] in ("won", "lost"):
        raise InvalidState("This dispute is already closed.", code="dispute_already_closed")
    dispute["status"] = outcome
    if outcome == "won":
        reinstated = move_balance(account, dispute, dispute["amount"], -_FEE_CENTS, "adjustment")
        dispute["balance_transactions"].append(reinstated)
        account.save(dispute)
        account.emit("charge.dispute.funds_reinstated", dispute)
    return account.save(dispute, "charge.dispute.closed")


@payments.when_paid
def _dispute_at_once(account: Account, intent: Object) -> None:
    charge = account.get("charge", intent["latest_charge"])
    if reason := CARDS[charge["_card"]].disputed_as:
        open_dispute(account, charge, reason)


@operations("GET /v1/disputes/{dispute}", Params)
def retrieve(call: Call[Params]) -> Object:
    return call.account.get("dispute", call.id)


@operations("POST /v1/disputes/{dispute}", DisputeUpdate)
def update(call: Call[DisputeUpdate]) -> Object:
    account, params = call.account, call.params
    dispute = account.get("dispute", call.id)
    params.apply_to(dispute, "evidence", "submit")
    if params.evidence:
        dispute["evidence"] |= params.evidence
        dispute["evidence_details"]["has_evidence"] = True
        if params.submit:
            dispute["evidence_details"]["submission_count"] += 1
            dispute["status"] = "under_review"
    return account.save(dispute, "charge.dispute.updated")


@operations("POST /v1/disputes/{dispute}/close", Params)
def close(call: Call[Params]) -> Object:
    return close_dispute(call.account, call.account.get("dispute", call.id), "lost")


@operations("GET /v1/disputes", DisputeList)
def list_all(call: Call[DisputeList]) -> Object:
    filters = {"charge": call.params.charge, "payment_intent": call.params.payment_intent}
    return call.account.list("dispute", "/v1/disputes", call.params, **filters)
