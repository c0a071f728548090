"""Customers in Stripe."""

from collections.abc import Iterator
from typing import Any

from app.stripe.calls import Call
from app.stripe.client import asking, client, metadata, send, since


def customer_parameters(*, customer_id: int, email: str, name: str) -> dict[str, Any]:
    """What a customer is created with in Stripe. The metadata is how it is found again."""
    return {"email": email, "name": name, "metadata": {"customer_id": str(customer_id)}}


def create_customer(call: Call) -> str:
    """The id of the Stripe customer that `call` creates, or has created in an earlier attempt.

    Raises:
        Unavailable, Transient, Permanent: see `app.ledger.errors`.
    """
    return send(call, lambda parameters, options: client().v1.customers.create(parameters, options).id, _find_customer)


def _find_customer(call: Call) -> str | None:
    """The customer that an earlier attempt created, by listing (which, unlike search, does not lag)."""
    wanted = call.parameters["metadata"]["customer_id"]
    with asking():
        page = client().v1.customers.list(
            {"email": call.parameters["email"], "created": {"gte": since(call)}, "limit": 100}
        )
        for customer in page.auto_paging_iter():
            if metadata(customer).get("customer_id") == wanted:
                return customer.id
    return None


def is_deleted(stripe_customer: str) -> bool:
    """Whether somebody has deleted the customer in Stripe.

    Raises:
        as `app.stripe.client.asking`
    """
    with asking():
        found = client().v1.customers.retrieve(stripe_customer)
    return bool(found.to_dict().get("deleted"))


def owner(stripe_customer: str) -> str | None:
    """The id of ours that the customer in Stripe carries; None for one that we have not made, or that was deleted.

    Raises:
        as `app.stripe.client.asking`
    """
    with asking():
        return metadata(client().v1.customers.retrieve(stripe_customer)).get("customer_id")


def all_customers() -> Iterator[tuple[str, str]]:
    """(Stripe's id, our id) of every customer in Stripe that carries an id of ours."""
    with asking():
        page = client().v1.customers.list({"limit": 100})
    for customer in page.auto_paging_iter():
        ours = metadata(customer).get("customer_id")
        if ours is not None:
            yield customer.id, ours
