"""The fault run: signups under load while everything that they need is killed, cut off, emptied and lied to.

FAULT_SIGNUPS says how many (3000); `storm` what else can be set.
"""

import os

import pytest

from app.customers.api_keys import authenticate
from app.ops.audit import audit
from tests.faults.storm import Client, Post, Scene, scalar, send, storm

SIGNUPS = int(os.environ.get("FAULT_SIGNUPS", "3000"))


@pytest.mark.slow
def test_every_accepted_signup_is_provisioned_once_whatever_fails(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    posts = [
        Post(
            "/api/v1/customers",
            {"email": f"customer{n}@example.com", "name": f"Customer {n}"},
            {"Idempotency-Key": f"storm-{n}"},
        )
        for n in range(SIGNUPS)
    ]
    client = Client(scene.web_port)
    with storm(scene) as weather:
        accepted = send(client, posts)

    assert len({answer["signup_id"] for _, answer in accepted}) == SIGNUPS
    assert scalar("SELECT count(*) FROM signups") == SIGNUPS
    assert scalar("SELECT count(*) FROM signups WHERE status = 'provisioned'") == SIGNUPS
    assert scalar("SELECT count(*) FROM customers") == SIGNUPS
    assert scalar("SELECT count(DISTINCT stripe_customer_id) FROM customers") == SIGNUPS
    assert scalar("SELECT count(*) FROM api_keys") == SIGNUPS
    assert scalar("SELECT count(*) FROM jobs WHERE state <> 'succeeded' AND queue <> 'upkeep'") == 0
    assert len(scene.stripe.objects("customer")) == SIGNUPS

    keys = scene.keys()
    assert len(keys) == SIGNUPS
    owners = [authenticate(key) for key in keys.values()]
    assert len(set(owners)) == SIGNUPS
    assert None not in owners

    report = audit(with_stripe=True)
    assert report["ok"], report["findings"][:20]
    with capsys.disabled():
        print(f"\n{SIGNUPS} signups, refused {dict(client.refused)}, {weather}")
