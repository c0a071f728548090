"""Law 11. Money is an integer of cents with a currency; usage and charges are append-only entries, whose sum is what
is so, and a correction is a new entry. That Stripe agrees is in tests/system/test_billing_machine.py."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

import app.contracts
from app.billing import charges, fixes
from app.billing.periods import period_at
from app.billing.tables import usage_entries
from app.contracts.billing import RefundCharge
from app.customers import accounts
from app.db import transaction
from app.money import dollars
from app.ops.cli import cli
from app.phases import results
from app.settings import SettingsError, load_settings
from tests.conftest import ROOT
from tests.ledger.scene import sql

PRICES = ["PAYG_FIX_CENTS", "TEAMS_MONTH_CENTS", "TEAMS_OVERAGE_CENTS"]

ENTRIES = ["fixes", "usage_entries", "charge_entries", "overage_entries"]


def a_fix(plan: str) -> tuple[int, int]:
    """A customer and a fix of theirs that was counted under `plan`."""
    with transaction() as db:
        email = f"ada{len(sql('SELECT 1 FROM customers'))}@example.com"
        customer = accounts.create(db, email=email, name="Ada", wanted_plan="trial", source="direct")
        result = results.NewResult(
            phase="mitigation", status="success", repo="o/r", issue_number=1, commit_sha="c", fix_id=None, data={}
        )
        received = results.receive(customer, result)
        results.store(db, [received])
        fix = fixes.deployed(db, received.id)
        period = period_at(db, customer, plan, fix.accepted_at)
        assert period is not None
        return customer, fixes.count(db, fix, plan, period, fixes.judge(db, customer, plan, period))


def a_paid_charge() -> int:
    """A charge of 1500 cents that was taken."""
    customer, fix = a_fix("payg")
    with transaction() as db:
        charge = charges.open_charge(db, fix, customer, 1500)
        charges.keep_intent(db, charge, f"pi_{charge}")
        charges.succeed(db, charges.get(db, charge), f"pi_{charge}")
    return charge


def kept(charge: int) -> int:
    """What is with us of a charge, by its entries."""
    return int(sql("SELECT sum(amount_cents) FROM charge_entries WHERE charge_id = %(id)s", id=charge)[0][0])


@pytest.mark.parametrize("value", ["15.5", "0.1", "$15", "nan", "-1"])
@pytest.mark.parametrize("name", PRICES)
def test_a_price_that_is_no_number_of_cents_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        load_settings()


@pytest.mark.parametrize("cents", [0.5, 14.99, "5.5", float("inf"), float("nan")])
def test_a_job_takes_no_part_of_a_cent(cents: Any) -> None:
    with pytest.raises(ValidationError):
        RefundCharge(customer_id=1, charge_id=1, cents=cents, number=1)


def test_an_operator_can_refund_no_part_of_a_cent() -> None:
    charge = a_paid_charge()
    done = CliRunner().invoke(cli, ["customers", "refund", "1", "--cents", "9.99", "--why", "kind"])
    assert done.exit_code == 2
    assert kept(charge) == 1500


def test_whatever_crosses_a_boundary_has_its_cents_as_integers() -> None:
    found = 0
    for module in pkgutil.iter_modules(app.contracts.__path__, "app.contracts."):
        for _, model in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if not issubclass(model, BaseModel):
                continue
            for name, kind in get_type_hints(model).items():
                if "cents" in name:
                    found += 1
                    assert kind is int or set(get_args(kind)) <= {int, type(None)}, f"{model.__name__}.{name}: {kind}"
    assert found > 5


def test_every_column_of_cents_is_an_integer_and_every_charge_and_invoice_has_its_currency() -> None:
    columns = sql(
        "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns"
        " WHERE table_schema = 'public'"
    )
    assert {row.data_type for row in columns if row.column_name.endswith("_cents")} == {"bigint"}
    currencies = {row.table_name for row in columns if row.column_name == "currency" and row.is_nullable == "NO"}
    assert currencies == {"charges", "invoices"}
    assert {row.data_type for row in columns} & {"money", "numeric", "real", "double precision"} == set()


def test_nothing_of_billing_divides_money_or_makes_a_float_of_it() -> None:
    """Half a cent cannot come about where there is no division."""
    files = [*(ROOT / "app" / "billing").rglob("*.py"), *(ROOT / "jobs").glob("*.py"), ROOT / "app" / "money.py"]
    for file in files:
        for node in ast.walk(ast.parse(Path(file).read_text())):
            assert not isinstance(node, ast.Div), file
            assert not (isinstance(node, ast.Name) and node.id in ("float", "Decimal", "round")), file


@given(st.integers(-(10**12), 10**12))
def test_what_a_reader_sees_is_the_cents_exactly(cents: int) -> None:
    shown = dollars(cents)
    assert int(shown.replace("$", "").replace(",", "").replace(".", "")) == cents
    assert shown[-3] == "."


@pytest.mark.parametrize("table", ENTRIES)
@pytest.mark.parametrize("forge", ["UPDATE {} SET customer_id = customer_id", "DELETE FROM {}"])
def test_entries_cannot_be_changed_or_taken_away(table: str, forge: str) -> None:
    customer, _ = a_fix("trial")
    a_paid_charge()
    sql(
        "INSERT INTO overage_entries (customer_id, period_start, invoice_item, fixes, amount_cents)"
        " VALUES (%(id)s, clock_timestamp(), 'ii_1', 1, 800)",
        id=customer,
    )
    before = sql(f"SELECT * FROM {table} ORDER BY id")
    assert before
    if table == "charge_entries":
        forge = forge.replace("customer_id", "amount_cents")
    with pytest.raises(DBAPIError, match="append-only"):
        sql(forge.format(table))
    assert sql(f"SELECT * FROM {table} ORDER BY id") == before


@pytest.mark.parametrize(
    ("kind", "cents"),
    [("succeeded", -1500), ("refunded", 100), ("declined", 1), ("refund_failed", -1), ("accepted", 1)],
)
def test_the_database_knows_which_way_the_money_of_an_entry_goes(kind: str, cents: int) -> None:
    charge = a_paid_charge()
    with pytest.raises(DBAPIError, match="check"):
        sql(
            "INSERT INTO charge_entries (charge_id, kind, amount_cents) VALUES (%(id)s, %(kind)s, %(cents)s)",
            id=charge,
            kind=kind,
            cents=cents,
        )


def test_a_charge_is_paid_once_and_a_refund_made_once() -> None:
    charge = a_paid_charge()
    with pytest.raises(DBAPIError, match="charge_entries_paid_once"), transaction() as db:
        charges.succeed(db, charges.get(db, charge), "pi_other")
    fix = sql("SELECT fix_id FROM charges")[0][0]
    with transaction() as db:
        charges.ask_refund(db, fix, 500, actor="ops", reason="kind")
        charges.refund_made(db, charges.get(db, charge), number=1, cents=500, refund_id="re_1")
    with pytest.raises(DBAPIError, match="charge_entries_refund_once"), transaction() as db:
        charges.note(db, charge, "refunded", -500, refund_number=1, stripe_id="re_1")
    assert kept(charge) == 1000


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 1600), st.booleans()), max_size=5))
def test_what_was_kept_is_the_sum_of_the_entries_and_never_below_nothing(asked: list[tuple[int, bool]]) -> None:
    """Whatever is asked back, and whether it arrives or the bank sends it back to us."""
    charge = a_paid_charge()
    fix = sql("SELECT fix_id FROM charges WHERE id = %(id)s", id=charge)[0][0]
    expected = 1500
    number = 0
    for cents, arrives in asked:
        if not 0 < cents <= expected:
            with pytest.raises(charges.RefundRefused), transaction() as db:
                charges.ask_refund(db, fix, cents, actor="ops", reason="greedy")
            continue
        number += 1
        with transaction() as db:
            charges.ask_refund(db, fix, cents, actor="ops", reason="kind")
            assert charges.refundable(db, charge) == expected - cents  # also before Stripe has been asked
        with transaction() as db:
            made = charges.refund_made if arrives else charges.refund_failed
            made(db, charges.get(db, charge), number=number, cents=cents, refund_id=f"re_{charge}_{number}")
        expected -= cents if arrives else 0
        assert kept(charge) == expected
        with transaction() as db:
            assert charges.refundable(db, charge) == expected


def test_a_correction_of_usage_is_a_new_entry() -> None:
    customer, fix = a_fix("trial")
    with transaction() as db:
        start = accounts.get(db, customer).created_at
        assert fixes.used(db, customer, "trial", start) == 1
        correction = {"plan": "trial", "period_start": start, "fixes": -1, "reason": "counted by mistake"}
        db.execute(usage_entries.insert().values(customer_id=customer, fix_id=fix, **correction))
        assert fixes.used(db, customer, "trial", start) == 0
    assert sql("SELECT fixes, reason FROM usage_entries ORDER BY id") == [(1, "included"), (-1, "counted by mistake")]
    with pytest.raises(DBAPIError, match="usage_entries_once"):
        sql(
            "INSERT INTO usage_entries (customer_id, plan, period_start, fixes, fix_id, reason)"
            " SELECT customer_id, plan, period_start, 1, fix_id, reason FROM usage_entries LIMIT 1"
        )
