"""How long a deployed fix takes to become a charge, and what many fixes at once do to each other."""

import hashlib
import http.client
import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import stripe
from dotenv import dotenv_values

from app.sandbox.embedded import free_port
from app.sandbox.stripe import SandboxControl
from bench.environment import Environment, wait_for
from bench.report import Figure, percentile

_STRIPE_MS = 50
_SENDERS = 8


@dataclass(frozen=True)
class _Customer:
    id: int
    key: str


class _Bench:
    """`tallyhook up`, the Stripe that it embeds, and customers with fixes to send."""

    def __init__(self, env: Environment, port: int, home: Path) -> None:
        self._env, self._port = env, port
        api = dotenv_values(home / "embedded.env")["STRIPE_API_BASE"] or ""
        self.control = SandboxControl(api)
        self._stripe = stripe.StripeClient("sk_test_bench", base_addresses={"api": api})
        self._issue = 0

    def customers(self, count: int, plan: str) -> list[_Customer]:
        """Customers on that plan: payg with a card, Teams with a period."""
        made = []
        for _ in range(count):
            self._issue += 1
            key = f"rsolv_{hashlib.sha256(str(self._issue).encode()).hexdigest()[:43]}"
            there = self._stripe.v1.customers.create({"email": f"bench{self._issue}@example.com"}).id
            card = self._stripe.v1.payment_methods.attach("pm_card_visa", {"customer": there}).id
            values = {
                "email": f"bench{self._issue}@example.com",
                "plan": plan,
                "stripe": there,
                "card": card,
                "hash": hashlib.sha256(key.encode()).hexdigest(),
                "subscription": f"sub_bench_{self._issue}",
            }
            with self._env.database.engine.begin() as db:
                customer_id = db.exec_driver_sql(_CUSTOMER, values).scalar_one()
                if plan == "teams":
                    db.exec_driver_sql(_PERIOD, {**values, "id": customer_id})
            made.append(_Customer(customer_id, key))
        return made

    def send(self, customers: list[_Customer], pause_s: float = 0) -> dict[int, float]:
        """A fix of each of `customers`, in their order; returns when each was accepted, by its issue number."""
        accepted: dict[int, float] = {}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        for customer in customers:
            self._issue += 1
            issue = self._issue
            body = {"phase": "mitigation", "data": {"fixed": True}, "repo": "o/r", "commitSha": "c0ffee"}
            headers = {"Content-Type": "application/json", "X-API-Key": customer.key}
            connection.request("POST", "/api/v1/phase-data", json.dumps({**body, "issueNumber": issue}), headers)
            answer = connection.getresponse()
            answer.read()
            accepted[issue] = time.time()
            if answer.status != 202:
                raise RuntimeError(f"a fix was answered with {answer.status}")
            time.sleep(pause_s)
        connection.close()
        return accepted

    def send_at_once(self, customers: list[_Customer]) -> None:
        """A fix of each of `customers` over several connections."""
        shares = [customers[n::_SENDERS] for n in range(_SENDERS)]
        threads = [threading.Thread(target=self.send, args=(share,)) for share in shares]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def waits(self, accepted: dict[int, float], reached: str) -> list[float]:
        """Milliseconds from each fix's 202 until `reached`, a time by issue number."""
        issues = {"issues": list(accepted)}
        wait_for(
            lambda: self._env.database.value(f"SELECT count(*) FROM ({reached}) AS r", issues) == len(accepted),
            "the last of the fixes",
        )
        with self._env.database.engine.connect() as db:
            at = {row[0]: row[1] for row in db.exec_driver_sql(reached, issues)}
        return [(at[issue] - sent) * 1000 for issue, sent in accepted.items()]


_CUSTOMER = """
WITH made AS (
    INSERT INTO customers (email, name, plan, source, stripe_customer_id, default_payment_method, subscription_status,
                           welcomed_at)
    VALUES (%(email)s, 'Bench', %(plan)s, 'direct', %(stripe)s, %(card)s, 'active', now()) RETURNING id
), key AS (
    INSERT INTO api_keys (customer_id, hash, first) SELECT id, %(hash)s, true FROM made
), plan AS (
    INSERT INTO plan_changes (customer_id, plan, effective_at, reason)
    SELECT id, %(plan)s, now() - interval '1 day', 'bench' FROM made
)
SELECT id FROM made
"""
_PERIOD = """
WITH made AS (
    INSERT INTO subscriptions (id, customer_id, status, created_at) VALUES (%(subscription)s, %(id)s, 'active', now())
)
INSERT INTO billing_periods (subscription_id, customer_id, starts_at, ends_at)
VALUES (%(subscription)s, %(id)s, date_trunc('second', now()) - interval '1 day', now() + interval '29 days')
"""
_COUNTED = """
SELECT issue_number, extract(epoch FROM fixes.created_at)::float8
FROM fixes JOIN phase_results ON phase_results.id = phase_result_id WHERE issue_number = ANY(%(issues)s)
"""
_CHARGED = """
SELECT issue_number, extract(epoch FROM succeeded_at)::float8
FROM charges JOIN fixes ON fixes.id = fix_id JOIN phase_results ON phase_results.id = phase_result_id
WHERE issue_number = ANY(%(issues)s) AND succeeded_at IS NOT NULL
"""


def measure(env: Environment) -> None:
    """From a fix to its charge; a hundred customers with a hundred fixes each; one busy customer beside others."""
    env.clear()
    home, port = env.home / "charges", free_port()
    command = ["-m", "app.ops.cli", "up", "--workers", "2", "--port", str(port)]
    with env.process(*command, TALLYHOOK_HOME=str(home), PROMETHEUS_MULTIPROC_DIR=str(home / "metrics")) as up:
        up.wait_for_output("\nready ")
        bench = _Bench(env, port, home)
        _charge(env, bench)
        _many(env, bench)
        _beside_a_busy_one(env, bench)


def _charge(env: Environment, bench: _Bench) -> None:
    customers = bench.customers(10, "payg")
    bench.control.fault("delay", operation="*", count=None, ms=_STRIPE_MS)
    bench.waits(bench.send(customers[:3], pause_s=0.5), _CHARGED)
    env.report.doing("charges: fixes one by one, Stripe answering in 50 ms")
    waits = bench.waits(bench.send(customers * env.size(20, 1), pause_s=0.3), _CHARGED)
    bench.control.clear_faults()
    how = f"from the 202 to the charge's commit; Stripe answers in {_STRIPE_MS} ms; {len(waits)} fixes one by one"
    env.report.add(Figure("fix to charge, p50", percentile(waits, 0.5), "ms", target=250, at_most=True, how=how))
    env.report.add(Figure("fix to charge, p99", percentile(waits, 0.99), "ms", target=1000, at_most=True, how=how))


def _many(env: Environment, bench: _Bench) -> None:
    size = env.size(100, 5)
    customers = bench.customers(size, "teams")
    bench.control.clear_requests()
    env.report.doing(f"charges: {size} customers with {size} fixes each, at once")
    began = time.monotonic()
    bench.send_at_once(customers * size)
    ids = {"ids": [customer.id for customer in customers]}
    counted = "SELECT count(*) FROM fixes WHERE customer_id = ANY(%(ids)s)"
    wait_for(lambda: env.database.value(counted, ids) == size * size, "the last of the fixes", timeout_s=300)
    left = "SELECT count(*) FROM jobs WHERE name = 'sync_overage' AND state <> 'succeeded'"
    wait_for(lambda: env.database.value(left) == 0, "the last of the overage", timeout_s=300)
    took = time.monotonic() - began
    only = "SELECT FROM fixes WHERE customer_id = ANY(%(ids)s) GROUP BY customer_id HAVING count(*) <> %(size)s"
    lost = env.database.value(f"SELECT count(*) FROM ({only}) AS w", {**ids, "size": size})
    assert lost == 0, f"{lost} customers do not have {size} fixes"
    asked = len(bench.control.requests("* /v1/invoiceitems*")) / size
    told = sum(item["amount"] for item in bench.control.objects("invoiceitem"))
    over = env.database.value("SELECT coalesce(sum(amount_cents), 0) FROM fixes WHERE outcome = 'overage'")
    assert told == over, f"Stripe was told {told} cents of overage, not {over}"
    name = f"{size} customers with {size} fixes each, at once, to the last one"
    how = "Teams, 60 included: every fix counted once, Stripe told exactly; 8 connections, 2 worker processes"
    env.report.add(Figure(name, took, "s", how=how))
    env.report.add(Figure("Stripe requests a customer in that burst", asked, "", target=20, at_most=True, how=how))


def _beside_a_busy_one(env: Environment, bench: _Bench) -> None:
    [busy, *others] = bench.customers(11, "teams")
    rounds, fixes = env.size(10, 1), env.size(4000, 50)
    env.report.doing("charges: customers alone")
    alone = bench.waits(bench.send(others * rounds, pause_s=0.05), _COUNTED)
    env.report.doing(f"charges: the same beside one with {fixes} fixes at once")
    flood = threading.Thread(target=bench.send_at_once, args=([busy] * fixes,))
    flood.start()
    mine = "SELECT count(*) FROM jobs WHERE customer_id = %(id)s"
    wait_for(lambda: env.database.value(mine, {"id": busy.id}) >= fixes // 2, "the busy one's first half")
    flood.join()
    beside = bench.waits(bench.send(others * rounds, pause_s=0.05), _COUNTED)
    open_jobs = f"{mine} AND state IN ('queued', 'running')"
    assert env.size(env.database.value(open_jobs, {"id": busy.id}), 1) > 0, "the busy one was done before the others"
    how = f"medians of {len(alone)} fixes of ten customers, from the 202 until they were counted"
    figure = median(beside) / median(alone)
    env.report.add(Figure("customers beside a busy one", figure, "of alone", target=2, at_most=True, how=how))
