"""The customer's cards: which there are, which one is charged, and what follows when one arrives."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, case, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from app.billing import charges
from app.billing.subscriptions import begin
from app.billing.tables import payment_methods
from app.contracts.billing import StartTeams
from app.customers import accounts
from app.customers.tables import customers
from app.ledger.enqueue import enqueue
from app.stripe.cards import Card


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
    """Whether the customer has this card; `ever`: or once had it."""
    mine = select(payment_methods.c.id).where(
        payment_methods.c.id == payment_method, payment_methods.c.customer_id == customer_id
    )
    return db.execute(mine if ever else mine.where(payment_methods.c.detached_at.is_(None))).first() is not None


def after(db: Connection, customer_id: int, payment_method: str) -> str | None:
    """The default once this card is gone: as it is, or else the newest of the others."""
    cards = [card for card in listing(db, customer_id) if card.id != payment_method]
    return next((card.id for card in cards if card.default), cards[0].id if cards else None)


def keep(db: Connection, customer_id: int, card: Card) -> None:
    """A card has arrived (architecture.md, "Adding a payment method"): it becomes the default, the trial grows once,
    a plan that was wanted at signup begins, and charges that failed are tried again on it."""
    new = upsert(payment_methods).values(
        id=card.id,
        customer_id=customer_id,
        brand=card.brand,
        last4=card.last4,
        exp_month=card.exp_month,
        exp_year=card.exp_year,
    )
    now = {"detached_at": None, "exp_month": new.excluded.exp_month, "exp_year": new.excluded.exp_year}
    db.execute(new.on_conflict_do_update(index_elements=[payment_methods.c.id], set_=now))
    # How Teams stands is Stripe's to say, and who is past due is so until what is owed has been paid.
    settled = (customers.c.plan == "teams") | (customers.c.subscription_status == "past_due")
    db.execute(
        update(customers)
        .where(customers.c.id == customer_id)
        .values(
            default_payment_method=card.id,
            bonus_at=func.coalesce(customers.c.bonus_at, func.clock_timestamp()),
            subscription_status=case((settled, customers.c.subscription_status), else_="active"),
        )
    )
    _begin_wanted_plan(db, customer_id, card)
    charges.redrive(db, customer_id, card.id)


def _begin_wanted_plan(db: Connection, customer_id: int, card: Card) -> None:
    customer = accounts.get(db, customer_id)
    if customer.plan != "trial":
        return
    if customer.wanted_plan == "payg":
        begin(db, customer_id, "payg", reason="wanted at signup", ref=f"card:{card.id}")
    elif customer.wanted_plan == "teams":
        enqueue(db, StartTeams(customer_id=customer_id, request=f"card:{card.id}"))


def remove(db: Connection, customer_id: int, payment_method: str, default: str | None) -> None:
    """The card is no longer the customer's; `default` is charged from now on, if any."""
    gone = func.coalesce(payment_methods.c.detached_at, func.clock_timestamp())
    mine = (payment_methods.c.id == payment_method) & (payment_methods.c.customer_id == customer_id)
    db.execute(update(payment_methods).where(mine).values(detached_at=gone))
    db.execute(update(customers).where(customers.c.id == customer_id).values(default_payment_method=default))
