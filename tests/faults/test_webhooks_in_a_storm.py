"""Webhooks at full speed, each sent three times and shuffled, while a worker is killed and Redis loses everything: each
event is one job, and it ends as Stripe has it.

WEBHOOKS says how many events at least (1000).
"""

import json
import os
import random
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from app.billing.reconcile import Sweep
from app.db import transaction
from app.ops.audit import audit
from app.sandbox.stripe import signature_header
from app.stripe import catalog
from app.stripe.client import client
from tests.conftest import wait_until
from tests.faults.storm import SCHEDULED, SEED, Client, Post, Scene, scalar, send
from tests.faults.test_money_in_a_storm import Customer, _settle_in

WEBHOOKS = int(os.environ.get("WEBHOOKS", "1000"))

_CONNECTIONS = 16
_OPEN = f"SELECT count(*) FROM jobs WHERE state IN ('queued', 'running', 'retrying', 'held') AND NOT ({SCHEDULED})"
_ARRIVED = "SELECT count(*) FROM jobs WHERE name = 'stripe_event'"


def _customers() -> list[Customer]:
    kinds = [("payg", "pm_card_visa"), ("teams", "pm_card_mastercard")]
    return [Customer(f"customer{n}@example.com", *kinds[n % 2], fixes=1) for n in range(max(4, WEBHOOKS // 50))]


def _busy_day(scene: Scene, customers: Sequence[Customer]) -> list[dict[str, Any]]:
    """Somebody works in Stripe's dashboard until there are enough events; returns all there are."""
    turn = 0
    while len(events := scene.stripe.objects("event")) < WEBHOOKS:
        turn += 1
        intents = {i["customer"]: i["id"] for i in scene.stripe.objects("payment_intent") if "fix" in i["metadata"]}
        subscriptions = {s["customer"]: s["id"] for s in scene.stripe.objects("subscription")}
        for customer in customers:
            client().v1.customers.update(customer.stripe_id, {"name": f"Ada {turn}"})
            card = client().v1.payment_methods.attach("pm_card_amex", {"customer": customer.stripe_id}).id
            if turn % 2:
                client().v1.payment_methods.detach(card)
            if customer.plan == "teams":
                ends = {"cancel_at_period_end": bool(turn % 2)}
                client().v1.subscriptions.update(subscriptions[customer.stripe_id], ends)
            elif turn < 15:
                client().v1.refunds.create({"payment_intent": intents[customer.stripe_id], "amount": 100})
    return events


def _signed(event: dict[str, Any]) -> Post:
    header = signature_header(json.dumps(event).encode(), ("whsec_tallyhooktests",), int(time.time()))
    return Post("/webhooks/stripe", event, {"Stripe-Signature": header})


def _drift() -> list[dict[str, Any]]:
    """What is not as in Stripe; what Stripe has said of our own doing since is no matter."""
    sweep = Sweep(transaction, "test", fix=False)
    sweep.everything()
    return [row for row in sweep.drift if row["rule"] != "event_arrived"]


@pytest.mark.slow
def test_every_event_is_one_job_and_the_end_is_stripes(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    catalog.sync()
    client_of_ours, customers = Client(scene.web_port), _customers()
    _settle_in(scene, client_of_ours, customers)
    dice = random.Random(SEED)
    send(client_of_ours, [customer.tells(1, dice)[0] for customer in customers])
    wait_until(lambda: scalar(_OPEN) == 0, 120, "every fix counted and paid")
    events = _busy_day(scene, customers)
    assert _drift() != []

    sent = events * 3
    dice.shuffle(sent)
    stripe = Client(scene.web_port)
    began = time.monotonic()
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        answers = pool.map(lambda event: stripe.post(_signed(event)), sent)
        for part in (1, 2):
            wait_until(lambda part=part: scalar(_ARRIVED) >= len(events) * part // 3, 120, "a third of the events")
            os.killpg(scene.supervisor.pids("worker")[0], signal.SIGKILL)
            redis.Redis(port=scene.redis.port).flushall()
        new = sum(not answer["duplicate"] for answer in answers)
    sent_in_s = time.monotonic() - began
    wait_until(lambda: scalar(_OPEN) == 0, 240, "the end of all work")
    done_in_s = time.monotonic() - began

    assert (new, scalar(_ARRIVED)) == (len(events), len(events))
    assert scalar(f"SELECT count(*) FROM jobs WHERE state <> 'succeeded' AND NOT ({SCHEDULED})") == 0
    assert _drift() == []
    report = audit(with_stripe=True)
    assert report["ok"], report["findings"][:20]
    with capsys.disabled():
        print(
            f"\n{len(events)} events, each sent three times in {sent_in_s:.0f} s, refused {dict(stripe.refused)},"
            f" all done after {done_in_s:.0f} s, seed {SEED}"
        )
