"""Secrets and addresses do not reach what the ledger shows."""

from tests.ledger.commands import OPAQUE_SECRET, Act
from tests.ledger.scene import drain, show, sql, submit

_LEAKED = (
    "rsolv_abcdefghijklmnop",
    "sk_live_51Habcdefgh",
    "whsec_abcdef12345",
    "4242 4242",
    "ada.lovelace",
    "hunter2",
    "abcdefgh12345678",
)


def test_an_exception_s_secrets_and_addresses_are_redacted_in_history_and_in_the_tables() -> None:
    [job_id] = submit(Act(n=1, acts=("leak",)))
    drain()
    [attempt] = show(job_id)["history"]
    assert "RuntimeError" in attempt["error_message"]
    assert "a***@example.com" in attempt["error_message"]
    assert "Traceback" in attempt["traceback"]
    stored = str(sql("SELECT jobs::text, a::text FROM jobs JOIN job_attempts a ON a.job_id = jobs.id"))
    for secret in _LEAKED:
        assert secret not in stored


def test_the_parameters_of_a_failed_statement_are_not_in_the_history() -> None:
    """A sealed key or a name in a statement's parameters has no form that a pattern could know."""
    [job_id] = submit(Act(n=1, acts=("break_a_constraint",)))
    drain()
    [attempt] = show(job_id)["history"]
    assert "NotNullViolation" in attempt["error_message"]
    stored = str(sql("SELECT jobs::text, a::text FROM jobs JOIN job_attempts a ON a.job_id = jobs.id"))
    assert OPAQUE_SECRET not in stored
