"""What a webhook would change if it were done again. What its command reads is read and compared; nothing is kept."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, select

from app.billing import charges, events, payment_methods, plans
from app.billing.comparisons import COMPARISONS
from app.contracts.billing import CompleteCheckout, OfCustomer, SyncSubscription
from app.contracts.webhooks import GithubEvent, StripeEvent, SyncCharge, SyncCustomer, SyncInvoicePayment, SyncInvoices
from app.customers import accounts
from app.db import get_engine, transaction
from app.github import deliveries, installations, marketplace
from app.github.tables import github_installations, marketplace_purchases
from app.ledger.errors import Permanent
from app.stripe import cards, checkout, history, payments, webhooks

_NOTHING = "nothing"


class Change(NamedTuple):
    """What would change: as we have it, and as the sender does."""

    subject: str
    ours: str
    theirs: str


def preview(row: Row[Any]) -> tuple[str, list[Change]]:
    """What a replay of that job would do, in words, and what differs now, which it would change. What differs and only
    a person can mend is `reconcile`'s to say.

    Raises:
        as `app.stripe.client.asking`, but for Permanent.
    """
    try:
        if row.name == StripeEvent.name:
            return _of_stripe(StripeEvent.model_validate(row.payload))
        if row.name == GithubEvent.name:
            return _of_github(GithubEvent.model_validate(row.payload), row)
    except events.Unknown as unknown:
        return f"wait: {unknown}" if events.is_ours(unknown) else "nothing: it is not ours", []
    except (events.Ignored, Permanent) as problem:
        return f"nothing: {problem}", []
    return f"do {row.type} again", []


# Stripe


def _of_stripe(job: StripeEvent) -> tuple[str, list[Change]]:
    find, seen = events.read(job.event, "replay")
    try:
        command, customer = _found(find, seen)
    except events.Unknown as unknown:
        of_invoice = events.of_invoice(unknown)
        if of_invoice is None:
            raise
        command, customer = _found(of_invoice, seen)
    about = command.model_dump(mode="json", exclude={"occasion", "customer_id"}).values()
    would = " ".join([command.name, f"of customer {command.customer_id}", *map(str, about)])
    return would, [] if customer.stripe_customer_id is None else list(_changes(command, customer))


def _found(find: events.Find, seen: events.Seen) -> tuple[OfCustomer, Row[Any]]:
    with transaction() as db:
        command = find(db, seen)
        return command, accounts.get(db, command.customer_id)


def _changes(command: OfCustomer, customer: Row[Any]) -> Iterator[Change]:
    """By the command that would follow, whatever kind of object the event is about."""
    match command:
        case SyncCharge():
            yield from _of_charge(command.charge_id, customer)
        case SyncCustomer():
            yield from _of_cards(customer)
        case SyncSubscription():
            yield from _of_object("subscriptions", "subscriptions", command.subscription_id)
            yield from _of_list("invoices", customer=customer.stripe_customer_id)
        case SyncInvoices():
            yield from _of_list("invoices", customer=customer.stripe_customer_id)
        case SyncInvoicePayment():
            yield from _of_list("invoices", customer=customer.stripe_customer_id)
            yield from _of_list("refunds", payment_intent=command.payment_intent)
            yield from _of_list("disputes", payment_intent=command.payment_intent)
        case CompleteCheckout():
            yield from _of_checkout(command.session_id, customer)


def _compared(kind: str, page: history.Page) -> Iterator[Change]:
    with transaction() as db:
        found = list(COMPARISONS[kind].differences(db, page))
    return (Change(one.subject, one.ours, one.stripe) for one in found if one.repair is not None)


def _of_object(kind: str, collection: str, object_id: str) -> Iterable[Change]:
    now = webhooks.object_now(collection, object_id)
    return [_gone(kind.removesuffix("s"), object_id)] if now is None else _compared(kind, [now])


def _of_list(kind: str, **whose: str) -> Iterator[Change]:
    for page in history.of(kind, **whose):
        yield from _compared(kind, page)


def _gone(kind: str, object_id: str) -> Change:
    return Change(f"{kind}:{object_id}", "as it was", "is not in Stripe any more")


def _of_charge(charge_id: int, customer: Row[Any]) -> Iterator[Change]:
    with transaction() as db:
        charge = charges.get(db, charge_id)
    intent = charge.payment_intent
    if intent is None:
        found = payments.find_intent(customer.stripe_customer_id, charge.fix)
        if found is None:
            return
        intent = found["id"]
    yield from _of_object("charges", "payment_intents", intent)
    yield from _of_list("refunds", payment_intent=intent)
    yield from _of_list("disputes", payment_intent=intent)


def _of_cards(customer: Row[Any]) -> Iterator[Change]:
    wallet = cards.wallet(customer.stripe_customer_id)
    if wallet is None:
        if customer.stripe_deleted_at is None:
            yield _gone("customer", customer.stripe_customer_id)
        return
    default = payment_methods.default_of(customer, wallet)
    stays = default == wallet.default or wallet.default_is_no_card
    if default != customer.default_payment_method or not stays:
        becomes = "" if stays else f", and {default or _NOTHING} becomes it"
        theirs = f"{wallet.default or _NOTHING}{becomes}"
        yield Change(f"default card of customer:{customer.id}", customer.default_payment_method or _NOTHING, theirs)
    with transaction() as db:
        listed = payment_methods.listing(db, customer.id)
    known = {card.id: (card.last4, card.exp_month, card.exp_year) for card in listed}
    for card in wallet.cards:
        before = known.pop(card.id, None)
        if before is None:
            yield Change(f"payment_method:{card.id}", _NOTHING, "attached")
        elif before != (card.last4, card.exp_month, card.exp_year):
            yield Change(f"payment_method:{card.id}", "attached", "attached, with another number or expiry")
    for gone in known:
        yield Change(f"payment_method:{gone}", "attached", "detached")


def _of_checkout(session_id: str, customer: Row[Any]) -> Iterator[Change]:
    page = checkout.retrieve(session_id)
    if page.status != "complete" or page.payment_method is None or page.customer != customer.stripe_customer_id:
        return
    with transaction() as db:
        known = payment_methods.has(db, customer.id, page.payment_method, ever=True)
    if not known and cards.is_newest(customer.default_payment_method, cards.retrieve(page.payment_method)):
        ours = customer.default_payment_method or _NOTHING
        yield Change(f"default card of customer:{customer.id}", ours, page.payment_method)
    if page.subscription is not None:
        yield from _of_object("subscriptions", "subscriptions", page.subscription)
    yield from _of_list("invoices", customer=customer.stripe_customer_id)


# GitHub: nobody is asked, so it is done, looked at, and never committed


def _of_github(job: GithubEvent, row: Row[Any]) -> tuple[str, list[Change]]:
    with get_engine().connect() as db:  # what is done on it is rolled back where the block ends
        if job.event == "marketplace_purchase":
            purchase = deliveries.read(deliveries.MarketplacePurchase, job.body)
            return _of_purchase(db, purchase, job.delivery, row)
        if job.event == "installation":
            installation = deliveries.read(deliveries.Installation, job.body)
            return "keep the installation's state", list(_of_installation(db, installation))
    return f"apply {job.event} again", []


def _of_purchase(
    db: Connection, said: deliveries.MarketplacePurchase, delivery: str, row: Row[Any]
) -> tuple[str, list[Change]]:
    if said.action not in marketplace.ACTIONS:
        return "nothing: unknown action", []
    login = said.marketplace_purchase.account.login
    kept = select(marketplace_purchases.c.delivery).where(marketplace_purchases.c.delivery == delivery)
    changes = []
    if db.execute(kept).first() is None:
        date = said.effective_date or row.created_at
        changes.append(Change(f"delivery:{delivery}", "not kept", f"{said.action}, from {date:%Y-%m-%d} on"))
    buyer = marketplace.buyer(db, said)
    marketplace.keep(db, said, delivery=delivery, received_at=row.created_at)
    if buyer.customer_id is None:
        would = "nothing: there is no address" if buyer.signup_id is None else "wait: the customer is being made"
        return f"{would} of the account {login}", changes
    before = _plan(db, buyer.customer_id)
    marketplace.apply(db, buyer.customer_id)
    after = _plan(db, buyer.customer_id)
    if after != before:
        changes.append(Change(f"plan of customer:{buyer.customer_id}", before, after))
    return f"apply what the account {login} has bought to customer {buyer.customer_id}", changes


def _plan(db: Connection, customer_id: int) -> str:
    billed = ", paid on the Marketplace" if plans.is_on_marketplace(db, customer_id) else ""
    return f"{accounts.get(db, customer_id).plan}{billed}"


def _of_installation(db: Connection, said: deliveries.Installation) -> Iterator[Change]:
    state = select(github_installations.c.state).where(github_installations.c.id == said.installation.id)
    before = db.execute(state).scalar_one_or_none()
    installations.keep(db, said)
    after = db.execute(state).scalar_one()
    if after != before:
        yield Change(f"installation:{said.installation.id}", before or _NOTHING, after)
