"""`tallyhook check` and the settings: what cannot work is said before it is needed, and no secret with it."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from app.sandbox.stripe import StripeSandbox
from app.settings import SettingsError, get_settings
from tests.conftest import closed_port, free_port
from tests.system.test_cli import GOOD, run


class _Mails:
    def authenticate(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        assert isinstance(given, LoginPassword)
        return AuthResult(success=given.password == b"verysecret", handled=False)


@pytest.fixture
def mail_port() -> Iterator[int]:
    """A mail server that wants the password `verysecret`, of whoever gives one."""
    mails = _Mails()
    controller = Controller(
        mails, hostname="127.0.0.1", port=free_port(), authenticator=mails.authenticate, auth_require_tls=False
    )
    controller.start()
    yield int(controller.port)
    controller.stop()


def check(**settings: str) -> tuple[int, Any]:
    """The command's exit status and what it prints as JSON."""
    done = run("check", "--json", **settings)
    return done.returncode, json.loads(done.stdout)


# connections


def test_a_stripe_that_is_away_is_told_in_a_line() -> None:
    status, found = check(STRIPE_API_BASE=f"http://127.0.0.1:{closed_port()}")
    assert status == 1
    [line] = found["problems"]
    assert line.startswith("STRIPE_API_BASE: Stripe cannot be reached")


def test_a_key_that_stripe_does_not_know_is_told_in_a_line_and_not_shown() -> None:
    status, found = check(STRIPE_SECRET_KEY="rk_nothing_verysecret")
    assert status == 1
    [line] = found["problems"]
    assert line.startswith("STRIPE_SECRET_KEY: Stripe does not take this key")
    assert "verysecret" not in json.dumps(found)


def test_check_changes_nothing_at_stripe(stripe: StripeSandbox) -> None:
    assert run("check").returncode == 0
    assert {request["method"] for request in stripe.requests()} == {"GET"}


def test_a_mail_server_that_is_away_is_told_in_a_line() -> None:
    port = closed_port()
    status, found = check(MAIL_URL=f"smtp://jane:verysecret@127.0.0.1:{port}")
    assert status == 1
    assert found["problems"] == [f"MAIL_URL: the mail server 127.0.0.1:{port} cannot be reached: Connection refused"]


def test_a_mail_server_that_answers_is_well(mail_port: int) -> None:
    for who in ("", "jane:verysecret@"):
        status, found = check(MAIL_URL=f"smtp://{who}127.0.0.1:{mail_port}")
        assert (status, found["problems"]) == (0, [])


def test_a_log_in_that_the_mail_server_refuses_is_told_without_its_password(mail_port: int) -> None:
    done = run("check", MAIL_URL=f"smtp://jane:verysecretwrong@127.0.0.1:{mail_port}")
    assert done.returncode == 1
    assert "MAIL_URL: the mail server" in done.stdout
    assert "refused our log-in" in done.stdout
    assert "verysecret" not in done.stdout + done.stderr


def test_a_mail_folder_that_cannot_be_written_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    status, found = check(MAIL_URL=f"file://{tmp_path / 'taken'}")
    assert status == 1
    [line] = found["problems"]
    assert line.startswith("MAIL_URL: the folder of MAIL_URL cannot be written")


# what is shown


def test_every_setting_is_shown_and_no_secret(mail_port: int) -> None:
    secrets = {
        "STRIPE_SECRET_KEY": "sk_test_verysecret1",
        "STRIPE_WEBHOOK_SECRETS": "whsec_verysecret2,verysecret3",
        "MAIL_URL": f"smtp://jane:verysecret@127.0.0.1:{mail_port}",
        "SECRET_KEYS": "verysecret5,verysecret6",
        "OPS_TOKEN": "verysecret7",
    }
    done = run("check", **secrets)
    assert (done.returncode, done.stderr) == (0, "")
    assert "verysecret" not in done.stdout
    status, found = check(**secrets)
    assert status == 0
    assert {row["setting"] for row in found["settings"]} >= {"DATABASE_URL", "BILLING_ENABLED", *secrets}
    assert "verysecret" not in json.dumps(found)


def test_production_lacks_nothing_with_all_that_it_needs(mail_port: int) -> None:
    status, found = check(**GOOD | {"MAIL_URL": f"smtp://127.0.0.1:{mail_port}"})
    assert (status, found["problems"]) == (0, [])


LOCAL = {"SECRET_KEYS": "", "OPS_TOKEN": "", "MAIL_URL": "", "BASE_URL": ""}


def test_what_up_embedded_and_made_does_not_count_for_production(tmp_path: Path) -> None:
    embedded = ("DATABASE_URL", "REDIS_URL", "STRIPE_SECRET_KEY", "STRIPE_API_BASE", "STRIPE_WEBHOOK_SECRETS")
    (tmp_path / "embedded.env").write_text("".join(f"{name}='{os.environ[name]}'\n" for name in embedded))
    status, found = check(TALLYHOOK_HOME=str(tmp_path), **LOCAL, **dict.fromkeys(embedded, ""))
    assert status == 0, found["problems"]
    needed = {*embedded, *LOCAL} - {"STRIPE_API_BASE"}
    assert {line.split(" is not set: production needs")[0] for line in found["production_lacks"]} == needed
    came = {row["setting"]: row["from"] for row in found["settings"]}
    assert {came[name] for name in embedded} == {"embedded"}
    assert (came["SECRET_KEYS"], came["OPS_TOKEN"], came["MAIL_URL"]) == ("made here",) * 3
    assert (came["BASE_URL"], came["TALLYHOOK_HOME"]) == ("default", "environment")


def test_values_are_shown_as_they_are_written() -> None:
    _, found = check(SECRET_KEYS="first,second", MARKETPLACE_PLANS="435=teams,7=payg", BILLING_ENABLED="0")
    shown = {row["setting"]: row["value"] for row in found["settings"]}
    assert shown["SECRET_KEYS"] == "**********,**********"
    assert shown["MARKETPLACE_PLANS"] == "435=teams,7=payg"
    assert shown["BILLING_ENABLED"] == "false"
    assert shown["BASE_URL"] is None


# addresses


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        *(
            ("BASE_URL", value, "BASE_URL: must be http:// or https:// and a host")
            for value in ("ftp:bogus", "ftp://x", "https://", "billing.example.com", "http://x:y")
        ),
        *(
            ("MAIL_URL", value, "MAIL_URL: must begin with smtp://, smtps:// or file:///")
            for value in ("gopher://hunter2", "hunter2", "smtp:hunter2@x", "file://mail")
        ),
        ("STRIPE_API_BASE", "https://", "STRIPE_API_BASE: must be http:// or https:// and a host"),
        ("DATABASE_URL", "hunter2", "DATABASE_URL: must begin with postgresql://"),
    ],
)
def test_an_address_that_cannot_work_is_refused_in_a_line(
    configure: Callable[..., None], setting: str, value: str, says: str
) -> None:
    configure(**{setting: value})
    with pytest.raises(SettingsError) as refused:
        get_settings()
    [line] = refused.value.problems
    assert line.startswith(says)
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("BASE_URL", "http://localhost:8000/billing/"),
        ("BASE_URL", "https://[::1]"),
        ("MAIL_URL", "smtps://jane:p%40ss@mail.example.com"),
    ],
)
def test_an_address_that_can_work_is_taken(configure: Callable[..., None], setting: str, value: str) -> None:
    configure(**{setting: value})
    assert setting.lower() in get_settings().model_fields_set


def test_production_refuses_a_folder_for_mails(configure: Callable[..., None]) -> None:
    configure(TALLYHOOK_ENV="production", MAIL_URL="file:///tmp/x")
    assert "MAIL_URL is a folder: production needs a mail server (smtp://… or smtps://…)" in get_settings().problems()
