"""What a test of billing does and asks, in a line each."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import app.billing.listeners  # noqa: F401  (registers what follows from a phase)
from app.billing import plans
from app.billing.status import billing_status
from app.contracts.http import BillingStatus
from app.customers import accounts, api_keys
from app.db import transaction
from app.phases import results
from app.stripe.client import client
from tests.system.scene import one, sql

_numbers = count(1)


@dataclass(frozen=True)
class Customer:
    """A customer of ours, and of Stripe's."""

    id: int
    stripe_id: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"X-API-Key": self.key}


def customer(plan: str = "trial", card: str | None = None) -> Customer:
    """A provisioned customer on `trial` or `payg`, with that card as their default."""
    email = f"customer{next(_numbers)}@example.com"
    with transaction() as db:
        made = accounts.create(db, email=email, name="Ada", wanted_plan="trial", source="direct")
        api_keys.issue_first(db, made)
        key = api_keys.sealed_first(db, made)
        api_keys.wipe_sealed(db, made)
    assert key is not None
    stripe_id = client().v1.customers.create({"email": email, "metadata": {"customer_id": str(made)}}).id
    with transaction() as db:
        accounts.set_stripe_customer(db, made, stripe_id)
        accounts.mark_welcomed(db, made)
        if plan != "trial":
            plans.change(db, made, plan, reason="test")
    found = Customer(made, stripe_id, key)
    if card is not None:
        give_card(found, card)
    return found


def teams(start: datetime | None = None) -> Customer:
    """A customer on Teams by our books alone (Stripe knows of no subscription), whose period began a day ago."""
    found = customer()
    start = start or datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    sql(
        "INSERT INTO subscriptions (id, customer_id, status, created_at) VALUES (%(id)s, %(c)s, 'active', %(at)s)",
        id=f"sub_{found.id}",
        c=found.id,
        at=start,
    )
    sql(
        "INSERT INTO billing_periods VALUES (%(id)s, %(c)s, %(at)s, %(at)s + interval '30 days')",
        id=f"sub_{found.id}",
        c=found.id,
        at=start,
    )
    with transaction() as db:
        plans.change(db, found.id, "teams", reason="test", effective_at=start)
    return found


def give_card(of: Customer, card: str) -> str:
    """Make a card the customer's default, without any of what follows from it; returns its id."""
    method = client().v1.payment_methods.attach(card, {"customer": of.stripe_id}).id
    sql("UPDATE customers SET default_payment_method = %(method)s WHERE id = %(id)s", method=method, id=of.id)
    return method


def deploy(
    of: Customer,
    issue: int,
    *,
    fix_id: str | None = None,
    repo: str = "o/r",
    commit: str = "c0ffee",
    at: datetime | None = None,
    run: str = "1",
) -> None:
    """A deployed fix of the customer's is accepted (at that moment); `run` makes the result another one."""
    received = results.receive(
        of.id,
        results.NewResult(
            phase="mitigation",
            status="success",
            repo=repo,
            issue_number=issue,
            commit_sha=commit,
            fix_id=fix_id,
            data={"fixed": True, "run": run},
        ),
    )
    if at is not None:
        received.row["received_at"] = at
    with transaction() as db:
        results.store(db, [received])


def status(of: Customer) -> BillingStatus:
    """How the customer stands."""
    with transaction() as db:
        return billing_status(db, of.id)


def outcomes(of: Customer) -> list[str]:
    """What each of the customer's fixes counted as."""
    return [row.outcome for row in sql("SELECT outcome FROM fixes WHERE customer_id = %(id)s ORDER BY id", id=of.id)]


def charge_states(of: Customer) -> list[str]:
    """The customer's charges, oldest first."""
    return [row.state for row in sql("SELECT state FROM charges WHERE customer_id = %(id)s ORDER BY id", id=of.id)]


def entries(of: Customer) -> list[tuple[str, int]]:
    """What happened to the customer's money, in order."""
    rows = sql(
        "SELECT kind, e.amount_cents FROM charge_entries e JOIN charges c ON c.id = charge_id"
        " WHERE customer_id = %(id)s ORDER BY e.id",
        id=of.id,
    )
    return [(row.kind, row.amount_cents) for row in rows]


def taken(stripe: Any, of: Customer) -> int:
    """Cents that Stripe has taken from the customer by payment intents."""
    return sum(i["amount_received"] for i in stripe.objects("payment_intent") if i["customer"] == of.stripe_id)


def days_pass(of: Customer, days: int) -> None:
    """What waits for the customer waits so much less; what failed did so much earlier."""
    sql(
        "UPDATE jobs SET run_at = run_at - make_interval(days => %(days)s)"
        " WHERE customer_id = %(id)s AND state IN ('queued', 'retrying')",
        days=days,
        id=of.id,
    )
    sql(
        "UPDATE charges SET failed_at = failed_at - make_interval(days => %(days)s) WHERE customer_id = %(id)s",
        days=days,
        id=of.id,
    )


def payload_of(name: str) -> dict[str, Any]:
    """What the one job of that name is to do."""
    found: dict[str, Any] = one("SELECT payload FROM jobs WHERE name = %(name)s", name=name)
    return found
