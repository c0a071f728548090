"""Stripe Checkout: the page where a customer enters a card, or subscribes to Teams with one."""

from dataclasses import dataclass
from typing import Any

from app.stripe.calls import Call
from app.stripe.client import asking, client, metadata, send, since


@dataclass(frozen=True)
class Session:
    """A page as Stripe shows it. `url` is there while it is open; `payment_method`, and of a page for Teams
    `subscription`, once it is complete."""

    id: str
    customer: str | None
    status: str
    url: str | None
    payment_method: str | None
    subscription: str | None


def _read(found: dict[str, Any]) -> Session:
    holder = found["setup_intent"] or found["subscription"]
    method = None
    if isinstance(holder, dict):
        method = holder["payment_method" if holder["object"] == "setup_intent" else "default_payment_method"]
    subscription = found["subscription"]
    return Session(
        id=found["id"],
        customer=found["customer"],
        status=found["status"],
        url=found["url"],
        payment_method=method,
        subscription=subscription["id"] if isinstance(subscription, dict) else subscription,
    )


def parameters(
    *,
    stripe_customer: str,
    customer_id: int,
    request: str,
    price: str | None,
    success_url: str,
    cancel_url: str,
) -> dict[str, Any]:
    """What a page is made with. With a `price` it subscribes to it, else it keeps a card for later payments."""
    ours = {"customer_id": str(customer_id), "request": request}
    if price is None:
        mode: dict[str, Any] = {"mode": "setup", "currency": "usd", "setup_intent_data": {"metadata": ours}}
    else:
        mode = {
            "mode": "subscription",
            "line_items": [{"price": price, "quantity": 1}],
            "subscription_data": {"metadata": ours},
        }
    return {
        **mode,
        # Else Stripe offers whatever the dashboard enables, a bank debit say, and only cards are charged for a fix.
        "payment_method_types": ["card"],
        "customer": stripe_customer,
        "success_url": success_url,
        "cancel_url": cancel_url,
        "metadata": ours,
    }


def open_session(call: Call) -> Session:
    """The page that `call` makes, or has made in an earlier attempt.

    Raises:
        as `app.stripe.client.send`
    """
    return send(
        call, lambda given, options: _read(client().v1.checkout.sessions.create(given, options).to_dict()), _find
    )


def _find(call: Call) -> Session | None:
    wanted = call.parameters["metadata"]["request"]
    with asking():
        page = client().v1.checkout.sessions.list(
            {"customer": call.parameters["customer"], "created": {"gte": since(call)}, "limit": 100}
        )
        for found in page.auto_paging_iter():
            if metadata(found).get("request") == wanted:
                return _read(found.to_dict())
    return None


def retrieve(session_id: str) -> Session:
    """The page as it is now, with what came of it.

    Raises:
        as `app.stripe.client.asking`
    """
    with asking():
        found = client().v1.checkout.sessions.retrieve(session_id, {"expand": ["setup_intent", "subscription"]})
    return _read(found.to_dict())


def close_pages_for_teams(stripe_customer: str) -> None:
    """Close every page where the customer could still subscribe: nobody pays for Teams twice."""
    with asking():
        page = client().v1.checkout.sessions.list({"customer": stripe_customer, "status": "open", "limit": 100})
        pages = [found.id for found in page.auto_paging_iter() if found.mode == "subscription"]
    for session_id in pages:
        with asking():
            client().v1.checkout.sessions.expire(session_id)
