"""A plan changes in the middle of a period: what was not used is given back, what is left is charged."""

from datetime import UTC, datetime

from app.sandbox.stripe import cycles
from app.sandbox.stripe.account import Account
from app.sandbox.stripe.errors import InvalidState
from app.sandbox.stripe.intervals import period_end
from app.sandbox.stripe.objects import Object, public
from app.sandbox.stripe.params import merged
from app.sandbox.stripe.resources.invoiceitems import make_item
from app.sandbox.stripe.resources.prices import active_price
from app.sandbox.stripe.resources.subscription_params import ItemChange, SubscriptionUpdate


def change_items(account: Account, subscription: Object, params: SubscriptionUpdate) -> Object:
    """Another plan or quantity. The rest of the period is prorated; another interval starts a new period."""
    now = params.proration_date or account.now(subscription)
    before = [dict(item) for item in cycles.items_of(subscription)]
    for place, change in enumerate(params.items):
        _change_item(account, subscription, change, f"items[{place}]")
    after = cycles.items_of(subscription)
    if not after:
        raise InvalidState("A subscription must have at least one active plan.", param="items")
    new_interval = after[0]["price"]["recurring"] != before[0]["price"]["recurring"]
    if params.proration_behavior != "none" and subscription["status"] != "trialing":
        _prorate(account, subscription, before, now, credit_only=new_interval)
    if new_interval:
        subscription["billing_cycle_anchor"] = now
        cycles.set_period(subscription, now, period_end(now, now, after[0]["price"]["recurring"]))
    cycles.save(account, subscription, "customer.subscription.updated")
    if new_interval:
        return cycles.bill_period(account, subscription, params.payment_behavior)
    if params.proration_behavior == "always_invoice":
        cycles.bill_pending(account, subscription, params.payment_behavior)
    return account.get("subscription", subscription["id"])


def _change_item(account: Account, subscription: Object, change: ItemChange, param: str) -> None:
    items = cycles.items_of(subscription)
    if change.id is None:
        price = active_price(account, change.price or "", f"{param}[price]")
        first = items[0]
        item = cycles.new_item(
            subscription["id"],
            price,
            1 if change.quantity is None else change.quantity,
            merged({}, change.metadata),
            first["current_period_start"],
            first["current_period_end"],
        )
        items.append(item)
        return
    found = [item for item in items if item["id"] == change.id]
    if not found:
        raise InvalidState(f"No such subscription item: '{change.id}'", code="resource_missing", param=f"{param}[id]")
    item = found[0]
    if change.deleted:
        items.remove(item)
        return
    if change.price:
        item["price"] = public(active_price(account, change.price, f"{param}[price]"))
    if change.quantity is not None:
        item["quantity"] = change.quantity
    if "metadata" in change.model_fields_set:
        item["metadata"] = merged(item["metadata"], change.metadata)


def _prorate(account: Account, subscription: Object, before: list[Object], moment: int, credit_only: bool) -> None:
    after = {item["id"]: item for item in cycles.items_of(subscription)}
    for old in before:
        new = after.pop(old["id"], None)
        if new and (new["price"]["id"], new["quantity"]) == (old["price"]["id"], old["quantity"]):
            continue
        account.add(unused(account, subscription, old, moment), "invoiceitem.created")
        if new and not credit_only:
            account.add(remaining(account, subscription, new, moment), "invoiceitem.created")
    if not credit_only:
        for new in after.values():
            account.add(remaining(account, subscription, new, moment), "invoiceitem.created")


def share(item: Object, moment: int) -> float:
    """Which part of an item's current period is still to come, 0 to 1."""
    start, end = item["current_period_start"], item["current_period_end"]
    return float(min(1, max(0, (end - moment) / (end - start))))


def unused(account: Account, subscription: Object, item: Object, moment: int) -> Object:
    """A credit for the rest of the period of an item as it was; not kept by the store so far."""
    return _item(account, subscription, item, moment, -round(cycles.plan_cents(item) * share(item, moment)), "Unused")


def remaining(account: Account, subscription: Object, item: Object, moment: int) -> Object:
    """A charge for the rest of the period of an item as it is now; not kept by the store so far."""
    return _item(account, subscription, item, moment, round(cycles.plan_cents(item) * share(item, moment)), "Remaining")


def _item(account: Account, subscription: Object, item: Object, moment: int, amount: int, which: str) -> Object:
    price = item["price"]
    name = price["nickname"] or price["lookup_key"] or price["id"]
    day = datetime.fromtimestamp(moment, UTC).strftime("%d %b %Y")
    return make_item(
        account,
        account.get("customer", subscription["customer"], "customer"),
        subscription["currency"],
        amount,
        f"{which} time on {name} after {day}",
        {"start": moment, "end": item["current_period_end"]},
        quantity=item["quantity"],
        price=price,
        subscription=subscription["id"],
        subscription_item=item["id"],
        proration=True,
    )
