"""The overage of a Teams period: pending invoice items whose amount is set, never added to (stripe.md, "Teams")."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.stripe.calls import Call
from app.stripe.client import asking, client, metadata, send


@dataclass(frozen=True)
class Item:
    """An invoice item: for so many fixes, so many cents. `open`: no finalized invoice has it, it can still be set."""

    id: str
    fixes: int
    amount_cents: int
    open: bool


def item_parameters(
    *, stripe_customer: str, period: str, number: int, fixes: int, amount_cents: int, currency: str
) -> dict[str, Any]:
    """What the period's item is created with: its first one, or the `number`th, where an invoice has taken those
    before. The metadata is how it is found again."""
    return {
        "customer": stripe_customer,
        "amount": amount_cents,
        "currency": currency,
        "description": _describe(fixes, period),
        "metadata": {"overage_of": period, "number": str(number), "fixes": str(fixes)},
    }


def change_parameters(*, period: str, fixes: int, amount_cents: int) -> dict[str, Any]:
    """What an open item is set to."""
    return {"amount": amount_cents, "description": _describe(fixes, period), "metadata": {"fixes": str(fixes)}}


def _describe(fixes: int, period: str) -> str:
    return f"{fixes} deployed fix{'' if fixes == 1 else 'es'} over the included ones, period from {period[:10]}"


def create_item(call: Call) -> Item:
    """The item that `call` creates, or has created in an earlier attempt.

    Raises:
        as `app.stripe.client.asking`
    """
    return send(
        call,
        lambda parameters, options: _read(client().v1.invoice_items.create(parameters, options).to_dict()),
        _find_item,
    )


def _find_item(call: Call) -> Item | None:
    wanted = call.parameters["metadata"]
    with asking():
        # By customer alone: of an item the time is called `date`, and not every server of this API filters by it.
        page = client().v1.invoice_items.list({"customer": call.parameters["customer"], "limit": 100})
        for item in page.auto_paging_iter():
            if all(metadata(item).get(name) == wanted[name] for name in ("overage_of", "number")):
                return get_item(item.id)
    return None


def get_item(item_id: str) -> Item:
    """The item as it is now.

    Raises:
        as `app.stripe.client.asking`
    """
    with asking():
        return _read(client().v1.invoice_items.retrieve(item_id, {"expand": ["invoice"]}).to_dict())


def set_item(call: Call, item_id: str) -> Item:
    """Set the item to the whole of it, so that a repeated call changes nothing.

    Raises:
        as `app.stripe.client.asking`
    """
    return send(
        call,
        lambda parameters, options: _read(client().v1.invoice_items.update(item_id, parameters, options).to_dict()),
        lambda _: None,
    )


def all_items() -> Iterator[dict[str, Any]]:
    """Every invoice item in Stripe that is an overage of ours."""
    with asking():
        page = client().v1.invoice_items.list({"limit": 100})
    for item in page.auto_paging_iter():
        if "overage_of" in metadata(item):
            yield item.to_dict()


def _read(item: dict[str, Any]) -> Item:
    invoice = item["invoice"]
    pending = invoice is None or (isinstance(invoice, dict) and invoice["status"] == "draft")
    return Item(item["id"], int(item["metadata"]["fixes"]), item["amount"], pending)
