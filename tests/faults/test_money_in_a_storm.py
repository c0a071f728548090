"""The fault run of money: fixes of customers on every plan, many of them sent more than once, while everything that
it takes to count and charge them is killed, cut off, emptied and lied to. Then Stripe's own books are read.

FAULT_FIXES says how many (1000), FAULT_CUSTOMERS of how many customers (50); `storm` what else can be set.
"""

import os
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from app.ops.audit import audit
from app.settings import get_settings
from app.stripe import catalog
from tests.conftest import wait_until
from tests.faults.storm import SCHEDULED, SEED, Client, Post, Scene, scalar, send, storm

FIXES = int(os.environ.get("FAULT_FIXES", "1000"))
CUSTOMERS = int(os.environ.get("FAULT_CUSTOMERS", "50"))

DECLINES = "pm_card_chargeCustomerFail"
"""Can be added, and is refused whenever it is charged."""

KINDS = [("trial", None), ("payg", "pm_card_visa"), ("payg", DECLINES), ("teams", "pm_card_mastercard")]
"""What customers want at signup, and the card that they bring."""


@dataclass
class Customer:
    """A customer as they know themselves, and Stripe's name for them."""

    email: str
    plan: str
    card: str | None
    fixes: int
    key: str = ""
    stripe_id: str = ""

    def signs_up(self) -> Post:
        body = {"email": self.email, "name": "Ada", "plan": self.plan}
        return Post("/api/v1/customers", body, {"Idempotency-Key": self.email})

    def adds(self, card: str) -> Post:
        headers = {"X-API-Key": self.key, "Idempotency-Key": card}
        return Post("/api/v1/payment-methods", {"payment_method": card}, headers)

    def tells(self, fix: int, dice: random.Random) -> list[Post]:
        """The fix, and whatever comes of a sender who is not sure to have told it: the same again, by the Action's
        older route, or from another run. Every third has an id of the sender's, and goes by that."""
        body = {
            "phase": "mitigation",
            "data": {"fixed": True, "prUrl": f"https://github.com/storm/app/pull/{fix}", "timestamp": "10:00"},
            "repo": "storm/app",
            "issueNumber": fix,
            "commitSha": f"c0ffee{fix:x}",
        } | ({} if fix % 3 else {"fix_id": f"fix-{fix}"})
        other: dict[str, Any] = body | {"data": {"fixed": True, "timestamp": "11:00"}}
        other |= {"commitSha": f"decade{fix:x}"} if "fix_id" in body else {"repo": "Storm/App"}
        headers = {"X-API-Key": self.key}
        first = Post("/api/v1/phase-data", body, headers)
        others = [
            Post("/api/v1/phase-data", body, headers),
            Post("/api/v1/phases/store", body, headers),
            Post("/api/v1/phase-data", other, headers),
            Post("/api/v1/phases/store", other, headers),
        ]
        return [first, *dice.sample(others, dice.randint(0, 3))]

    def comes_to(self) -> dict[str, int]:
        """What all of their fixes come to (architecture.md, "The business rules")."""
        prices = get_settings()
        over_trial = max(0, self.fixes - prices.trial_fixes)
        over_teams = max(0, self.fixes - prices.teams_included_fixes)
        none = {"fixes": self.fixes, "included": 0, "over_limit": 0, "charged": 0, "overage": 0, "amount_cents": 0}
        if self.plan == "trial":
            return none | {"included": self.fixes - over_trial, "over_limit": over_trial}
        if self.plan == "payg":
            return none | {"charged": self.fixes, "amount_cents": self.fixes * prices.payg_fix_cents}
        cents = over_teams * prices.teams_overage_cents
        return none | {"included": self.fixes - over_teams, "overage": over_teams, "amount_cents": cents}


def _settle_in(scene: Scene, client: Client, customers: Sequence[Customer]) -> None:
    """All of them sign up, bring their cards and have the plan that they wanted."""
    send(client, [customer.signs_up() for customer in customers])
    provisioned = "SELECT count(*) FROM signups WHERE status = 'provisioned'"
    wait_until(lambda: scalar(provisioned) == len(customers), 180, "everybody's API key")
    keys = scene.keys()
    for customer in customers:
        customer.key = keys[customer.email]
    send(client, [customer.adds(customer.card) for customer in customers if customer.card is not None])
    for customer in customers:
        wait_until(lambda c=customer: _stands(client, c)["plan"] == c.plan, 180, f"the plan of {customer.email}")
        customer.stripe_id = _stands(client, customer)["stripe_customer_id"]


def _stands(client: Client, customer: Customer) -> dict[str, Any]:
    return client.get("/api/v1/billing/status", customer.key)


def _send_fixes(client: Client, customers: Sequence[Customer]) -> list[tuple[Post, dict[str, Any]]]:
    """Half of everything, a good card of those whose card declines, and the other half; returns the answers."""
    dice = random.Random(SEED)
    posts = [
        post for customer in customers for fix in range(1, customer.fixes + 1) for post in customer.tells(fix, dice)
    ]
    dice.shuffle(posts)
    half = len(posts) // 2
    answers = send(client, posts[:half])
    declining = [customer for customer in customers if customer.card == DECLINES]
    declined = "SELECT count(DISTINCT customer_id) FROM charges WHERE state = 'declined'"
    wait_until(lambda: scalar(declined) == len(declining), 180, "a declined charge of everybody whose card declines")
    cards = send(client, [customer.adds("pm_card_visa") for customer in declining])
    assert len(cards) == len(declining)
    return answers + send(client, posts[half:])


@pytest.mark.slow
def test_every_fix_is_counted_and_paid_for_once_whatever_fails(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog.sync()
    customers = [
        Customer(f"customer{n}@example.com", *KINDS[n % len(KINDS)], fixes=len(range(n, FIXES, CUSTOMERS)))
        for n in range(CUSTOMERS)
    ]
    client = Client(scene.web_port)
    with storm(scene) as weather:
        _settle_in(scene, client, customers)
        answers = _send_fixes(client, customers)

    ids: dict[str, set[str]] = defaultdict(set)
    for post, answer in answers:
        ids[f"{post.headers['X-API-Key']} {post.body}"].add(answer["id"])
    assert {len(found) for found in ids.values()} == {1}, "one body was kept twice"
    assert scalar("SELECT count(*) FROM phase_results") == len(ids)

    for customer in customers:
        comes_to, stands = customer.comes_to(), _stands(client, customer)
        assert client.get("/api/v1/usage", customer.key)["totals"] == comes_to
        assert stands["current_usage"] == comes_to["fixes"] - comes_to["over_limit"]
        assert stands["can_use_service"] == (customer.plan != "trial" or stands["remaining"] > 0)
    _read_stripes_books(scene, customers)
    assert scalar(f"SELECT count(*) FROM jobs WHERE state <> 'succeeded' AND NOT ({SCHEDULED})") == 0
    later = f"SELECT array_agg(DISTINCT name) FROM jobs WHERE {SCHEDULED} AND queue <> 'upkeep'"
    assert set(scalar(later)) <= {"charge_fix", "sync_subscription"}

    report = audit(with_stripe=True)
    assert report["ok"], report["findings"][:20]
    declines = scalar("SELECT count(*) FROM charge_entries WHERE kind = 'declined'")
    with capsys.disabled():
        print(
            f"\n{FIXES} fixes of {CUSTOMERS} customers, told {len(answers)} times, {declines} declines,"
            f" refused {dict(client.refused)}, {weather}"
        )


def _read_stripes_books(scene: Scene, customers: Sequence[Customer]) -> None:
    """Stripe has taken from each customer what their fixes come to, and $499 a month of Teams, and nothing else."""
    prices = get_settings()
    taken: dict[str, list[int]] = defaultdict(list)
    for charge in scene.stripe.objects("charge"):
        if charge["paid"]:
            taken[charge["customer"]].append(charge["amount"])
    items: Counter[str] = Counter()
    for item in scene.stripe.objects("invoiceitem"):
        items[item["customer"]] += item["amount"]
    paid_fixes = [i["metadata"]["fix_id"] for i in scene.stripe.objects("payment_intent") if "fix_id" in i["metadata"]]
    assert len(paid_fixes) == len(set(paid_fixes)), "a fix has two payment intents"
    assert len(scene.stripe.objects("customer")) == len(customers)
    for customer in customers:
        comes_to = customer.comes_to()
        month = [prices.teams_month_cents] if customer.plan == "teams" else []
        assert taken[customer.stripe_id] == [prices.payg_fix_cents] * comes_to["charged"] + month, customer
        assert items[customer.stripe_id] == comes_to["overage"] * prices.teams_overage_cents, customer
