"""A plan changes in the middle of a period: what was not used is given back, what is left is charged."""

from datetime import UTC, datetime

from app.sandbox.stripe import cycles
from app.sandbox.stripe.account import Account
from app.sandbox.stripe.objects import Object
from app.sandbox.stripe.resources.invoiceitems import make_item


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
