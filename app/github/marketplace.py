"""Purchases on the GitHub Marketplace: whose they are, and what plan follows from them (failures.md 36 and 37).

A paid plan that was bought there is billed there: while it lasts nothing is charged for it through Stripe.
"""

from dataclasses import asdict
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.dialects.postgresql import insert as upsert

from app.billing import plans, standing, subscriptions
from app.contracts.marketplace import ApplyMarketplacePlan
from app.customers import accounts, signups
from app.customers.signups import NewSignup
from app.github.deliveries import MarketplacePurchase, Plan, made_at
from app.github.history import Standing, Told, standing_at
from app.github.tables import github_installations, marketplace_accounts, marketplace_purchases
from app.ledger.enqueue import enqueue
from app.ledger.errors import Permanent
from app.settings import get_settings

ACTIONS = ("purchased", "changed", "cancelled", "pending_change", "pending_change_cancelled")

_RANK = ("trial", "payg", "teams")
"""Of several purchases for one customer the greatest counts."""


class Buyer(NamedTuple):
    """Whose a purchase is. Without a customer yet: the signup that makes them, if there was an address for one."""

    customer_id: int | None
    signup_id: UUID | None


def buyer(db: Connection, said: MarketplacePurchase) -> Buyer:
    """The customer whose account on GitHub has bought: by the account if it is known, else by the e-mail address, else
    a new one, who is provisioned like any other.

    Raises:
        Permanent: the signup was rejected.
    """
    account = said.marketplace_purchase.account
    new = upsert(marketplace_accounts).values(github_id=account.id, login=account.login, type=account.type)
    # An update also where nothing is new: it locks the row, so that two deliveries make one customer.
    known = db.execute(
        new.on_conflict_do_update(
            index_elements=[marketplace_accounts.c.github_id], set_={"login": new.excluded.login}
        ).returning(marketplace_accounts)
    ).one()
    if known.customer_id is not None:
        return Buyer(known.customer_id, known.signup_id)
    if known.signup_id is None:
        found = _enrol(db, said)
    else:
        signup = signups.get(db, known.signup_id)
        if signup.status == "rejected":
            raise Permanent("the signup was rejected: `tallyhook signups approve` takes that back, then requeue this")
        found = Buyer(signup.customer_id, signup.id)
    mine = marketplace_accounts.c.github_id == account.id
    db.execute(update(marketplace_accounts).where(mine).values(**found._asdict()))
    return found


def _enrol(db: Connection, said: MarketplacePurchase) -> Buyer:
    """Find the customer by the address, or have one made."""
    if said.email is None:
        return Buyer(None, None)
    customer_id = accounts.find(db, said.email)
    if customer_id is not None:
        return Buyer(customer_id, None)
    # The plan does not stand in the signup: a plan that is wanted begins with a card, and would be billed by us.
    wanted = NewSignup(email=said.email, name=said.marketplace_purchase.account.login, source="gh_marketplace")
    [accepted] = signups.accept(db, [signups.ask(wanted, None)])
    assert not isinstance(accepted, Exception)  # only a key could have been used before
    return Buyer(None, accepted.id)


def keep(db: Connection, said: MarketplacePurchase, *, delivery: str, received_at: datetime) -> None:
    """Keep what the delivery says, once. Done again, its plans are those of MARKETPLACE_PLANS as it is then: what was
    kept under a wrong one is mended by a replay.

    Raises:
        Permanent: its plan is none of MARKETPLACE_PLANS.
    """
    purchase, before = said.marketplace_purchase, said.previous_marketplace_purchase
    # GitHub sends a pending cancellation as a change to no units.
    none = said.action == "cancelled" or (said.action == "pending_change" and purchase.unit_count == 0)
    effective_at = said.effective_date or received_at
    told = Told(
        delivery=delivery,
        action=said.action,
        effective_at=effective_at,
        plan="trial" if none else _plan(purchase.plan),
        plan_before=_ours(before.plan) if before is not None and before.plan is not None else None,
        made_at=made_at(delivery),
        received_at=received_at,
        months_from=purchase.next_billing_date or effective_at,
    )
    new = upsert(marketplace_purchases).values(github_id=purchase.account.id, **asdict(told))
    ours = {name: new.excluded[name] for name in ("plan", "plan_before")}
    db.execute(new.on_conflict_do_update(index_elements=[marketplace_purchases.c.delivery], set_=ours))


def _ours(bought: Plan) -> str | None:
    mapping = get_settings().marketplace_plans
    return mapping.get(str(bought.id)) or mapping.get(bought.name.lower())


def _plan(bought: Plan) -> str:
    ours = _ours(bought)
    if ours is None:
        raise Permanent(
            f"MARKETPLACE_PLANS does not say what GitHub's plan {bought.id} ({bought.name!r}) is: add"
            f" {bought.id}=trial, payg or teams, restart the workers and requeue this job"
        )
    return ours


def accounts_of(db: Connection, customer_id: int) -> list[dict[str, Any]]:
    """The customer's accounts on GitHub: what each pays for on the Marketplace, and whether the App is installed."""
    now = db.execute(select(func.clock_timestamp())).scalar_one()
    told = _told(db, customer_id)
    installed = func.array_agg(aggregate_order_by(github_installations.c.state, github_installations.c.id))
    states = select(installed).where(github_installations.c.github_id == marketplace_accounts.c.github_id)
    rows = db.execute(
        select(marketplace_accounts.c.github_id, marketplace_accounts.c.login, states.scalar_subquery().label("states"))
        .where(marketplace_accounts.c.customer_id == customer_id)
        .order_by(marketplace_accounts.c.github_id)
    )
    found = []
    for row in rows:
        standing = standing_at(told.get(row.github_id, []), now)
        plan = "trial" if standing is None else standing.plan
        found.append({"login": row.login, "plan": plan, "installations": row.states or []})
    return found


def apply(db: Connection, customer_id: int) -> str:
    """Give the customer the plan that they have bought, as of now, or take it back where it is over; and look again
    when something else takes effect. Returns what the Marketplace says: `trial` is "no paid plan"."""
    now = db.execute(select(func.clock_timestamp())).scalar_one()
    told = _told(db, customer_id)
    standing = [found for one in told.values() if (found := standing_at(one, now)) is not None]
    bought = max(standing, key=lambda one: (_RANK.index(one.plan), one.since), default=None)
    if bought is not None:
        _follow(db, customer_id, bought, now)
    for at in sorted({one.effective_at for each in told.values() for one in each if one.effective_at > now}):
        enqueue(db, ApplyMarketplacePlan(customer_id=customer_id, occasion=f"date:{at.isoformat()}"), run_at=at)
    return bought.plan if bought is not None else "trial"


def _told(db: Connection, customer_id: int) -> dict[int, list[Told]]:
    """What GitHub has said, by account."""
    purchases, account = marketplace_purchases, marketplace_accounts
    columns = [purchases.c[name] for name in Told.__dataclass_fields__]
    rows = db.execute(
        select(purchases.c.github_id, *columns)
        .join(account, account.c.github_id == purchases.c.github_id)
        .where(account.c.customer_id == customer_id)
        .order_by(purchases.c.github_id)
    )
    return {github_id: [Told(*row[1:]) for row in each] for github_id, each in groupby(rows, lambda row: int(row[0]))}


def _follow(db: Connection, customer_id: int, bought: Standing, now: datetime) -> None:
    paid_there = plans.marketplace_from(db, customer_id, now) is not None
    ref = f"marketplace:{bought.delivery}"
    if bought.plan == "trial":
        if paid_there:
            reason = "the Marketplace purchase has ended"
            subscriptions.begin(db, customer_id, "trial", reason=reason, ref=ref, effective_at=bought.since)
            standing.settle(db, customer_id)
        return
    if paid_there and plans.plan_at(db, customer_id, now) == bought.plan:
        return
    subscriptions.begin(
        db,
        customer_id,
        bought.plan,
        reason="bought on the GitHub Marketplace",
        ref=ref,
        effective_at=bought.since,
        marketplace_from=bought.months_from,
    )
    standing.settle(db, customer_id)
    subscriptions.end_for_marketplace(db, customer_id)
