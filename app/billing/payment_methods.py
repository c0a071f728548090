"""The customer's cards: which there are, which one is charged, and what follows when one arrives."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert

from app.billing import charges, invoices, standing
from app.billing.subscriptions import begin
from app.billing.tables import payment_methods
from app.contracts.billing import AttachPaymentMethod, PayInvoices, SendNotice, StartTeams
from app.customers import accounts
from app.customers.tables import customers
from app.ledger.enqueue import enqueue, insert, prepare
from app.ledger.states import State
from app.ledger.tables import jobs
from app.stripe.cards import Card, Wallet

_NEWS = timedelta(days=1)
"""How old a card may be, when it is heard of by chance, to begin the plan that was wanted at signup."""
_NOTICE = timedelta(days=31)
"""How long before a card expires its holder is told."""


def listing(db: Connection, customer_id: int) -> Sequence[Row[Any]]:
    """The customer's cards, the newest first; `default` is the one that is charged."""
    default = payment_methods.c.id == func.coalesce(customers.c.default_payment_method, "")
    return db.execute(
        select(payment_methods, default.label("default"))
        .join(customers, customers.c.id == payment_methods.c.customer_id)
        .where(payment_methods.c.customer_id == customer_id, payment_methods.c.detached_at.is_(None))
        .order_by(payment_methods.c.attached_at.desc(), payment_methods.c.id)
    ).all()


def has(db: Connection, customer_id: int, payment_method: str, *, ever: bool = False) -> bool:
    """Whether the customer has this card; `ever`: or once had it, but for one that nothing has followed from yet."""
    here = payment_methods.c.detached_at.is_(None)
    mine = select(payment_methods.c.id).where(
        payment_methods.c.id == payment_method,
        payment_methods.c.customer_id == customer_id,
        payment_methods.c.adopted | ~here if ever else here,
    )
    return db.execute(mine).first() is not None


def after(db: Connection, customer_id: int, payment_method: str) -> str | None:
    """The default once this card is gone: as it is, or else the newest of the others."""
    cards = [card for card in listing(db, customer_id) if card.id != payment_method]
    return next((card.id for card in cards if card.default), cards[0].id if cards else None)


def _list(db: Connection, customer_id: int, card: Card, *, adopted: bool) -> None:
    new = upsert(payment_methods).values(
        id=card.id,
        customer_id=customer_id,
        brand=card.brand,
        last4=card.last4,
        exp_month=card.exp_month,
        exp_year=card.exp_year,
        adopted=adopted,
    )
    now = {
        "detached_at": None,
        "brand": new.excluded.brand,  # a card that the bank has renewed may have another number
        "last4": new.excluded.last4,
        "exp_month": new.excluded.exp_month,
        "exp_year": new.excluded.exp_year,
        "adopted": payment_methods.c.adopted | new.excluded.adopted,
    }
    db.execute(new.on_conflict_do_update(index_elements=[payment_methods.c.id], set_=now))


def another_came_since(db: Connection, customer_id: int, at: datetime) -> bool:
    """Whether the customer has added a card by the API that was asked for later: that is the newer choice."""
    newer = select(jobs.c.id).where(
        jobs.c.customer_id == customer_id,
        jobs.c.name == AttachPaymentMethod.name,
        jobs.c.state == State.SUCCEEDED,
        jobs.c.created_at > at,
    )
    return db.execute(newer).first() is not None


def adopt(db: Connection, customer_id: int, card: Card) -> None:
    """A card has arrived after a newer one has: all that follows from a card's arrival has followed from that."""
    _list(db, customer_id, card, adopted=True)


def keep(db: Connection, customer_id: int, card: Card, occasion: str, *, begins_plan: bool = True) -> None:
    """A card has arrived (architecture.md, "Adding a payment method"): it becomes the default, the trial grows once,
    a plan that was wanted at signup begins, and charges and invoices that failed are tried again on it.

    Args:
        occasion: what it came by, such as a request's id: for each, what failed is tried once.
        begins_plan: False for one that is heard of late: what was wanted at signup may have been had, and left, since.
    """
    _list(db, customer_id, card, adopted=True)
    db.execute(
        update(customers)
        .where(customers.c.id == customer_id)
        .values(
            default_payment_method=card.id,
            bonus_at=func.coalesce(customers.c.bonus_at, func.clock_timestamp()),
        )
    )
    standing.settle(db, customer_id)
    if begins_plan:
        _begin_wanted_plan(db, customer_id, card, occasion)
    charges.redrive(db, customer_id, card.id, occasion)
    if invoices.any_open(db, customer_id):
        enqueue(db, PayInvoices(customer_id=customer_id, occasion=f"{card.id}:{occasion}"))


def _begin_wanted_plan(db: Connection, customer_id: int, card: Card, occasion: str) -> None:
    customer = accounts.get(db, customer_id)
    if customer.plan != "trial":
        return
    if customer.wanted_plan == "payg":
        begin(db, customer_id, "payg", reason="wanted at signup", ref=f"card:{card.id}")
    elif customer.wanted_plan == "teams":
        request = f"card:{card.id}:{occasion}"
        enqueue(db, StartTeams(customer_id=customer_id, request=request, wanted_at_signup=True))


def remove(db: Connection, customer_id: int, payment_method: str, default: str | None) -> None:
    """The card is no longer the customer's; `default` is charged from now on, if any."""
    gone = func.coalesce(payment_methods.c.detached_at, func.clock_timestamp())
    mine = (payment_methods.c.id == payment_method) & (payment_methods.c.customer_id == customer_id)
    db.execute(update(payment_methods).where(mine).values(detached_at=gone))
    db.execute(update(customers).where(customers.c.id == customer_id).values(default_payment_method=default))
    standing.settle(db, customer_id)


def default_of(customer: Row[Any], wallet: Wallet) -> str | None:
    """Which of the customer's cards in Stripe is to be charged: Stripe's default; else ours, if it is there still; else
    the newest."""
    cards = [card.id for card in wallet.cards]
    wanted = (wallet.default, customer.default_payment_method, *cards)
    return next((card for card in wanted if card in cards), None)


def follow(db: Connection, customer: Row[Any], wallet: Wallet, occasion: str) -> None:
    """Write what the customer's cards in Stripe are now. One that has become the default is as one that was added
    (`occasion`: see `keep`); others are listed, and change nothing else."""
    for card in reversed(wallet.cards):
        _list(db, customer.id, card, adopted=False)
    gone = update(payment_methods).where(
        payment_methods.c.customer_id == customer.id,
        payment_methods.c.detached_at.is_(None),
        payment_methods.c.id.not_in([card.id for card in wallet.cards]),
    )
    db.execute(gone.values(detached_at=func.clock_timestamp()))
    default, elsewhere = default_of(customer, wallet), wallet.default if wallet.default_is_no_card else None
    db.execute(update(customers).where(customers.c.id == customer.id).values(default_elsewhere=elsewhere))
    if default is None:
        db.execute(update(customers).where(customers.c.id == customer.id).values(default_payment_method=None))
        if customer.default_payment_method is not None:
            standing.settle(db, customer.id)
    elif default != customer.default_payment_method:
        card = next(card for card in wallet.cards if card.id == default)
        keep(db, customer.id, card, occasion, begins_plan=card.created_at > datetime.now(UTC) - _NEWS)
    warn_of_expiry(db, customer.id)


def warn_of_expiry(db: Connection, customer_id: int | None = None) -> None:
    """Tell customers (this one; all, if None) whose default card is good for a month more at most, once for each card
    and expiry."""
    expires = tuple_(payment_methods.c.exp_year, payment_methods.c.exp_month)
    cards = (
        select(payment_methods)
        .join(customers, customers.c.default_payment_method == payment_methods.c.id)
        .where(customers.c.stripe_deleted_at.is_(None), expires.in_(_last_months(datetime.now(UTC))))
    )
    if customer_id is not None:
        cards = cards.where(customers.c.id == customer_id)
    insert(db, [prepare(_expiry_notice(card)) for card in db.execute(cards)])


def _last_months(now: datetime) -> list[tuple[int, int]]:
    """The (year, month) whose end is a month away at most. A card is good to the end of its month."""
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    found = []
    while (after := month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)) <= now + _NOTICE:
        found.append((month.year, month.month))
        month = after
    return found


def _expiry_notice(card: Row[Any]) -> SendNotice:
    values = {name: getattr(card, name) for name in ("brand", "last4", "exp_month", "exp_year")}
    ref = f"{card.id}:{card.exp_year}-{card.exp_month}"
    return SendNotice(customer_id=card.customer_id, kind="card_expiring", ref=ref, values=values)
