"""How requests are refused, repeated, dropped and slowed down."""

import http.client
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import stripe

from app.sandbox.stripe import SandboxControl, SandboxRefused, StripeSandbox, wait_until

CREATE = "POST /v1/customers"


def keyed(key):
    return {"idempotency_key": key}


def test_a_wrong_key_is_401(connect):
    with pytest.raises(stripe.AuthenticationError, match="Invalid API Key"):
        connect("pk_test_1").v1.customers.list()


def test_a_missing_object_is_404_with_its_param(api):
    with pytest.raises(stripe.InvalidRequestError) as refused:
        api.customers.retrieve("cus_missing")
    assert (refused.value.http_status, refused.value.code, refused.value.param) == (404, "resource_missing", "id")


@pytest.mark.parametrize(
    ("params", "code", "param"),
    [
        ({"emial": "a@example.com"}, "parameter_unknown", "emial"),
        ({"invoice_settings": {"foot": "x"}}, "parameter_unknown", "invoice_settings[foot]"),
        ({"balance": "much"}, "parameter_invalid_integer", "balance"),
    ],
)
def test_a_wrong_parameter_is_400_with_its_name(connect, sandbox, params, code, param):
    # Past the conformance hook, which would call these requests wrong as well.
    with pytest.raises(stripe.InvalidRequestError) as refused:
        connect().v1.customers.create(params)
    assert (refused.value.http_status, refused.value.code, refused.value.param) == (400, code, param)


def test_a_missing_parameter_is_400_with_its_name(api):
    with pytest.raises(stripe.InvalidRequestError) as refused:
        api.webhook_endpoints.create({"enabled_events": ["*"]})
    assert (refused.value.code, refused.value.param) == ("parameter_missing", "url")


def test_a_limit_over_100_is_refused(api):
    with pytest.raises(stripe.InvalidRequestError, match="less than or equal to 100"):
        api.customers.list({"limit": 101})


def test_an_unknown_path_is_404(connect):
    with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL"):
        connect().raw_request("get", "/v1/unheard_of")


def test_answers_name_their_request_and_version(api):
    answer = api.customers.create().last_response
    assert answer.headers["request-id"].startswith("req_")
    assert answer.headers["stripe-version"] == "2026-10-28.endive"


def test_a_key_answers_again_with_the_first_result(api, sandbox):
    first = api.customers.create({"email": "a@example.com"}, keyed("k"))
    again = api.customers.create({"email": "a@example.com"}, keyed("k"))
    assert again.id == first.id
    assert again.last_response.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.last_response.headers
    assert len(sandbox.objects("customer")) == 1
    assert [entry["replayed"] for entry in sandbox.requests(CREATE, key="k")] == [False, True]


def test_a_key_with_other_parameters_or_another_path_is_refused(api):
    customer = api.customers.create({"email": "a@example.com"}, keyed("k"))
    with pytest.raises(stripe.IdempotencyError):
        api.customers.create({"email": "b@example.com"}, keyed("k"))
    with pytest.raises(stripe.IdempotencyError):
        api.customers.update(customer.id, {"email": "a@example.com"}, keyed("k"))
    assert api.customers.create({"email": "a@example.com"}, keyed("k")).id == customer.id


def test_a_key_is_forgotten_after_24_hours(api, sandbox):
    first = api.customers.create({}, keyed("k"))
    sandbox.advance(23 * 3600)
    assert api.customers.create({}, keyed("k")).id == first.id
    sandbox.advance(3601)
    assert api.customers.create({"email": "other@example.com"}, keyed("k")).id != first.id


def test_a_key_of_live_mode_is_another_key(api, connect):
    assert api.customers.create({}, keyed("k")).id != connect("sk_live_1").v1.customers.create({}, keyed("k")).id


def test_a_key_in_use_is_409(api, connect, sandbox):
    sandbox.fault("delay", operation=CREATE, ms=15_000)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(api.customers.create, {}, keyed("k"))
        wait_until(lambda: [entry["fault"] for entry in sandbox.requests(CREATE)] == ["delay"], 30)
        with pytest.raises(stripe.APIError) as refused:
            connect().v1.customers.create({}, keyed("k"))
        sandbox.clear_faults()
    assert (refused.value.http_status, refused.value.error.code) == (409, "idempotency_key_in_use")
    assert api.customers.create({}, keyed("k")).id == slow.result().id


def test_a_refused_parameter_leaves_the_key_free(api):
    with pytest.raises(stripe.InvalidRequestError):
        api.customers.create({"unheard_of": 1}, keyed("k"))
    assert api.customers.create({}, keyed("k")).object == "customer"


def test_what_is_missing_is_remembered_by_the_key(api):
    for _ in range(2):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            api.customers.update("cus_missing", {}, keyed("k"))
    assert refused.value.headers["idempotent-replayed"] == "true"


def test_refuse_drops_the_connection_and_does_nothing(api, sandbox):
    sandbox.fault("refuse", operation=CREATE, count=2)
    for _ in range(2):
        with pytest.raises(stripe.APIConnectionError):
            api.customers.create()
    assert sandbox.objects("customer") == []
    api.customers.create()
    assert [entry["status"] for entry in sandbox.requests(CREATE)] == [None, None, 200]
    assert sandbox.faults() == []


def test_lose_does_it_and_drops_the_answer_which_the_key_still_has(api, sandbox):
    sandbox.fault("lose", operation=CREATE)
    with pytest.raises(stripe.APIConnectionError):
        api.customers.create({}, keyed("k"))
    (made,) = sandbox.objects("customer")
    assert api.customers.create({}, keyed("k")).id == made["id"]


def test_a_status_before_the_work_is_not_remembered(api, sandbox):
    for status in (409, 500, 503):
        sandbox.fault("status", operation=CREATE, status=status)
        with pytest.raises(stripe.APIError) as failed:
            api.customers.create({}, keyed("k"))
        assert failed.value.http_status == status
    assert sandbox.objects("customer") == []
    assert api.customers.create({}, keyed("k")).object == "customer"


def test_429_says_when_and_whether_to_retry(api, sandbox):
    sandbox.fault("status", operation=CREATE, status=429, retry_after=2, should_retry=True)
    with pytest.raises(stripe.RateLimitError) as limited:
        api.customers.create()
    assert (limited.value.headers["retry-after"], limited.value.headers["stripe-should-retry"]) == ("2", "true")
    assert limited.value.error.code == "rate_limit"


def test_lock_timeout_is_429_with_its_code(api, sandbox):
    sandbox.fault("lock_timeout", operation="POST *")
    with pytest.raises(stripe.RateLimitError) as limited:
        api.customers.create()
    assert limited.value.error.code == "lock_timeout"


def test_500_after_the_work_is_what_the_key_remembers(api, sandbox):
    sandbox.fault("status", operation=CREATE, status=500, when="after")
    for _ in range(2):
        with pytest.raises(stripe.APIError) as failed:
            api.customers.create({}, keyed("k"))
        assert failed.value.http_status == 500
    assert failed.value.headers["idempotent-replayed"] == "true"
    assert len(sandbox.objects("customer")) == 1


def test_hang_outlasts_the_clients_patience(connect, sandbox):
    sandbox.fault("hang", operation=CREATE, seconds=30, when="after")
    impatient = connect(http_client=stripe.RequestsClient(timeout=0.2)).v1
    with pytest.raises(stripe.APIConnectionError):
        impatient.customers.create()
    wait_until(lambda: len(sandbox.objects("customer")) == 1, 30)  # it may not have begun when the client gave up


def test_a_fault_on_nothing_is_refused(sandbox):
    with pytest.raises(SandboxRefused, match="no operation matches"):
        sandbox.fault("refuse", operation="POST /v1/custmers")
    with pytest.raises(SandboxRefused):
        sandbox.fault("status", operation="*", status=418)
    with pytest.raises(SandboxRefused):
        sandbox.fault("refuse", event="customer.created")


def test_the_rate_limit_answers_429(api, sandbox):
    sandbox.change_settings(rate_limit=2)
    api.customers.list()
    api.customers.list()
    with pytest.raises(stripe.RateLimitError):
        api.customers.list()
    sandbox.change_settings(rate_limit=None)
    api.customers.list()


def test_the_sdks_own_retries_make_one_customer(connect, sandbox):
    sandbox.fault("lose", operation=CREATE)
    connect(max_network_retries=2).v1.customers.create()
    assert len(sandbox.objects("customer")) == 1


def test_64_connections_at_once(sandbox):
    together = threading.Barrier(64)

    def ask(_):
        connection = http.client.HTTPConnection(sandbox.url.removeprefix("http://"), timeout=60)
        connection.connect()
        together.wait(60)
        connection.request("GET", "/v1/customers", headers={"Authorization": "Bearer sk_test_1"})
        status = connection.getresponse().status
        connection.close()
        return status

    with ThreadPoolExecutor(64) as pool:
        assert set(pool.map(ask, range(64))) == {200}


def test_reset_makes_it_as_it_was_at_first(api, sandbox):
    api.customers.create({}, keyed("k"))
    sandbox.fault("refuse", operation="*", count=None)
    sandbox.advance(10_000)
    started_with = sandbox.settings()
    sandbox.change_settings(search_lag_s=0)
    sandbox.reset()
    assert sandbox.objects("customer") == []
    assert sandbox.settings() == started_with
    assert sandbox.requests() == []
    assert api.customers.create({"name": "again"}, keyed("k")).name == "again"


def test_a_stopped_sandbox_ends_its_connections_and_refuses_new_ones():
    with StripeSandbox() as sandbox:
        address = sandbox.url.removeprefix("http://")
        connection = http.client.HTTPConnection(address, timeout=5)
        connection.request("GET", "/v1/customers", headers={"Authorization": "Bearer sk_test_1"})
        connection.getresponse().read()
        kept = connection.sock
    assert kept.recv(1) == b""
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(address, timeout=5).connect()


@contextmanager
def process_with(data):
    """The sandbox as a process of its own; ends it where the test did not."""
    command = [sys.executable, "-m", "app.sandbox.stripe", "--port", "0", "--data", str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().removeprefix("Stripe sandbox: ").strip()
            client = stripe.StripeClient("sk_test_1", base_addresses={"api": url}, max_network_retries=0)
            yield process, client.v1, SandboxControl(url)
        finally:
            process.kill()


def test_the_process_keeps_its_state_over_sigkill(tmp_path):
    with process_with(tmp_path / "stripe.db") as (process, api, control):
        control.fault("lose", operation=CREATE)
        with pytest.raises(stripe.APIConnectionError):
            api.customers.create({"name": "Ada"}, keyed("k"))
        moved = control.advance(5000)
        process.kill()
    with process_with(tmp_path / "stripe.db") as (process, api, control):
        customer = api.customers.create({"name": "Ada"}, keyed("k"))
        assert customer.last_response.headers["idempotent-replayed"] == "true"
        assert [found.id for found in api.customers.list().data] == [customer.id]
        assert moved <= control.now() < moved + 60
        process.terminate()
        assert process.wait(30) == 0


def test_a_restart_elsewhere_moves_the_default_endpoint(tmp_path):
    for port in (1, 2):
        address = f"http://127.0.0.1:{port}/webhooks/stripe"
        with StripeSandbox(data=tmp_path / "stripe.db", webhook_url=address) as sandbox:
            client = stripe.StripeClient("sk_test_1", base_addresses={"api": sandbox.url})
            assert [endpoint.url for endpoint in client.v1.webhook_endpoints.list().data] == [address]
