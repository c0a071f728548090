"""How long a webhook takes to its effect, and whether a steady load of them leaves anything behind."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import stripe
from dotenv import dotenv_values

from app.sandbox.embedded import free_port
from app.sandbox.stripe import SandboxControl
from bench.environment import Environment, Process, wait_for
from bench.load import signature_header
from bench.memory import resident
from bench.report import Figure, percentile

_STRIPE_MS = 50
_PER_S = 200
_SENDERS = 8
_WARM_S = 15
"""Seconds of the steady load after which memory is looked at for the first time."""

_CUSTOMER = """
INSERT INTO customers (email, name, plan, source, stripe_customer_id, subscription_status, welcomed_at)
VALUES (%(email)s, 'Bench', 'trial', 'direct', %(stripe)s, 'trial', now()) RETURNING id
"""
_EFFECTS = """
SELECT 1000 * extract(epoch FROM effect.finished_at - event.created_at)::float8
FROM jobs AS event JOIN jobs AS effect ON effect.id = (event.result ->> 'job_id')::uuid
WHERE event.name = 'stripe_event' AND event.created_at > %(since)s AND effect.name = 'sync_subscription'
    AND event.payload #>> '{event,type}' = 'customer.subscription.updated' AND effect.state = 'succeeded'
"""
_LEFT = "SELECT count(*) FROM jobs WHERE state IN ('queued', 'retrying', 'running') AND run_at < now() + interval '1 h'"


@dataclass(frozen=True)
class _Customer:
    """Of ours and of Stripe's, with an open subscription to Teams."""

    stripe_id: str
    subscription: dict[str, Any]


class _Bench:
    """`tallyhook up`, the Stripe that it embeds, and customers on Teams."""

    def __init__(self, env: Environment, port: int, home: Path) -> None:
        self._env, self._port = env, port
        embedded = dotenv_values(home / "embedded.env")
        api, self._secret = embedded["STRIPE_API_BASE"] or "", embedded["STRIPE_WEBHOOK_SECRETS"] or ""
        self.control = SandboxControl(api)
        self.stripe = stripe.StripeClient("sk_test_bench", base_addresses={"api": api}).v1

    def customers(self, number: int) -> list[_Customer]:
        """So many, whose subscriptions we know by what Stripe has delivered."""
        price = self.stripe.prices.list({"lookup_keys": ["teams_monthly"]}).data[0].id
        made = []
        for n in range(number):
            email = f"webhooks{n}@example.com"
            there = self.stripe.customers.create({"email": email}).id
            with self._env.database.engine.begin() as db:
                ours = db.exec_driver_sql(_CUSTOMER, {"email": email, "stripe": there}).scalar_one()
            card = self.stripe.payment_methods.attach("pm_card_visa", {"customer": there}).id
            self.stripe.subscriptions.create(
                {
                    "customer": there,
                    "items": [{"price": price}],
                    "default_payment_method": card,
                    "metadata": {"customer_id": str(ours)},
                }
            )
            made.append(there)
        known = "SELECT count(*) FROM subscriptions WHERE status = 'active'"
        wait_for(lambda: self._env.database.value(known) == number, "the subscriptions")
        wait_for(self.done, "what follows from them")
        there_now = {one["customer"]: one for one in self.control.objects("subscription")}
        return [_Customer(stripe_id, there_now[stripe_id]) for stripe_id in made]

    def wait_for_all(self, customers: list[_Customer], ends: bool) -> None:
        """Until each subscription is known to end with its period, or not to."""
        as_there = "SELECT count(*) FROM subscriptions WHERE cancel_at_period_end = %(ends)s"
        wait_for(
            lambda: self._env.database.value(as_there, {"ends": ends}) == len(customers), "the last of the changes"
        )

    def done(self) -> bool:
        """Whether no job is due, or will be soon."""
        return bool(self._env.database.value(_LEFT) == 0)

    def send(self, events: Iterator[bytes], began: float, until: float) -> None:
        """Post events at this sender's share of the pace, whatever the answers take.

        Raises:
            RuntimeError: one was not answered with 200.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        for number, body in enumerate(events):
            due = began + number * _SENDERS / _PER_S
            if due > until:
                break
            time.sleep(max(0.0, due - time.monotonic()))
            headers = {"Content-Type": "application/json", "Stripe-Signature": signature_header(body, self._secret)}
            connection.request("POST", "/webhooks/stripe", body, headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise RuntimeError(f"a webhook was answered with {answer.status}")
        connection.close()


def measure(env: Environment) -> None:
    """From a change in Stripe to the same change here; then a steady load of distinct events."""
    env.clear()
    home, port = env.home / "webhooks", free_port()
    command = ["-m", "app.ops.cli", "up", "--workers", "2", "--port", str(port)]
    with env.process(*command, TALLYHOOK_HOME=str(home), PROMETHEUS_MULTIPROC_DIR=str(home / "metrics")) as up:
        up.wait_for_output("\nready ")
        bench = _Bench(env, port, home)
        env.report.doing("webhooks: customers on Teams")
        customers = bench.customers(env.size(100, 10))
        _effect(env, bench, customers)
        _sustained(env, bench, up, customers)


def _effect(env: Environment, bench: _Bench, customers: list[_Customer]) -> None:
    rounds = env.size(2, 1)
    bench.control.fault("delay", operation="GET *", count=None, ms=_STRIPE_MS)
    env.report.doing("webhooks: changes in Stripe one by one, Stripe answering in 50 ms")
    began = env.database.value("SELECT clock_timestamp()")
    for ends in [True, False][:rounds]:
        for customer in customers:
            bench.stripe.subscriptions.update(customer.subscription["id"], {"cancel_at_period_end": ends})
            time.sleep(0.3)
        bench.wait_for_all(customers, ends)
    wait_for(bench.done, "what follows from them")
    bench.control.clear_faults()
    waits = env.database.column(_EFFECTS, {"since": began})
    assert len(waits) >= rounds * len(customers), f"{len(waits)} effects of {rounds * len(customers)} changes"
    how = f"from an event's acceptance to its effect's commit; Stripe answers in {_STRIPE_MS} ms; {len(waits)} events"
    env.report.add(Figure("webhook to effect, p50", percentile(waits, 0.5), "ms", target=200, at_most=True, how=how))
    env.report.add(Figure("webhook to effect, p99", percentile(waits, 0.99), "ms", target=1000, at_most=True, how=how))


def _events(customers: list[_Customer]) -> Iterator[bytes]:
    """Distinct events, of each customer in turn, some of types that nothing follows from."""
    template = json.loads((Path(__file__).parent / "event.json").read_text())
    for number in count():
        of = customers[number // 4 % len(customers)]
        kind, thing = (
            ("customer.subscription.updated", of.subscription),
            ("customer.updated", {"id": of.stripe_id, "object": "customer"}),
            ("invoice.updated", {"id": "in_bench", "object": "invoice", "customer": of.stripe_id, "parent": None}),
            ("radar.early_fraud_warning.updated", {"id": "issfr_bench", "object": "radar.early_fraud_warning"}),
        )[number % 4]
        yield json.dumps(template | {"id": f"evt_bench{number}", "type": kind, "data": {"object": thing}}).encode()


def _sustained(env: Environment, bench: _Bench, up: Process, customers: list[_Customer]) -> None:
    seconds = env.size(env.sustained_s, 6)
    events = "name = 'stripe_event' AND starts_with(key, 'stripe:evt_bench')"
    env.report.doing(f"webhooks: {_PER_S}/s for {seconds} s")
    began = time.monotonic()
    failed: list[BaseException] = []

    def send(place: int) -> None:
        try:
            bench.send(islice(_events(customers), place, None, _SENDERS), began, began + seconds)
        except BaseException as error:  # raised below, in the thread that measures
            failed.append(error)

    senders = [threading.Thread(target=send, args=(place,)) for place in range(_SENDERS)]
    for sender in senders:
        sender.start()
    time.sleep(min(_WARM_S, seconds / 2))
    before = resident(env)
    for sender in senders:
        sender.join()
    took = time.monotonic() - began
    if failed:
        raise failed[0]
    after = resident(env)
    wait_for(bench.done, "the backlog", timeout_s=600)
    backlog_s = time.monotonic() - began - took
    up.check()
    accepted = env.database.value(f"SELECT count(*) FROM jobs WHERE {events}")
    lost = env.database.value(f"SELECT count(*) FROM jobs WHERE {events} AND state <> 'succeeded'")
    assert lost == 0, f"{lost} of {accepted} webhooks have not succeeded"
    dead = env.database.value("SELECT count(*) FROM jobs WHERE state = 'dead'")
    assert dead == 0, f"{dead} jobs are dead"
    growth = [100 * (after[pid] / size - 1) for pid, size in before.items()]
    how = f"`tallyhook up --workers 2`, {len(customers)} customers, distinct events, all answered 200; {seconds} s"
    env.report.add(Figure("webhooks, sustained", accepted / took, "/s", target=0.98 * _PER_S, how=how))
    env.report.add(Figure("backlog back to zero after it", backlog_s, "s", target=10, at_most=True, how=how))
    env.report.add(Figure("workers' growth during it", max(growth), "%", growth, target=5, at_most=True, how=how))
