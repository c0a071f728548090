"""Law 6. Its key derives from what it is for, never from the attempt; its parameters are frozen; no transaction is
open across the network. More of Stripe's bad days is in tests/system/test_stripe_failures.py."""

import pytest

from app.contracts.provisioning import CreateStripeCustomer
from app.customers import accounts
from app.db import transaction
from app.ledger.enqueue import enqueue
from app.ledger.executor import Executor
from app.sandbox.stripe import StripeSandbox
from app.stripe import calls
from tests.conftest import wait_until
from tests.ledger.scene import sql, time_passes
from tests.system.scene import during

CREATE = "POST /v1/customers"


@pytest.fixture
def customer_id(stripe: StripeSandbox) -> int:
    """A customer whose step at Stripe is due."""
    import jobs  # noqa: F401  (registers the handlers)

    with transaction() as db:
        made = accounts.create(db, email="ada@example.com", name="Ada", wanted_plan="trial", source="direct")
        signup = "01900000-0000-7000-8000-000000000001"
        enqueue(db, CreateStripeCustomer.model_validate({"signup_id": signup, "customer_id": made}))
    return made


def _attempt() -> None:
    time_passes()
    Executor([]).drain("provisioning")


def _sent(stripe: StripeSandbox) -> list[str | None]:
    return [entry["key"] for entry in stripe.requests(CREATE)]


def test_every_attempt_sends_the_same_key_and_the_frozen_parameters(stripe: StripeSandbox, customer_id: int) -> None:
    stripe.fault("lose", operation=CREATE, count=2)
    _attempt()
    sql("UPDATE customers SET name = 'Countess', email = 'countess@example.com'")
    _attempt()
    _attempt()
    assert _sent(stripe) == [f"customer:{customer_id}:1"] * 3
    [made] = stripe.objects("customer")
    assert (made["name"], made["email"]) == ("Ada", "ada@example.com")
    assert sql("SELECT stripe_customer_id FROM customers") == [(made["id"],)]


def test_the_database_itself_keeps_the_parameters_frozen(stripe: StripeSandbox, customer_id: int) -> None:
    _attempt()
    with pytest.raises(Exception, match="frozen"):
        sql("UPDATE external_calls SET parameters = '{}'")


def test_after_23_hours_it_looks_before_it_sends_again(stripe: StripeSandbox, customer_id: int) -> None:
    stripe.fault("lose", operation=CREATE)
    _attempt()
    sql("UPDATE external_calls SET first_sent_at = first_sent_at - make_interval(secs => %(s)s)", s=calls.LOOK_FIRST_S)
    stripe.advance(25 * 3600)
    _attempt()
    assert _sent(stripe) == [f"customer:{customer_id}:1"]
    assert len(stripe.objects("customer")) == 1
    assert sql("SELECT stripe_customer_id IS NOT NULL FROM customers") == [(True,)]


def test_no_transaction_is_open_while_stripe_is_asked(stripe: StripeSandbox, customer_id: int) -> None:
    def look() -> None:
        wait_until(lambda: open_transactions() == 0, what="no open transaction")
        assert sql("SELECT state FROM jobs WHERE name = 'create_stripe_customer'") == [("running",)]

    def open_transactions() -> int:
        [[found]] = sql(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
            " AND backend_type = 'client backend'"
        )
        return int(found)

    during(stripe, CREATE, _attempt, look)
