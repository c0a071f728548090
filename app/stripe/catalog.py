"""What is sold: the product and the price of Teams, found by the price's lookup key."""

from typing import Any

from app.ledger.errors import Permanent
from app.logs import log
from app.settings import get_settings
from app.stripe.client import NotFound, asking, client

TEAMS_LOOKUP_KEY = "teams_monthly"
CURRENCY = "usd"

_PRODUCT = "tallyhook_teams"


class CatalogDiffers(Exception):
    """What Stripe has is not what the settings say; the message says what to do."""


def teams_price() -> str:
    """The id of the price of Teams, after a look at whether it is what we mean to sell (failures.md 31).

    Raises:
        Permanent: there is none, or it is another amount, currency or interval, or archived.
        as `app.stripe.client.asking`
    """
    price = _find()
    wrong = "it does not exist: run `tallyhook stripe sync-catalog`" if price is None else _difference(price)
    if price is None or wrong is not None:
        log.error("catalog.differs", lookup_key=TEAMS_LOOKUP_KEY, reason=wrong)
        raise Permanent(f"nothing was charged: the price {TEAMS_LOOKUP_KEY} cannot be used, because {wrong}")
    return str(price["id"])


def sync(*, transfer: bool = False) -> dict[str, str]:
    """Make the product and the price of Teams where they are missing. Doing it again changes nothing.

    Args:
        transfer: where the lookup key has another price, make a new one that takes the key over. Subscriptions keep
            the price that they began with.

    Returns:
        `{product, price, done}`; `done` is `unchanged`, `created` or `transferred`.

    Raises:
        CatalogDiffers: the price is there, with another amount, or archived, and is not to be replaced.
        as `app.stripe.client.asking`
    """
    price = _find()
    wrong = None if price is None else _difference(price)
    if price is not None and wrong is None:
        return {"product": price["product"]["id"], "price": price["id"], "done": "unchanged"}
    if price is not None and not transfer:
        raise CatalogDiffers(
            f"the price {price['id']} has the lookup key {TEAMS_LOOKUP_KEY}, but {wrong}. Set TEAMS_MONTH_CENTS to what"
            " it is, mend it in Stripe's dashboard, or run `tallyhook stripe sync-catalog --transfer`, which makes a"
            " new price that takes the key over."
        )
    product = _product()
    with asking():
        made = client().v1.prices.create(
            {
                "product": product,
                "currency": CURRENCY,
                "unit_amount": get_settings().teams_month_cents,
                "recurring": {"interval": "month"},
                "lookup_key": TEAMS_LOOKUP_KEY,
                "transfer_lookup_key": transfer,
                "nickname": "Teams, a month",
            }
        )
    return {"product": product, "price": made.id, "done": "created" if price is None else "transferred"}


def _find() -> dict[str, Any] | None:
    """The price with the lookup key. Stripe lists archived ones only if it is asked for them."""
    for active in (True, False):
        with asking():
            page = client().v1.prices.list(
                {"lookup_keys": [TEAMS_LOOKUP_KEY], "active": active, "expand": ["data.product"], "limit": 1}
            )
        if page.data:
            return page.data[0].to_dict()
    return None


def _difference(price: dict[str, Any]) -> str | None:
    """Why the price is not the one that we mean to sell; None if it is."""
    wanted = get_settings().teams_month_cents
    recurring = price["recurring"] or {}
    if (price["unit_amount"], price["currency"]) != (wanted, CURRENCY):
        return f"it is {price['unit_amount']} {price['currency']}, not {wanted} {CURRENCY}"
    if (recurring.get("interval"), recurring.get("interval_count")) != ("month", 1):
        return "it is not for each month"
    if not price["active"]:
        return "it is archived"
    return None if price["product"].get("active") else "its product is archived"


def _product() -> str:
    """The id of the product, made if it is missing."""
    try:
        with asking():
            product = client().v1.products.retrieve(_PRODUCT)
        if not product.active:
            raise CatalogDiffers(f"the product {_PRODUCT} is archived: unarchive it in Stripe's dashboard")
    except NotFound:
        with asking():
            product = client().v1.products.create({"id": _PRODUCT, "name": "Tallyhook Teams"})
    return product.id
