"""A subscription's life: it starts, renews each period, follows what becomes of its invoices, and ends."""

from app.sandbox.stripe import drafts, invoicing
from app.sandbox.stripe.account import Account
from app.sandbox.stripe.errors import ApiError
from app.sandbox.stripe.intervals import period_end
from app.sandbox.stripe.objects import Object, new_id, public
from app.sandbox.stripe.schedule import when_due

# How long the first payment may take before the subscription expires, and how early a trial's end is told.
INCOMPLETE_S = 23 * 3600
NOTICE_S = 3 * 24 * 3600

ENDED = ("canceled", "incomplete_expired")


def items_of(subscription: Object) -> list[Object]:
    items: list[Object] = subscription["items"]["data"]
    return items


def current_end(subscription: Object) -> int:
    """When the current period ends; all items of a subscription share it here."""
    return int(items_of(subscription)[0]["current_period_end"])


def set_period(subscription: Object, start: int, end: int) -> None:
    for item in items_of(subscription):
        item |= {"current_period_start": start, "current_period_end": end}


def new_item(
    subscription_id: str, price: Object, quantity: int, metadata: dict[str, str], start: int, finish: int
) -> Object:
    return {
        "id": new_id("si", 14),
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": start,
        "current_period_end": finish,
        "current_period_start": start,
        "discounts": [],
        "metadata": metadata,
        "price": public(price),
        "quantity": quantity,
        "subscription": subscription_id,
        "tax_rates": [],
    }


def plan_cents(item: Object) -> int:
    """What one period of an item costs."""
    return int(item["price"]["unit_amount"]) * int(item["quantity"])


def plan_lines(subscription: Object, period: Object, free: bool = False) -> list[Object]:
    """The lines for one period of everything that is subscribed to."""
    return [
        drafts.line_of_plan(subscription, item, item["quantity"], 0 if free else plan_cents(item), period)
        for item in items_of(subscription)
    ]


def draft_for(account: Account, subscription: Object, billing_reason: str) -> Object:
    """An invoice of a subscription, without lines; not kept by the store so far."""
    customer = account.get("customer", subscription["customer"], "customer")
    parent = {
        "type": "subscription_details",
        "quote_details": None,
        "subscription_details": {
            "metadata": subscription["metadata"],
            "subscription": subscription["id"],
        },
    }
    draft = drafts.new_draft(account, customer, billing_reason, subscription["currency"], parent=parent)
    due_in = subscription["days_until_due"]
    draft |= {
        "auto_advance": True,
        "collection_method": subscription["collection_method"],
        "due_date": draft["created"] + due_in * 24 * 3600 if due_in is not None else None,
    }
    return draft


def schedule(subscription: Object) -> Object:
    """Notes when a subscription wants attention next."""
    moments: list[int] = []
    if subscription["status"] == "incomplete":
        moments.append(subscription["created"] + INCOMPLETE_S)
    elif subscription["status"] not in (*ENDED, "paused"):
        moments.append(current_end(subscription))
        if subscription["cancel_at"]:
            moments.append(subscription["cancel_at"])
        if subscription["status"] == "trialing" and not subscription.get("_trial_end_told"):
            moments.append(subscription["trial_end"] - NOTICE_S)
    subscription["_due"] = min(moments) if moments else None
    return subscription


def save(account: Account, subscription: Object, *events: str) -> Object:
    return account.save(schedule(subscription), *events)


def start(account: Account, subscription: Object, behavior: str) -> Object:
    """Keeps a new subscription and bills its first period, at once. `behavior` is Stripe's
    payment_behavior; with `error_if_incomplete` raises the 402, and the caller keeps nothing."""
    trialing = subscription["status"] == "trialing"
    account.add(schedule(subscription), "customer.subscription.created")
    first = items_of(subscription)[0]
    period = {"start": first["current_period_start"], "end": first["current_period_end"]}
    draft = draft_for(account, subscription, "subscription_create")
    lines = plan_lines(subscription, period, free=trialing)
    invoice = _add_with_lines(account, draft, lines, with_pending=not trialing)
    return bill_now(account, subscription, invoice, behavior)


def bill_now(account: Account, subscription: Object, invoice: Object, behavior: str) -> Object:
    """Finalizes an invoice of a subscription and charges it. Answers with the subscription as it then is."""
    subscription["latest_invoice"] = invoice["id"]
    save(account, subscription)
    invoice = invoicing.finalize(account, invoice)
    charged = subscription["collection_method"] == "charge_automatically" and behavior != "default_incomplete"
    if invoice["status"] == "open" and charged:
        try:
            invoicing.collect(account, invoice)
        except ApiError as error:
            if behavior == "error_if_incomplete":
                error.commits = False
                raise
            if not error.commits:
                raise
    return account.get("subscription", subscription["id"])


def bill_period(account: Account, subscription: Object, behavior: str) -> Object:
    """Invoices the current period, and what else waits, at once."""
    first = items_of(subscription)[0]
    period = {"start": first["current_period_start"], "end": first["current_period_end"]}
    return _invoice(account, subscription, plan_lines(subscription, period), behavior)


def _waiting(account: Account, subscription: Object) -> list[Object]:
    return drafts.pending_items(account, subscription["customer"], subscription["currency"], subscription["id"])


def bill_pending(account: Account, subscription: Object, behavior: str) -> None:
    """Invoices what waits for the customer's next invoice at once, if anything does."""
    if _waiting(account, subscription):
        _invoice(account, subscription, [], behavior)


def _invoice(account: Account, subscription: Object, lines: list[Object], behavior: str) -> Object:
    draft = draft_for(account, subscription, "subscription_update")
    return bill_now(account, subscription, _add_with_lines(account, draft, lines), behavior)


def _add_with_lines(account: Account, draft: Object, lines: list[Object], with_pending: bool = True) -> Object:
    """Keeps a draft with these lines, and with what waited for the customer's next invoice."""
    account.add(draft)
    if with_pending:
        subscription_id = drafts.subscription_of(draft)
        pending = drafts.pending_items(account, draft["customer"], draft["currency"], subscription_id)
        lines = lines + drafts.take_items(account, draft, pending)
    return account.save(drafts.set_lines(draft, lines), "invoice.created")


def end(account: Account, subscription: Object, reason: str) -> Object:
    """A subscription is over: what was not paid stays open, and is not asked for any more by itself."""
    now = account.now(subscription)
    subscription["cancellation_details"]["reason"] = reason
    subscription |= {"status": "canceled", "canceled_at": subscription["canceled_at"] or now, "ended_at": now}
    save(account, subscription, "customer.subscription.deleted")
    parent = {"parent__subscription_details__subscription": subscription["id"]}
    for invoice in account.find("invoice", status=["draft", "open"], **parent):
        account.save(invoice | {"auto_advance": False, "next_payment_attempt": None, "_due": None})
    return subscription


def _renew(account: Account, subscription: Object) -> None:
    """The next period begins: its invoice is a draft for about an hour, for whoever wants to add to it."""
    start = current_end(subscription)
    finish = period_end(subscription["billing_cycle_anchor"], start, items_of(subscription)[0]["price"]["recurring"])
    previous = items_of(subscription)[0]["current_period_start"]
    set_period(subscription, start, finish)
    if subscription["status"] == "trialing":
        subscription["status"] = "active"
    lines = plan_lines(subscription, {"start": start, "end": finish})
    draft = draft_for(account, subscription, "subscription_cycle")
    draft |= {"period_start": previous, "period_end": start}
    _leave_as_draft(account, subscription, draft, lines)
    subscription["latest_invoice"] = draft["id"]
    save(account, subscription, "customer.subscription.updated")


def _leave_as_draft(account: Account, subscription: Object, draft: Object, lines: list[Object]) -> None:
    if subscription["pause_collection"] or subscription["status"] == "unpaid":
        draft["auto_advance"] = False
    else:
        moment = draft["created"] + account.settings.finalize_after_s
        draft |= {"automatically_finalizes_at": moment, "_due": moment}
    _add_with_lines(account, draft, lines)


def _end_at_period_end(account: Account, subscription: Object) -> None:
    """What waits to be invoiced is still charged at the end of the period, on an invoice of its own."""
    if _waiting(account, subscription):
        draft = draft_for(account, subscription, "subscription_cycle")
        end(account, subscription, "cancellation_requested")
        _leave_as_draft(account, subscription, draft, [])
    else:
        end(account, subscription, "cancellation_requested")


def _end_trial(account: Account, subscription: Object) -> None:
    customer = account.get("customer", subscription["customer"], "customer")
    card = subscription["default_payment_method"] or customer["invoice_settings"]["default_payment_method"]
    without_card = subscription["trial_settings"]["end_behavior"]["missing_payment_method"]
    if card or without_card == "create_invoice":
        _renew(account, subscription)
    elif without_card == "cancel":
        end(account, subscription, "cancellation_requested")
    else:
        subscription["status"] = "paused"
        save(account, subscription, "customer.subscription.updated", "customer.subscription.paused")


@when_due("subscription")
def attend(account: Account, subscription: Object) -> None:
    now = subscription["_due"]
    if subscription["status"] == "incomplete":
        subscription["status"] = "incomplete_expired"
        subscription["ended_at"] = now
        save(account, subscription, "customer.subscription.updated")
        invoice = account.get("invoice", subscription["latest_invoice"])
        if invoice["status"] == "open":
            invoicing.void(account, invoice)
    elif subscription["cancel_at"] and subscription["cancel_at"] <= now:
        _end_at_period_end(account, subscription)
    elif now < current_end(subscription):
        subscription["_trial_end_told"] = True
        save(account, subscription, "customer.subscription.trial_will_end")
    elif subscription["status"] == "trialing":
        _end_trial(account, subscription)
    else:
        _renew(account, subscription)


@invoicing.when_changed
def _follow_invoice(account: Account, invoice: Object, change: str) -> None:
    subscription_id = drafts.subscription_of(invoice)
    if subscription_id is None:
        return
    subscription = account.get("subscription", subscription_id)
    before = subscription["status"]
    if before in ENDED:
        return
    if change == "paid":
        _keep_card(account, subscription, invoice)
    subscription["status"] = _status_after(account, subscription, invoice, change)
    if subscription["status"] == "canceled":
        end(account, subscription, "payment_failed")
    else:
        save(account, subscription, "customer.subscription.updated")


def _status_after(account: Account, subscription: Object, invoice: Object, change: str) -> str:
    """The status of a subscription after a change of an invoice of its."""
    status = str(subscription["status"])
    first = invoice["billing_reason"] == "subscription_create"
    match change:
        case "paid" if status == "incomplete":
            return "active"
        case "void" | "uncollectible" if first and status == "incomplete":
            return "incomplete_expired"
        case "paid" | "void" | "uncollectible" if status in ("past_due", "unpaid"):
            owed = account.find(
                "invoice", 1, status="open", parent__subscription_details__subscription=subscription["id"]
            )
            return status if owed else "active"
        case "failed" if status == "active":
            return "past_due"
        case "exhausted":
            after = account.settings.after_last_retry
            return "canceled" if after == "cancel" else after
        case _:
            return status


def _keep_card(account: Account, subscription: Object, invoice: Object) -> None:
    """Where it was asked for, the card that paid becomes the subscription's own."""
    settings = subscription["payment_settings"]
    if settings["save_default_payment_method"] == "on_subscription" and invoice.get("_intent"):
        intent = account.get("payment_intent", invoice["_intent"])
        subscription["default_payment_method"] = intent["payment_method"]
