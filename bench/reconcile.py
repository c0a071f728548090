"""How long it takes to compare everything with Stripe, within the requests that Stripe allows."""

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import stripe

from app.billing.events import Ignored, finder
from app.sandbox.embedded import free_port
from app.sandbox.stripe import SandboxControl, StripeSandbox
from bench.environment import Environment
from bench.report import Figure

_PER_S = 25
"""Requests a second that Stripe takes with a test key: one more is answered with 429."""
_FIRST = 1_000_000
"""The number of the customer that all others are copies of."""
_HERE = "@@@@"


def measure(env: Environment) -> None:
    """`tallyhook reconcile` over customers with Teams, a paid fix and all their events, of which few never arrived."""
    customers, drifted = env.size(10_000, 200), env.size(100, 5)
    env.clear()
    env.report.doing(f"reconcile: {customers} customers in Stripe and here")
    data, port = env.home / "reconcile.sqlite", free_port()
    with StripeSandbox(data=data) as sandbox:
        ids = _first_customer(sandbox)
    arrived = _copy(data, customers)
    _here(env, ids, customers, drifted, arrived)
    api = f"http://127.0.0.1:{port}"
    command = ("-m", "app.sandbox.stripe", "--port", str(port), "--data", str(data), "--rate-limit", str(_PER_S))
    with env.process(*command) as serving:
        serving.wait_for_output("Stripe sandbox:")
        env.report.doing("reconcile: comparing")
        began = time.monotonic()
        found = _reconcile(api)
        took = time.monotonic() - began
        asked = SandboxControl(api).requests()
    assert len(found["drift"]) == 2 * drifted, f"{len(found['drift'])} differences were found, not {2 * drifted}"
    refused = sum(entry["status"] == 429 for entry in asked)
    events = found["checked"]["events"]
    how = f"`tallyhook reconcile`: {events:,} events, {len(asked):,} requests; {len(found['drift'])} differences found"
    env.report.add(Figure(f"reconcile over {customers:,} customers", took, "s", target=300, at_most=True, how=how))
    how = f"refused by a sandbox that takes {_PER_S} a second"
    env.report.add(Figure("requests too many in that", refused, "", target=0, at_most=True, how=how))


def _first_customer(sandbox: StripeSandbox) -> dict[str, str]:
    """One with a card, Teams, and a fix that was paid; returns the ids of what is compared."""
    there = stripe.StripeClient("sk_test_bench", base_addresses={"api": sandbox.url}).v1
    price = there.prices.create(
        {
            "currency": "usd",
            "unit_amount": 49900,
            "recurring": {"interval": "month"},
            "product_data": {"name": "Tallyhook Teams"},
        }
    )
    named = {"customer_id": str(_FIRST)}
    customer = there.customers.create({"email": f"bench{_FIRST}@example.com", "metadata": named}).id
    card = there.payment_methods.attach("pm_card_visa", {"customer": customer}).id
    there.customers.update(customer, {"invoice_settings": {"default_payment_method": card}})
    teams = there.subscriptions.create({"customer": customer, "items": [{"price": price.id}], "metadata": named})
    intent = there.payment_intents.create(
        {
            "amount": 1500,
            "currency": "usd",
            "customer": customer,
            "payment_method": card,
            "confirm": True,
            "off_session": True,
            "metadata": {"fix": f"bench-fix-{_FIRST}", "fix_id": str(_FIRST)},
        }
    )
    [invoice] = there.invoices.list({"customer": customer}).data
    period = teams.to_dict()["items"]["data"][0]["current_period_end"]
    return {
        "customer": customer,
        "card": card,
        "subscription": teams.id,
        "intent": intent.id,
        "invoice": invoice.id,
        "number": str(invoice.number),
        "period_end": str(period),
    }


def _copy(data: Path, customers: int) -> list[str]:
    """Give every object of the first customer's as many copies, under ids that end with their number; returns the ids
    of the events that are followed."""
    db = sqlite3.connect(data)
    rows = db.execute("SELECT id, livemode, object, deleted, entered, body FROM objects ORDER BY seq").fetchall()
    shared = {"product", "price", "webhook_endpoint"}
    ids = [row[0] for row in rows if row[2] not in shared]
    known = re.compile("|".join(map(re.escape, sorted(ids, key=len, reverse=True))))
    templates = [
        (row[0], *row[1:5], known.sub(lambda found: found[0] + _HERE, row[5]).replace(str(_FIRST), _HERE))
        for row in rows
        if row[2] not in shared
    ]
    followed = [row[0] for row in rows if row[2] == "event" and _followed(json.loads(row[5])["type"])]
    with db:
        db.executemany("DELETE FROM objects WHERE id = ?", [(object_id,) for object_id in ids])
        db.executemany(
            "INSERT INTO objects (id, livemode, object, deleted, entered, body) VALUES (?, ?, ?, ?, ?, ?)",
            (
                (f"{name}{number}", *middle, body.replace(_HERE, str(number)))
                for number in range(_FIRST, _FIRST + customers)
                for name, *middle, body in templates
            ),
        )
    db.close()
    return followed


def _followed(event_type: str) -> bool:
    try:
        finder(event_type)
    except Ignored:
        return False
    return True


def _here(env: Environment, ids: dict[str, str], customers: int, drifted: int, arrived: list[str]) -> None:
    """The same customers with us; of some, their subscription's newest event never arrived and it has another state."""
    values: dict[str, Any] = {**ids, "first": _FIRST, "last": _FIRST + customers - 1, "whole": _FIRST + drifted}
    with env.database.engine.begin() as db:
        db.exec_driver_sql("SET LOCAL statement_timeout = 0")
        for statement in _SAME:
            db.exec_driver_sql(statement, values)
        for place, event in enumerate(arrived):
            db.exec_driver_sql(_ARRIVED, {**values, "event": event, "from": values["whole" if place == 0 else "first"]})
    env.database.tidy()


_ALL = "generate_series(%(first)s::bigint, %(last)s::bigint) AS n"
_SAME = (
    f"""
    INSERT INTO customers (id, email, name, plan, source, stripe_customer_id, default_payment_method,
                           subscription_status, welcomed_at)
    OVERRIDING SYSTEM VALUE
    SELECT n, 'bench' || n || '@example.com', 'Bench', 'teams', 'direct', %(customer)s || n, %(card)s || n, 'active',
        now() FROM {_ALL}
    """,
    f"""
    INSERT INTO subscriptions (id, customer_id, status, created_at)
    SELECT %(subscription)s || n, n, CASE WHEN n < %(whole)s THEN 'past_due' ELSE 'active' END, now() FROM {_ALL}
    """,
    f"""
    INSERT INTO billing_periods (subscription_id, customer_id, starts_at, ends_at)
    SELECT %(subscription)s || n, n, now() - interval '1 minute', to_timestamp(%(period_end)s::bigint) FROM {_ALL}
    """,
    f"""
    INSERT INTO phase_results (id, customer_id, phase, status, repo, issue_number, commit_sha, data, digest,
                               received_at)
    SELECT gen_random_uuid(), n, 'mitigation', 'success', 'o/r', 1, 'c0ffee', '{{}}', n::text, now() FROM {_ALL}
    """,
    """
    INSERT INTO fixes (id, customer_id, phase_result_id, ref, plan, period_start, outcome, amount_cents, accepted_at)
    OVERRIDING SYSTEM VALUE
    SELECT customer_id, customer_id, id, 'bench-fix-' || customer_id, 'payg', now(), 'charge', 1500, now()
    FROM phase_results
    """,
    f"""
    INSERT INTO charges (fix_id, customer_id, amount_cents, state, payment_intent, succeeded_at)
    SELECT n, n, 1500, 'succeeded', %(intent)s || n, now() FROM {_ALL}
    """,
    f"""
    INSERT INTO invoices (id, customer_id, number, status, currency, total_cents, paid_cents, created_at)
    SELECT %(invoice)s || n, n, %(number)s, 'paid', 'usd', 49900, 49900, now() FROM {_ALL}
    """,
)
_ARRIVED = """
INSERT INTO job_keys (key, job_id)
SELECT 'stripe:' || %(event)s || n, gen_random_uuid() FROM generate_series(%(from)s::bigint, %(last)s::bigint) AS n
"""


def _reconcile(api: str) -> dict[str, Any]:
    """What `tallyhook reconcile --json` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "app.ops.cli", "reconcile", "--json"],
        env={**os.environ, "STRIPE_API_BASE": api, "STRIPE_SECRET_KEY": "sk_test_bench"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found
