"""Payment intents and refunds: money that is taken and given back (stripe.md, "A charge a fix")."""

from collections.abc import Iterator
from typing import Any

from app.ledger.errors import Permanent
from app.stripe.calls import Call
from app.stripe.client import asking, client, metadata, send, since

Intent = dict[str, Any]
"""A payment intent as Stripe shows it."""


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
    wanted = call.parameters["metadata"]["fix"]
    with asking():
        page = client().v1.payment_intents.list(
            {"customer": call.parameters["customer"], "created": {"gte": since(call)}, "limit": 100}
        )
        for intent in page.auto_paging_iter():
            if metadata(intent).get("fix") == wanted:
                return intent.to_dict()
    return None


def get_intent(intent_id: str) -> Intent:
    """The intent as it is now.

    Raises:
        as `app.stripe.client.asking`
    """
    with asking():
        return client().v1.payment_intents.retrieve(intent_id).to_dict()


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
    with asking():
        page = client().v1.refunds.list({"payment_intent": call.parameters["payment_intent"], "limit": 100})
        for refund in page.auto_paging_iter():
            if metadata(refund).get("refund") == wanted:
                return refund.to_dict()
    return None


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
