"""What Stripe does on a bad day, and one Stripe customer all the same (failures.md 2, 3, 5, 6)."""

import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from flask.testing import FlaskClient

from app.sandbox.stripe import StripeSandbox
from tests.conftest import wait_until
from tests.processes import Processes
from tests.system.scene import (
    Mailbox,
    count,
    drain,
    drain_to_the_end,
    job,
    one,
    progress,
    sign_up,
    sql,
    states,
    sweep,
    time_passes,
)

CREATE = "POST /v1/customers"
DAY = 24 * 3600


def hours_pass(stripe: StripeSandbox, hours: float) -> None:
    """For our record of what was sent, and for Stripe's record of its keys."""
    sql(
        "UPDATE external_calls SET first_sent_at = first_sent_at - make_interval(secs => %(s)s)",
        s=hours * 3600,
    )
    stripe.advance(hours * 3600)


def stripe_customer() -> str | None:
    return one("SELECT stripe_customer_id FROM customers")


# 2: crash, or a lost answer, between creating the customer and storing its id


def test_a_lost_answer_leads_to_the_customer_that_was_made(web: FlaskClient, stripe: StripeSandbox) -> None:
    stripe.fault("lose", operation=CREATE)
    answer = sign_up(web)
    drain_to_the_end()
    [theirs] = stripe.objects("customer")
    assert stripe_customer() == theirs["id"]
    assert progress(web, answer)["status"] == "provisioned"
    first, second = stripe.requests(CREATE)
    assert (first["status"], second["status"], second["replayed"]) == (None, 200, True)
    assert (first["key"], first["params"]) == (second["key"], second["params"])


def test_a_worker_killed_with_the_answer_in_its_hands_finds_the_same_customer(
    web: FlaskClient, stripe: StripeSandbox, processes: Processes
) -> None:
    stripe.fault("hang", operation=CREATE, when="after", seconds=30)
    sign_up(web)
    worker = processes.start_worker()
    wait_until(lambda: stripe.objects("customer"), what="the customer in Stripe")
    worker.kill()
    sql("UPDATE jobs SET lease_until = clock_timestamp() - interval '1 ms' WHERE state = 'running'")
    stripe.clear_faults()
    sweep()
    drain_to_the_end()
    [theirs] = stripe.objects("customer")
    assert stripe_customer() == theirs["id"]
    assert [attempt["outcome"] for attempt in job("create_stripe_customer")["history"]] == ["crashed", "succeeded"]


# 3: the retry comes after the idempotency key expired


@pytest.mark.parametrize("hours", [23.5, 25, 24 * 40])
def test_after_23_hours_the_gateway_looks_before_it_sends_again(
    web: FlaskClient, stripe: StripeSandbox, hours: float
) -> None:
    stripe.fault("lose", operation=CREATE)
    sign_up(web)
    drain()
    assert len(stripe.objects("customer")) == 1
    hours_pass(stripe, hours)
    stripe.clear_requests()
    drain_to_the_end()
    [theirs] = stripe.objects("customer")
    assert stripe_customer() == theirs["id"]
    assert [request["operation"] for request in stripe.requests()] == ["GET /v1/customers"]


def test_after_23_hours_a_customer_that_was_never_made_is_made_under_a_new_key(
    web: FlaskClient, stripe: StripeSandbox
) -> None:
    stripe.fault("refuse", operation=CREATE)
    sign_up(web)
    drain()
    hours_pass(stripe, 25)
    drain_to_the_end()
    assert len(stripe.objects("customer")) == 1
    customer = one("SELECT id FROM customers")
    assert [request["key"] for request in stripe.requests(CREATE)] == [
        f"customer:{customer}:1",
        f"customer:{customer}:2",
    ]


def test_the_second_key_is_kept_when_its_answer_is_lost_too(web: FlaskClient, stripe: StripeSandbox) -> None:
    stripe.fault("refuse", operation=CREATE)
    sign_up(web)
    drain()
    hours_pass(stripe, 25)
    stripe.fault("lose", operation=CREATE)
    drain_to_the_end()
    assert len(stripe.objects("customer")) == 1
    customer = one("SELECT id FROM customers")
    keys = [request["key"] for request in stripe.requests(CREATE)]
    assert keys == [f"customer:{customer}:1", f"customer:{customer}:2", f"customer:{customer}:2"]


def test_the_look_finds_the_right_one_of_many_with_the_same_address(web: FlaskClient, stripe: StripeSandbox) -> None:
    stripe.fault("lose", operation=CREATE)
    sign_up(web)
    drain()
    [ours] = stripe.objects("customer")
    for _ in range(120):  # more than a page
        make_in_stripe(stripe, email="jane@example.com")
    make_in_stripe(stripe, email="jane@example.com", metadata={"customer_id": "999999"})
    hours_pass(stripe, 25)
    drain_to_the_end()
    assert stripe_customer() == ours["id"]


def test_a_look_that_fails_is_tried_again_and_nothing_is_sent_meanwhile(
    web: FlaskClient, stripe: StripeSandbox
) -> None:
    stripe.fault("lose", operation=CREATE)
    sign_up(web)
    drain()
    hours_pass(stripe, 25)
    stripe.fault("status", operation="GET /v1/customers", status=500, count=3)
    stripe.fault("refuse", operation="GET /v1/customers", count=2)
    drain_to_the_end()
    assert len(stripe.requests(CREATE)) == 1
    assert len(stripe.objects("customer")) == 1


# 4: Stripe replays a stored 500


def test_a_stored_500_is_not_asked_for_for_ever(web: FlaskClient, stripe: StripeSandbox) -> None:
    stripe.fault("status", operation=CREATE, status=500, when="after")
    answer = sign_up(web)
    drain_to_the_end(rounds=10)
    assert progress(web, answer)["status"] == "provisioned"
    [theirs] = stripe.objects("customer")
    assert stripe_customer() == theirs["id"]
    assert len({request["key"] for request in stripe.requests(CREATE)}) <= 2
    assert job("create_stripe_customer")["attempts"] == 1


# 5: parameters cannot change under a key


def test_parameters_stay_as_they_were_first_sent(web: FlaskClient, stripe: StripeSandbox) -> None:
    stripe.fault("lose", operation=CREATE)
    sign_up(web)
    drain()
    sql("UPDATE customers SET name = 'Jane Smith', email = 'smith@example.com'")
    answer = sign_up(web, email="JANE@example.com", name="Another Name")
    drain_to_the_end()
    assert progress(web, answer)["status"] == "provisioned"
    [theirs] = stripe.objects("customer")
    assert (theirs["name"], theirs["email"]) == ("Jane Doe", "jane@example.com")
    assert {request["status"] for request in stripe.requests(CREATE)} == {None, 200}
    assert len({str(request["params"]) for request in stripe.requests(CREATE)}) == 1


def test_the_database_refuses_to_change_what_was_frozen(web: FlaskClient) -> None:
    sign_up(web)
    drain()
    with pytest.raises(Exception, match="frozen"):
        sql("UPDATE external_calls SET parameters = '{}'")


# 6: storms


@pytest.mark.parametrize(
    "storm",
    [
        {"kind": "status", "status": 409},
        {"kind": "status", "status": 429},
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 502},
        {"kind": "status", "status": 503},
        {"kind": "lock_timeout"},
        {"kind": "refuse"},
    ],
    ids=lambda storm: f"{storm['kind']} {storm.get('status', '')}".strip(),
)
def test_a_storm_burns_no_attempts_and_the_customer_is_made_after_it(
    web: FlaskClient, stripe: StripeSandbox, storm: dict[str, str]
) -> None:
    stripe.fault(storm["kind"], operation=CREATE, count=30, **{k: v for k, v in storm.items() if k != "kind"})
    answer = sign_up(web)
    for _ in range(25):
        drain()
        time_passes()
    waiting = job("create_stripe_customer")
    assert (waiting["state"], waiting["attempts"]) == ("queued", 0)
    assert waiting["error"]["kind"] == "unavailable"
    drain_to_the_end()
    assert progress(web, answer)["status"] == "provisioned"
    assert job("create_stripe_customer")["attempts"] == 1
    assert len(stripe.objects("customer")) == 1


def wait() -> float:
    """Try, and return the seconds until the next try; they pass."""
    drain()
    seconds = one(
        "SELECT extract(epoch FROM run_at - clock_timestamp())::float8 FROM jobs WHERE name = 'create_stripe_customer'"
    )
    time_passes()
    return float(seconds)


@pytest.mark.usefixtures("real_backoff")
def test_the_wait_in_a_storm_grows_to_minutes_and_no_further(web: FlaskClient, stripe: StripeSandbox) -> None:
    stripe.fault("status", operation=CREATE, status=503, count=None)
    sign_up(web)
    waits = [wait() for _ in range(12)]
    assert waits[0] < 10 < waits[-1]
    assert max(waits) < 130


def test_the_wait_is_no_shorter_than_stripe_asks_for(web: FlaskClient, stripe: StripeSandbox) -> None:
    stripe.fault("status", operation=CREATE, status=429, retry_after=77)
    sign_up(web)
    assert wait() > 70


def test_the_errors_of_stripe_are_on_record_without_what_was_sent(web: FlaskClient, stripe: StripeSandbox) -> None:
    stripe.fault("status", operation=CREATE, status=503)
    sign_up(web)
    drain_to_the_end()
    first = job("create_stripe_customer")["history"][0]
    assert (first["outcome"], first["error_kind"]) == ("busy", "unavailable")
    assert re.fullmatch(r"Stripe answered 503 APIError \(req_\w+\)", first["error_message"])
    assert "jane" not in str(first)


def test_a_key_that_stripe_refuses_waits_for_ops_and_is_no_permanent_error(
    web: FlaskClient, stripe: StripeSandbox, configure: Callable[..., None]
) -> None:
    configure(STRIPE_SECRET_KEY="nonsense")
    answer = sign_up(web)
    drain()
    assert job("create_stripe_customer")["state"] == "retrying"
    configure(STRIPE_SECRET_KEY="sk_test_tallyhook")
    drain_to_the_end()
    assert progress(web, answer)["status"] == "provisioned"
    assert len(stripe.objects("customer")) == 1


@pytest.fixture
def login_page() -> Iterator[str]:
    """A proxy in between that answers every request with a page of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            page = b"<html>Please log in to the hotel's network</html>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_answer_that_is_not_stripes_leaves_the_outcome_unknown_and_is_asked_again(
    web: FlaskClient, stripe: StripeSandbox, login_page: str, configure: Callable[..., None]
) -> None:
    configure(STRIPE_API_BASE=login_page)
    answer = sign_up(web)
    drain()
    assert job("create_stripe_customer")["state"] in ("queued", "retrying")
    configure(STRIPE_API_BASE=stripe.url)
    drain_to_the_end()
    assert progress(web, answer)["status"] == "provisioned"


# 39: a finished job that comes again


def test_finished_steps_are_not_requeued_and_done_again_they_change_nothing(
    web: FlaskClient, stripe: StripeSandbox, mailbox: Mailbox
) -> None:
    answer = sign_up(web)
    drain()
    before = sql("SELECT * FROM customers"), sql("SELECT * FROM api_keys"), stripe.objects("customer")
    # What `jobs requeue` refuses, forced: as if the ledger had forgotten that they were done.
    sql("ALTER TABLE jobs DISABLE TRIGGER job_moves")
    try:
        sql(
            "UPDATE jobs SET state = 'queued', spared = attempt, finished_at = NULL"
            " WHERE name IN ('create_customer', 'create_stripe_customer', 'issue_api_key')"
        )
    finally:
        sql("ALTER TABLE jobs ENABLE TRIGGER job_moves")
    drain_to_the_end()
    assert (sql("SELECT * FROM customers"), sql("SELECT * FROM api_keys"), stripe.objects("customer")) == before
    assert len(mailbox.mails()) == 1
    assert count("jobs") == 4
    assert set(states(progress(web, answer)).values()) == {"succeeded"}


def make_in_stripe(stripe: StripeSandbox, **params: object) -> None:
    """A customer that somebody else makes, such as a colleague in Stripe's dashboard."""
    import stripe as sdk

    client = sdk.StripeClient("sk_test_x", base_addresses={"api": stripe.url})
    client.v1.customers.create(params)
