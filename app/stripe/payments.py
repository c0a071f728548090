"""Payment intents and refunds: money that is taken and given back (stripe.md, "A charge a fix")."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.ledger.errors import Permanent
from app.stripe.calls import Call
from app.stripe.client import asking, client, metadata, send, since

Intent = dict[str, Any]
"""A payment intent as Stripe shows it."""


@dataclass(frozen=True)
class Refund:
    """A refund as Stripe shows it. `name`: what we call it, where we asked for it. `failed`: it gave nothing back."""

    id: str
    name: str | None
    cents: int
    failed: bool


@dataclass(frozen=True)
class Dispute:
    """A dispute as Stripe shows it. `moved`: each movement of our balance that it made (its id, cents: what was taken
    from us is negative), the oldest first, without Stripe's fees. An inquiry moves nothing."""

    id: str
    status: str
    reason: str | None
    amount_cents: int
    opened_at: datetime
    moved: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Payment:
    """A payment intent, and what was given back of it or disputed, the oldest first."""

    intent: Intent
    refunds: list[Refund]
    disputes: list[Dispute]


def intent_parameters(
    *, stripe_customer: str, fix_id: int, fix: str, amount_cents: int, currency: str
) -> dict[str, Any]:
    """What an intent is created with, unconfirmed. `metadata.fix` is how it is found again."""
    return {
        "amount": amount_cents,
        "currency": currency,
        "customer": stripe_customer,
        "payment_method_types": ["card"],
        "description": f"Deployed fix {fix_id}",
        "metadata": {"fix_id": str(fix_id), "fix": fix},
    }


def create_intent(call: Call) -> Intent:
    """The intent that `call` creates, or has created in an earlier attempt. Moves no money.

    Raises:
        as `app.stripe.client.asking`
    """
    return send(
        call,
        lambda parameters, options: client().v1.payment_intents.create(parameters, options).to_dict(),
        _find_intent,
    )


def _find_intent(call: Call) -> Intent | None:
    return find_intent(call.parameters["customer"], call.parameters["metadata"]["fix"], since=since(call))


def find_intent(stripe_customer: str, fix: str, *, since: int = 0) -> Intent | None:
    """The intent of that fix, by listing those of its customer that were created after that second.

    Raises:
        as `app.stripe.client.asking`
    """
    with asking():
        page = client().v1.payment_intents.list({"customer": stripe_customer, "created": {"gte": since}, "limit": 100})
        for intent in page.auto_paging_iter():
            if metadata(intent).get("fix") == fix:
                return intent.to_dict()
    return None


def get_intent(intent_id: str) -> Intent:
    """The intent as it is now.

    Raises:
        as `app.stripe.client.asking`
    """
    with asking():
        return client().v1.payment_intents.retrieve(intent_id).to_dict()


def get_payment(intent_id: str) -> Payment:
    """The intent as it is now, and what has become of its money. One request, where nothing is disputed and little
    was refunded.

    Raises:
        as `app.stripe.client.asking`
    """
    with asking():
        intent = client().v1.payment_intents.retrieve(intent_id, {"expand": ["latest_charge.refunds"]}).to_dict()
    charge = intent["latest_charge"]
    if charge is None:
        return Payment(intent, [], [])
    shown = charge["refunds"]
    refunds = _refunds_of(intent_id) if shown is None or shown["has_more"] else shown["data"]
    disputes = _disputes_of(intent_id) if charge["disputed"] else []
    return Payment(
        intent,
        [_read_refund(refund) for refund in reversed(refunds)],
        [_read_dispute(dispute) for dispute in reversed(disputes)],
    )


def _refunds_of(intent_id: str) -> list[dict[str, Any]]:
    with asking():
        page = client().v1.refunds.list({"payment_intent": intent_id, "limit": 100})
        return [refund.to_dict() for refund in page.auto_paging_iter()]


def _disputes_of(intent_id: str) -> list[dict[str, Any]]:
    with asking():
        page = client().v1.disputes.list({"payment_intent": intent_id, "limit": 100})
        return [dispute.to_dict() for dispute in page.auto_paging_iter()]


def _read_refund(found: dict[str, Any]) -> Refund:
    name = (found["metadata"] or {}).get("refund")
    return Refund(found["id"], name, found["amount"], found["status"] in ("failed", "canceled"))


def _read_dispute(found: dict[str, Any]) -> Dispute:
    moves = sorted(found["balance_transactions"] or [], key=lambda move: move["created"])
    for move in moves:
        if move["currency"] != found["currency"]:
            raise Permanent(f"dispute {found['id']} has moved {move['currency']}, and is of {found['currency']}")
    return Dispute(
        id=found["id"],
        status=found["status"],
        reason=found["reason"],
        amount_cents=found["amount"],
        opened_at=datetime.fromtimestamp(found["created"], UTC),
        moved=tuple((move["id"], move["amount"]) for move in moves),
    )


def confirm_intent(intent_id: str, call: Call) -> Intent:
    """Confirm the intent: takes the money, once at most, however often it is asked.

    Raises:
        Declined: it was refused.
        StoredFailure: see there. Else as `app.stripe.client.asking`
    """
    with asking():
        confirmed = client().v1.payment_intents.confirm(
            intent_id,
            call.parameters,  # type: ignore[arg-type]  # frozen as JSON
            {"idempotency_key": call.idempotency_key},
        )
        return confirmed.to_dict()


def check_intent(intent: Intent, *, amount_cents: int, currency: str, stripe_customer: str, fix: str) -> None:
    """Refuse an intent that is not for exactly this money (failures.md 31).

    Raises:
        Permanent: says what differs.
    """
    wanted = {"amount": amount_cents, "currency": currency, "customer": stripe_customer}
    found = {name: intent[name] for name in wanted}
    if found != wanted or (intent.get("metadata") or {}).get("fix") != fix:
        raise Permanent(f"payment intent {intent['id']} is not the charge of fix {fix}: {found}, not {wanted}")


def create_refund(call: Call) -> dict[str, Any]:
    """The refund that `call` makes, or has made in an earlier attempt.

    Raises:
        as `app.stripe.client.asking`
    """
    return send(
        call, lambda parameters, options: client().v1.refunds.create(parameters, options).to_dict(), _find_refund
    )


def _find_refund(call: Call) -> dict[str, Any] | None:
    wanted = call.parameters["metadata"]["refund"]
    refunds = _refunds_of(call.parameters["payment_intent"])
    return next((refund for refund in refunds if (refund["metadata"] or {}).get("refund") == wanted), None)


def all_intents() -> Iterator[Intent]:
    """Every payment intent in Stripe that names a fix of ours."""
    with asking():
        page = client().v1.payment_intents.list({"limit": 100})
    for intent in page.auto_paging_iter():
        if "fix" in metadata(intent):
            yield intent.to_dict()


def all_refunds() -> Iterator[dict[str, Any]]:
    """Every refund in Stripe."""
    with asking():
        page = client().v1.refunds.list({"limit": 100})
    for refund in page.auto_paging_iter():
        yield refund.to_dict()


def all_disputes() -> Iterator[tuple[str | None, Dispute]]:
    """Every dispute in Stripe, with the payment intent that it is about."""
    with asking():
        page = client().v1.disputes.list({"limit": 100})
    for dispute in page.auto_paging_iter():
        found = dispute.to_dict()
        yield found["payment_intent"], _read_dispute(found)
