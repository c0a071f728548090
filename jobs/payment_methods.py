"""Cards come and go, by the API or by a page of Stripe Checkout."""

from contextlib import suppress
from typing import Any

from sqlalchemy import Row

from app.billing import payment_methods, plans, subscriptions
from app.contracts.billing import AttachPaymentMethod, CompleteCheckout, DetachPaymentMethod, OpenCheckout
from app.contracts.webhooks import SyncCustomer
from app.customers import accounts
from app.ledger.enqueue import enqueue
from app.ledger.errors import AlreadyDone, Busy, JobError, Permanent
from app.ledger.run import Run, handles
from app.mail.links import account_url, return_url
from app.stripe import calls, cards, catalog, checkout, customers, invoices
from app.stripe import subscriptions as gateway
from app.stripe.client import Declined, NotFound, Refused
from jobs import teams

_COMPLETES_WITHIN_S = 300.0
"""How long a page may be on its way to being complete after its customer has come back from it."""


def ready_customer(run: Run[Any], customer_id: int, *, deleted: type[JobError] = Permanent) -> Row[Any]:
    """The customer, with a counterpart in Stripe.

    Raises:
        Busy: there is none yet.
        deleted: it was deleted in Stripe, which is marked: nothing is charged any more (failures.md 22).
    """
    with run.transaction() as db:
        customer = accounts.get(db, customer_id)
    if customer.stripe_customer_id is None:
        raise Busy("the customer is being provisioned")
    if customer.stripe_deleted_at is None:
        if not customers.is_deleted(customer.stripe_customer_id):
            return customer
        with run.transaction() as db:
            accounts.mark_deleted_in_stripe(db, customer_id)
    raise deleted("the customer was deleted in Stripe")


def make_default(run: Run[Any], customer: Row[Any], payment_method: str | None) -> None:
    """In Stripe: of the customer, and of an open subscription, whose payments go by its own."""
    cards.set_default(customer.stripe_customer_id, payment_method)
    with run.transaction() as db:
        subscription = subscriptions.open_subscription(db, customer.id)
    if subscription is not None:
        with suppress(NotFound):  # it has ended meanwhile
            gateway.set_payment_method(subscription.id, payment_method)


def _shown(card: cards.Card) -> dict[str, Any]:
    return {"payment_method": card.id, "brand": card.brand, "last4": card.last4}


@handles(AttachPaymentMethod)
def attach_payment_method(run: Run[AttachPaymentMethod]) -> None:
    job = run.payload
    customer = ready_customer(run, job.customer_id)
    with run.transaction() as db:
        wanted = cards.attach_parameters(stripe_customer=customer.stripe_customer_id, payment_method=job.payment_method)
        call = calls.freeze(db, f"attach:{customer.id}:{job.payment_method}:{job.request}", wanted)
    try:
        card = cards.attach(call)
    except Declined as declined:
        with run.transaction() as db:
            calls.renew(db, call)  # Stripe has stored the refusal: a requeue asks the bank anew (failures.md 4)
        raise Permanent(str(declined)) from None
    with run.transaction() as db:
        newer = payment_methods.another_came_since(db, customer.id, run.claim.created_at)
        overtaken = newer and accounts.get(db, customer.id).default_payment_method is not None  # it may be gone again
    if not overtaken:
        make_default(run, customer, card.id)
    with run.finish(_shown(card)) as db:
        if overtaken:
            payment_methods.adopt(db, customer.id, card)
        else:
            payment_methods.keep(db, customer.id, card, job.request)


@handles(DetachPaymentMethod)
def detach_payment_method(run: Run[DetachPaymentMethod]) -> None:
    """Another card becomes the default first, so that no charge meets a moment without one."""
    job = run.payload
    customer = ready_customer(run, job.customer_id)
    with run.transaction() as db:
        default = payment_methods.after(db, customer.id, job.payment_method)
    if default != customer.default_payment_method:
        try:
            make_default(run, customer, default)
        except Refused as error:  # it went in Stripe, and we have not heard of that: another one is to be charged
            with run.transaction() as db:
                enqueue(db, SyncCustomer(customer_id=customer.id, occasion=f"detach:{run.claim.job_id}"))
            raise Busy(f"the other cards are looked at again ({error})", give_up_after=3600) from None
    cards.detach(job.payment_method)
    with run.finish() as db:
        payment_methods.remove(db, customer.id, job.payment_method, default)


@handles(OpenCheckout)
def open_checkout(run: Run[OpenCheckout]) -> None:
    job = run.payload
    customer = ready_customer(run, job.customer_id)
    price = _price_of_teams(run, customer) if job.purpose == "teams" else None
    page = open_page(run, customer, job.request, price)
    with run.finish({"url": page.url, "session_id": page.id}):
        pass


def open_page(run: Run[Any], customer: Row[Any], request: str, price: str | None) -> checkout.Session:
    """The one page of Stripe Checkout of that request: it sells what has that price, or takes a card."""
    issued_at = run.claim.created_at
    with run.transaction() as db:
        wanted = checkout.parameters(
            stripe_customer=customer.stripe_customer_id,
            customer_id=customer.id,
            request=request,
            price=price,
            success_url=return_url(customer.id, issued_at),
            cancel_url=account_url(customer.id, issued_at),
        )
        call = calls.freeze(db, f"checkout:{customer.id}:{request}", wanted)
    return checkout.open_session(call)


def _price_of_teams(run: Run[OpenCheckout], customer: Row[Any]) -> str:
    """The price that a page may sell."""
    with run.transaction() as db:
        plans.refuse_on_marketplace(db, customer.id)
    if teams.find_open(customer) is not None:
        raise Permanent("the customer has Teams already")
    return catalog.teams_price()


@handles(CompleteCheckout)
def complete_checkout(run: Run[CompleteCheckout]) -> None:
    """Asked for when the browser returns and when Stripe says so, in any order: the first that sees it complete
    keeps what came of it. That may be late: what the customer has done since counts."""
    customer = ready_customer(run, run.payload.customer_id, deleted=AlreadyDone)
    page = checkout.retrieve(run.payload.session_id)
    if page.customer != customer.stripe_customer_id:
        raise Permanent("the page of Stripe Checkout is another customer's")
    if page.status == "open" and run.claim.busy_s < _COMPLETES_WITHIN_S:
        raise Busy("the page of Stripe Checkout is not completed yet")
    if page.status != "complete" or page.payment_method is None:
        raise AlreadyDone(f"the page of Stripe Checkout was not completed: it is {page.status}")
    with run.transaction() as db:
        known = payment_methods.has(db, customer.id, page.payment_method, ever=True)
    card = None if known else cards.retrieve(page.payment_method)
    if card is not None and card.customer != customer.stripe_customer_id:
        card = None  # it was taken away again
    newest = card is not None and cards.is_newest(customer.default_payment_method, card)
    if card is not None and newest:
        try:
            make_default(run, customer, card.id)
        except Refused as error:
            raise Busy(f"the card has just changed: it is looked at again ({error})", give_up_after=3600) from None
    seen = None if page.subscription is None else gateway.retrieve(page.subscription)
    if seen is not None:
        teams.hear_of_end(run, customer, seen)
    bills = invoices.of_customer(customer.stripe_customer_id)
    with run.finish(_shown(card) if card else None) as db:
        if seen is not None:
            subscriptions.keep(db, customer.id, seen, bills)
        if card is not None and newest:
            payment_methods.keep(db, customer.id, card, run.payload.session_id)
        elif card is not None:
            payment_methods.adopt(db, customer.id, card)
