"""Charges: what a payment intent leaves behind for each attempt, and the balance that it moves."""

from app.sandbox.stripe import rendering
from app.sandbox.stripe.account import Account
from app.sandbox.stripe.cards import Decline
from app.sandbox.stripe.errors import InvalidState
from app.sandbox.stripe.objects import Object, list_object, new_id
from app.sandbox.stripe.operations import Call, Operations
from app.sandbox.stripe.params import Clearable, DatedListParams, Metadata, Params, SearchParams
from app.sandbox.stripe.search import search

operations: Operations[Object] = Operations()

_PAYOUT_AFTER_S = 2 * 24 * 3600


class ChargeUpdate(Params):
    description: Clearable[str] = None
    metadata: Metadata
    receipt_email: Clearable[str] = None


class ChargeList(DatedListParams):
    customer: str | None = None
    payment_intent: str | None = None


def make_charge(account: Account, intent: Object, method: Object, decline: Decline | None, moment: int) -> Object:
    """The charge of one attempt at an intent, paid or declined, and its event."""
    charge: Object = {
        "id": new_id("ch"),
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": 0 if decline else intent["amount"],
        "amount_refunded": 0,
        "application": None,
        "application_fee": None,
        "application_fee_amount": None,
        "balance_transaction": None,
        "billing_details": method["billing_details"],
        "calculated_statement_descriptor": "TALLYHOOK SANDBOX",
        "captured": decline is None,
        "created": moment,
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "failure_balance_transaction": None,
        "failure_code": decline.code if decline else None,
        "failure_message": decline.message if decline else None,
        "fraud_details": {},
        "livemode": account.livemode,
        "metadata": dict(intent["metadata"]),
        "on_behalf_of": None,
        "outcome": _outcome(decline),
        "paid": decline is None,
        "payment_intent": intent["id"],
        "payment_method": method["id"],
        "payment_method_details": {"type": "card", "card": _card_details(intent, method)},
        "receipt_email": intent["receipt_email"],
        "receipt_number": None,
        "receipt_url": None,
        "refunded": False,
        "review": None,
        "shipping": None,
        "source_transfer": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": "failed" if decline else "succeeded",
        "transfer_data": None,
        "transfer_group": None,
        "_clock": intent.get("_clock"),
        "_card": method["_card"],
    }
    if decline is None:
        fee = round(intent["amount"] * 0.029) + 30
        charge["balance_transaction"] = move_balance(account, charge, charge["amount"], fee, "charge")["id"]
    return account.add(charge, "charge.failed" if decline else "charge.succeeded")


def move_balance(account: Account, source: Object, amount: int, fee: int, kind: str) -> Object:
    """A balance transaction of so many cents (less than 0 takes them away), with a fee, for its source."""
    moment = account.now(source)
    category = {"payment_failure_refund": "refund_failure", "adjustment": "dispute"}.get(kind, kind)
    transaction: Object = {
        "id": new_id("txn"),
        "object": "balance_transaction",
        "amount": amount,
        "available_on": moment + _PAYOUT_AFTER_S,
        "balance_type": "payments",
        "created": moment,
        "currency": source["currency"],
        "description": source.get("description"),
        "exchange_rate": None,
        "fee": fee,
        "fee_details": [],
        "net": amount - fee,
        "reporting_category": category,
        "source": source["id"],
        "status": "pending",
        "type": kind,
    }
    return account.add(transaction)


def charge_to_refund(account: Account, intent_id: str) -> Object:
    """The charge that paid an intent. Raises `InvalidState` where none did."""
    intent = account.get("payment_intent", intent_id, "payment_intent")
    if intent["status"] != "succeeded":
        raise InvalidState(
            f"This PaymentIntent ({intent_id}) does not have a successful charge to refund.",
            code="payment_intent_unexpected_state",
        )
    return account.get("charge", intent["latest_charge"])


def _outcome(decline: Decline | None) -> Object:
    return {
        "advice_code": decline.advice if decline else None,
        "network_advice_code": None,
        "network_decline_code": "05" if decline else None,
        "network_status": "declined_by_network" if decline else "approved_by_network",
        "reason": decline.decline_code if decline else None,
        "risk_level": "normal",
        "risk_score": 10,
        "seller_message": decline.message if decline else "Payment complete.",
        "type": "issuer_declined" if decline else "authorized",
    }


def _card_details(intent: Object, method: Object) -> Object:
    card = method["card"]
    copied = ("brand", "checks", "country", "exp_month", "exp_year", "fingerprint", "funding", "last4", "wallet")
    return {name: card[name] for name in copied} | {
        "amount_authorized": intent["amount"],
        "authorization_code": None,
        "extended_authorization": {"status": "disabled"},
        "incremental_authorization": {"status": "unavailable"},
        "installments": None,
        "mandate": None,
        "multicapture": {"status": "unavailable"},
        "network": card["brand"],
        "network_token": {"used": False},
        "network_transaction_id": None,
        "overcapture": {"maximum_amount_capturable": intent["amount"], "status": "unavailable"},
        "regulated_status": card["regulated_status"],
        "three_d_secure": None,
        "transaction_link_id": None,
    }


@rendering.includable("charge", "refunds")
def _refunds(account: Account, charge: Object) -> Object:
    return list_object(f"/v1/charges/{charge['id']}/refunds", account.find("refund", charge=charge["id"]))


@operations("GET /v1/charges/{charge}", Params)
def retrieve(call: Call[Params]) -> Object:
    return call.account.get("charge", call.id)


@operations("POST /v1/charges/{charge}", ChargeUpdate)
def update(call: Call[ChargeUpdate]) -> Object:
    charge = call.account.get("charge", call.id)
    return call.account.save(call.params.apply_to(charge), "charge.updated")


@operations("GET /v1/charges", ChargeList)
def list_all(call: Call[ChargeList]) -> Object:
    params = call.params
    filters = {"customer": params.customer, "payment_intent": params.payment_intent}
    return call.account.list("charge", "/v1/charges", params, **filters)


@operations("GET /v1/charges/search", SearchParams)
def search_all(call: Call[SearchParams]) -> Object:
    return search(call.account, "charge", "/v1/charges/search", call.params)
