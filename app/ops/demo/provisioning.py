"""Chapters of signing up: whatever happens on the way, there is one customer with one key."""

import time

from app.db import transaction
from app.ledger import ops
from app.ledger.bell import get_redis
from app.ops.demo.stage import Stage
from app.ops.output import console, print_rows


def sign_up_while_the_worker_dies(stage: Stage) -> str:
    """Returns the customer's API key."""
    stage.chapter("A customer signs up, and the worker is killed in the middle of it")
    stage.stripe.fault("delay", operation="POST /v1/customers", ms=15_000)
    signup = stage.sign_up("ada@example.com", "Ada", "demo-1")
    stage.say(f"POST /api/v1/customers: 202, signup {signup['signup_id']} is committed; Stripe is slow to answer")
    stage.wait("Stripe to be asked", lambda: not stage.stripe.faults())
    job = stage.wait("the step at Stripe", lambda: stage.job("create_stripe_customer", "running"))
    stage.kill_the_worker_of(job)
    stage.stripe.clear_faults()
    stage.provisioned(signup)
    stage.say("provisioned:")
    print_rows(stage.get(signup["status_url"])["steps"], ("name", "state", "attempts"), "")
    console.print("\nthe attempts at create_stripe_customer:")
    print_rows(stage.attempts(job["id"]), ("attempt", "started_at", "outcome", "error_message"), "")
    made = len(stage.stripe.objects("customer"))
    stage.must(made == 1, f"Stripe has {made} customers")
    stage.say("Stripe got the request twice, under one idempotency key: it has [green]one customer[/]")
    return _read_the_key(stage)


def _read_the_key(stage: Stage) -> str:
    mail = stage.mail("welcome")
    body = mail.get_body(("plain",))
    assert body is not None
    words: list[str] = body.get_content().split()
    key = next(word for word in words if word.startswith("rsolv_"))
    stage.must(stage.count("api_keys", "sealed IS NOT NULL") == 0, "a readable key was left behind")
    stage.say(f"the welcome mail “{mail['subject']}” has the key {key[:10]}…; the database keeps only its SHA-256")
    return key


def send_it_again(stage: Stage) -> None:
    """The same signup by the same request, and by the same address."""
    stage.chapter("The same signup again changes nothing")
    again = stage.sign_up("ada@example.com", "Ada", "demo-1")
    stage.must(again["duplicate"], "the repeated request was taken for a new one")
    stage.say("the same Idempotency-Key: the first signup answers, duplicate true")
    stage.provisioned(stage.sign_up("ADA@Example.com", "Ada L.", "demo-2"))
    stage.must(stage.count("customers") == 1, "the same address made a second customer")
    stage.say("the same address in capitals: looks like any signup, ends as one customer …")
    stage.say(f"… and the owner gets “{stage.mail('sign-in')['subject']}”, without a key")


def empty_redis(stage: Stage) -> None:
    """FLUSHALL with twenty signups accepted."""
    stage.chapter("Redis forgets everything")
    with transaction() as db:
        ops.pause_queue(db, "provisioning", actor="demo")
    accepted = [stage.sign_up(f"c{n}@example.com", f"C{n}", f"many-{n}") for n in range(20)]
    get_redis().flushall()
    with transaction() as db:
        ops.resume_queue(db, "provisioning", actor="demo")
    since = time.monotonic()
    stage.say("20 signups accepted while their queue was paused; then FLUSHALL, and the queue goes on")
    for signup in accepted:
        stage.provisioned(signup)
    stage.say(f"all 20 provisioned {time.monotonic() - since:.1f} s later: PostgreSQL is the queue")


def lose_stripes_answer(stage: Stage) -> None:
    """Stripe makes a customer twice asked for, and cannot say so."""
    stage.chapter("Stripe does it, and its answer is lost")
    stage.stripe.fault("lose", operation="POST /v1/customers", count=2)
    stage.provisioned(stage.sign_up("bob@example.com", "Bob", "demo-3"))
    bobs = [one for one in stage.stripe.objects("customer") if one["email"] == "bob@example.com"]
    stage.must(len(bobs) == 1, f"Stripe has {len(bobs)} customers for one signup")
    stage.say("asked three times under one key, twice without an answer: [green]one customer[/] in Stripe")
