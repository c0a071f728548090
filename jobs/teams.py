"""What Stripe says of a customer's Teams before it begins: by the API or by a page of Checkout, nobody pays twice."""

from typing import Any

from sqlalchemy import Row

from app.billing import subscriptions
from app.ledger.errors import Busy
from app.ledger.run import Run
from app.stripe import checkout, invoices
from app.stripe import subscriptions as gateway
from app.stripe.client import Refused
from app.stripe.subscriptions import Subscription


def hear_of_end(run: Run[Any], customer: Row[Any], begun: Subscription | None = None) -> None:
    """A subscription that we hold as open may have ended in Stripe: that is kept before another one begins (has
    begun, where it is `begun`), or the one that was paid for would be given to nobody."""
    with run.transaction() as db:
        known = subscriptions.open_subscription(db, customer.id)
    if known is None or (begun is not None and (begun.id == known.id or begun.ended_at is not None)):
        return
    seen = gateway.retrieve(known.id)
    if seen.ended_at is not None:
        its_invoices = invoices.of_customer(customer.stripe_customer_id)
        with run.transaction() as db:
            subscriptions.keep(db, customer.id, seen, its_invoices)


def find_open(customer: Row[Any]) -> Subscription | None:
    """The customer's subscription in Stripe, if any, when no page is open any more that could bring another one: a
    page that was completed just before it was to be closed has brought one that is found.

    Raises:
        Busy: a page was completed in this moment.
        as `app.stripe.subscriptions.find_open`
    """
    try:
        checkout.close_pages_for_teams(customer.stripe_customer_id)
    except Refused as error:
        raise Busy(f"a page of Stripe Checkout has just been completed: it is looked at again ({error})") from None
    return gateway.find_open(customer.stripe_customer_id, customer.id)
