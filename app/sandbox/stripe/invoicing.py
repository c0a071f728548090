"""An invoice's life: a draft is finalized, then paid, voided or given up.

What follows for a subscription is registered by it: an invoice knows nothing of what it bills.
"""

from collections.abc import Callable

from app.sandbox.stripe import payments
from app.sandbox.stripe.account import Account
from app.sandbox.stripe.drafts import set_lines, subscription_of
from app.sandbox.stripe.errors import ApiError, InvalidState
from app.sandbox.stripe.objects import Object, new_id
from app.sandbox.stripe.schedule import when_due

Follow = Callable[[Account, Object, str], None]

_when_changed: list[Follow] = []

# What a manual invoice waits between being finalized and being charged, as Stripe's does.
_CHARGED_AFTER_S = 3600


def when_changed(follow: Follow) -> Follow:
    """`@when_changed` on what is to follow an invoice that was `paid`, `failed` (an attempt at it was
    declined), `exhausted` (the last one was), `void` or `uncollectible`."""
    _when_changed.append(follow)
    return follow


def finalize(account: Account, invoice: Object) -> Object:
    """Closes a draft: it is numbered, and waits for its payment; one of nothing is paid. Raises
    `InvalidState` for any but a draft."""
    if invoice["status"] != "draft":
        raise InvalidState(
            "This invoice is already finalized, you can't re-finalize a non-draft invoice.",
            code="invoice_not_editable",
        )
    now = account.now(invoice)
    customer = account.get("customer", invoice["customer"], "customer")
    invoice |= {
        "automatically_finalizes_at": None,
        "effective_at": now,
        "hosted_invoice_url": f"{account.base_url}/invoice/{invoice['id']}",
        "number": f"{customer['invoice_prefix']}-{customer['next_invoice_sequence']:04}",
        "starting_balance": customer["balance"],
        "status": "open",
        "_due": None,
    }
    invoice["status_transitions"]["finalized_at"] = now
    set_lines(invoice, invoice["lines"]["data"])
    left = customer["balance"] + invoice["total"] - invoice["amount_due"]
    invoice["ending_balance"] = left
    customer |= {
        "balance": left,
        "currency": customer["currency"] or invoice["currency"],
        "next_invoice_sequence": customer["next_invoice_sequence"] + 1,
    }
    account.save(customer, *(["customer.updated"] if invoice["starting_balance"] != left else []))
    if invoice["amount_due"]:
        _ask_for_payment(account, invoice, customer)
    if invoice["auto_advance"] and invoice["collection_method"] == "charge_automatically":
        _retry_at(invoice, now + _CHARGED_AFTER_S)
    account.save(invoice, "invoice.finalized")
    return invoice if invoice["amount_due"] else settle(account, invoice)


def _ask_for_payment(account: Account, invoice: Object, customer: Object) -> None:
    intent = payments.new_intent(
        account,
        customer,
        invoice["amount_due"],
        invoice["currency"],
        description=f"Invoice {invoice['number']}",
        _invoice=invoice["id"],
    )
    account.add(intent, "payment_intent.created")
    invoice["_intent"] = intent["id"]
    payment: Object = {
        "id": new_id("inpay"),
        "object": "invoice_payment",
        "amount_paid": None,
        "amount_requested": invoice["amount_due"],
        "created": account.now(invoice),
        "currency": invoice["currency"],
        "invoice": invoice["id"],
        "is_default": True,
        "livemode": account.livemode,
        "payment": {"type": "payment_intent", "payment_intent": intent["id"]},
        "status": "open",
        "status_transitions": {"canceled_at": None, "paid_at": None},
    }
    account.add(payment)


def method_for(account: Account, invoice: Object) -> Object | None:
    """The card that an invoice is charged to: its own, its subscription's, its customer's, or none."""
    subscription_id = subscription_of(invoice)
    subscription = account.get("subscription", subscription_id) if subscription_id else None
    customer = account.get("customer", invoice["customer"], "customer")
    chosen = (
        invoice["default_payment_method"]
        or (subscription and subscription["default_payment_method"])
        or customer["invoice_settings"]["default_payment_method"]
    )
    found = account.store.get(chosen) if chosen else None
    return found[0] if found and found[0]["customer"] == customer["id"] else None


def collect(account: Account, invoice: Object, method: Object | None = None) -> Object:
    """Charges an open invoice. Answers with it, paid.

    Raises the 402 of a decline, or of a card whose holder has to authenticate first, and `InvalidState`
    where there is no card; each counts as an attempt, and is followed by the next one where there is one.
    """
    card = method or method_for(account, invoice)
    try:
        if card is None:
            raise InvalidState("There is no default payment method on this customer or invoice to charge it to.")
        intent = account.get("payment_intent", invoice["_intent"])
        intent = payments.attempt(account, intent, card, off_session=False)
        if intent["status"] == "requires_action":
            raise ApiError(
                402,
                "This payment requires additional user action before it can be completed successfully.",
                kind="card_error",
                code="invoice_payment_intent_requires_action",
                commits=True,
            )
    except ApiError as error:
        _note_failure(account, invoice, error.code == "invoice_payment_intent_requires_action")
        error.commits = True
        raise
    return account.get("invoice", invoice["id"])


def collect_quietly(account: Account, invoice: Object) -> None:
    """Charges an open invoice as the clock does it: a decline is told by events alone."""
    try:
        collect(account, invoice)
    except ApiError as error:
        if not error.commits:
            raise


def _note_failure(account: Account, invoice: Object, wants_action: bool) -> None:
    now = account.now(invoice)
    waits = account.settings.invoice_retries_s
    tries = invoice["attempt_count"]
    recurring = invoice["auto_advance"] and invoice["billing_reason"] != "subscription_create"
    again = recurring and tries < len(waits)
    _retry_at(invoice, now + waits[tries] if again else None)
    invoice |= {"attempt_count": tries + 1, "attempted": True}
    events = ["invoice.payment_failed", *(["invoice.payment_action_required"] if wants_action else [])]
    account.save(invoice, *events, "invoice.updated")
    _follow(account, invoice, "failed")
    if recurring and not again:
        _follow(account, invoice, "exhausted")


def settle(account: Account, invoice: Object, out_of_band: bool = False) -> Object:
    """An invoice is paid, by its intent or out of band."""
    now = account.now(invoice)
    due = invoice["amount_due"]
    for payment in account.find("invoice_payment", invoice=invoice["id"]):
        payment["status"] = "canceled" if out_of_band else "paid"
        payment["status_transitions"]["canceled_at" if out_of_band else "paid_at"] = now
        payment["amount_paid"] = None if out_of_band else due
        account.save(payment, *([] if out_of_band else ["invoice_payment.paid"]))
    if out_of_band:
        _cancel_intent(account, invoice)
    invoice |= {
        "amount_paid": due,
        "amount_paid_off_stripe": due if out_of_band else 0,
        "amount_remaining": 0,
        "attempted": True,
        "attempt_count": invoice["attempt_count"] + (1 if due and not out_of_band else 0),
        "status": "paid",
    }
    _retry_at(invoice, None)
    invoice["status_transitions"]["paid_at"] = now
    account.save(invoice, "invoice.paid", "invoice.payment_succeeded")
    _follow(account, invoice, "paid")
    return invoice


def void(account: Account, invoice: Object) -> Object:
    """An invoice that was a mistake. Raises `InvalidState` for one that was paid, or is a draft still."""
    return _give_up(account, invoice, ("open", "uncollectible"), "void", "voided_at", "invoice.voided")


def mark_uncollectible(account: Account, invoice: Object) -> Object:
    """An invoice that nobody will pay any more. Raises `InvalidState` for any but an open one."""
    return _give_up(
        account,
        invoice,
        ("open",),
        "uncollectible",
        "marked_uncollectible_at",
        "invoice.marked_uncollectible",
    )


def _give_up(
    account: Account, invoice: Object, allowed: tuple[str, ...], status: str, moment: str, event: str
) -> Object:
    if invoice["status"] not in allowed:
        raise InvalidState(
            f"You can only pass in {' or '.join(allowed)} invoices. This invoice is {invoice['status']}.",
            param="invoice",
        )
    if status == "void":
        _cancel_intent(account, invoice)
    invoice |= {"status": status, "auto_advance": False}
    _retry_at(invoice, None)
    invoice["status_transitions"][moment] = account.now(invoice)
    account.save(invoice, event)
    _follow(account, invoice, status)
    return invoice


def _cancel_intent(account: Account, invoice: Object) -> None:
    if invoice.get("_intent"):
        intent = account.get("payment_intent", invoice["_intent"])
        if intent["status"] in payments.CANCELABLE:
            payments.cancel(account, intent, "void_invoice")


def _retry_at(invoice: Object, moment: int | None) -> None:
    invoice |= {"next_payment_attempt": moment, "_due": moment}


def _follow(account: Account, invoice: Object, change: str) -> None:
    for follow in _when_changed:
        follow(account, invoice, change)


@payments.when_paid
def _settle_with_intent(account: Account, intent: Object) -> None:
    if invoice_id := intent.get("_invoice"):
        settle(account, account.get("invoice", invoice_id))


@when_due("invoice")
def attend(account: Account, invoice: Object) -> None:
    """A draft's hour is over, or the next attempt at an open invoice is due."""
    if invoice["status"] == "draft":
        invoice = finalize(account, invoice)
    if invoice["status"] == "open" and invoice["collection_method"] == "charge_automatically":
        _retry_at(invoice, None)
        collect_quietly(account, invoice)
    else:
        invoice["_due"] = None
        account.save(invoice)
