"""The command `tallyhook`: what interface.md says of each command, its JSON, its exit status, its error lines."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from flask.testing import FlaskClient
from typer.testing import CliRunner, Result
from werkzeug.test import TestResponse

import app.ops.cli
from app.ops.cli import cli
from app.sandbox.stripe import StripeSandbox
from app.settings import get_settings
from tests.conftest import ROOT, closed_port, free_port
from tests.processes import Processes
from tests.system.money import Customer, customer, deploy, entries
from tests.system.scene import Mailbox, count, drain, drain_to_the_end, mend, one, progress, sign_up, spoil, sql, sweep

NOBODY = "01900000-0000-7000-8000-000000000000"
LISTED = {
    "id", "name", "queue", "state", "key", "attempts", "max_attempts", "customer_id", "created_at", "run_at",
    "finished_at", "error",
}  # fmt: skip


def tallyhook(*arguments: str) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(cli, arguments)


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command as it is installed, in this process: its exit status and what it wrote to both outputs."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tallyhook", *arguments])
        with pytest.raises(SystemExit) as ended:
            app.ops.cli.main()
        written = capsys.readouterr()
        return int(ended.value.code or 0), written.out, written.err

    return call


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own; never a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "app.ops.cli", *arguments],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


def read(*arguments: str) -> Any:
    """What a command prints with --json."""
    result = tallyhook(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def recorded() -> list[tuple[Any, ...]]:
    return [tuple(row) for row in sql("SELECT action, subject, reason FROM operator_actions ORDER BY id")]


@pytest.fixture
def dead_job(web: FlaskClient, stripe: StripeSandbox) -> str:
    """The id of a `create_stripe_customer` that is dead."""
    sign_up(web)
    stripe.fault("refuse", operation="POST /v1/customers")
    drain()
    spoil()
    drain()
    mend()
    return str(one("SELECT id FROM jobs WHERE state = 'dead'"))


# jobs


def test_jobs_are_listed_newest_first_in_the_shape_of_the_interface(web: FlaskClient) -> None:
    sign_up(web)
    drain()
    listed = read("jobs", "list")
    assert [job["name"] for job in listed] == [
        "send_welcome_email", "issue_api_key", "create_stripe_customer", "create_customer"
    ]  # fmt: skip
    for job in listed:
        assert job.keys() == LISTED
        assert (job["state"], job["attempts"], job["error"]) == ("succeeded", 1, None)
        assert job["finished_at"] >= job["created_at"]
    assert {job["customer_id"] for job in listed} == {None, one("SELECT id FROM customers")}


def test_jobs_are_filtered(web: FlaskClient, dead_job: str) -> None:
    customer = str(one("SELECT id FROM customers"))

    def names(*filters: str) -> list[str]:
        return [job["name"] for job in read("jobs", "list", *filters)]

    both = ["create_stripe_customer", "create_customer"]
    assert names() == both
    assert names("--state", "dead") == both[:1]
    assert names("--name", "create_customer") == both[1:]
    assert names("--queue", "provisioning") == both
    assert names("--queue", "mail") == []
    assert names("--customer", customer) == both[:1]
    assert names("--customer", "999999") == []
    assert names("--error", "permanent") == both[:1]
    assert names("--error", "VALIDATIONERROR") == both[:1]
    assert names("--error", "100%") == []
    assert names("--since", "1h") == both
    assert names("--since", "2999-01-01") == []
    assert names("--limit", "1") == both[:1]
    assert names("--state", "dead", "--name", "create_customer") == []


def test_a_job_is_shown_with_its_history_and_who_asked_for_it(web: FlaskClient, dead_job: str) -> None:
    shown = read("jobs", "show", dead_job)
    assert shown.keys() >= LISTED | {"payload", "history", "enqueued_by"}
    assert shown["error"]["kind"] == "permanent"
    assert [attempt["outcome"] for attempt in shown["history"]] == ["busy", "dead"]
    assert shown["enqueued_by"].startswith("job:create_customer:")
    assert shown["payload"]["customer_id"] == one("SELECT id FROM customers")
    first = one("SELECT id FROM jobs WHERE name = 'create_customer'")
    assert read("jobs", "show", str(first))["enqueued_by"] == "POST /api/v1/customers"
    table = tallyhook("jobs", "show", dead_job)
    assert table.exit_code == 0
    assert "permanent" in table.stdout
    assert f"`tallyhook jobs requeue {dead_job}`" in table.stdout.splitlines()[-1]
    assert "jobs requeue" not in tallyhook("jobs", "show", str(first)).stdout


def test_a_dead_job_is_requeued_on_record_and_done(web: FlaskClient, dead_job: str, mailbox: Mailbox) -> None:
    result = tallyhook("jobs", "requeue", dead_job, "--why", "mended")
    assert (result.exit_code, result.stdout) == (0, "1 requeued.\n")
    drain_to_the_end()
    assert one("SELECT status FROM signups") == "provisioned"
    assert mailbox.mail().key
    assert [attempt["outcome"] for attempt in read("jobs", "show", dead_job)["history"]] == [
        "busy",
        "dead",
        "succeeded",
    ]
    assert recorded() == [("requeue", f"job:{dead_job}", "mended")]


def test_a_finished_job_is_not_requeued(web: FlaskClient, stripe: StripeSandbox, mailbox: Mailbox) -> None:
    sign_up(web)
    drain()
    ids = [str(i) for [i] in sql("SELECT id FROM jobs")]
    result = tallyhook("jobs", "requeue", *ids)
    assert result.exit_code == 1
    assert "0 requeued. 4 not." in result.stdout
    assert result.stderr.count("it has succeeded") == 4
    drain_to_the_end()
    assert (count("customers"), len(stripe.objects("customer")), len(mailbox.mails())) == (1, 1, 1)
    assert recorded() == []


def test_a_dry_run_says_what_it_would_do_and_does_nothing(dead_job: str) -> None:
    for which in ([dead_job], [dead_job, dead_job], ["--state", "dead"]):
        result = tallyhook("jobs", "requeue", *which, "--dry-run")
        assert result.exit_code == 0
        [_, listed, says] = result.stdout.splitlines()
        assert listed.split()[:3] == [dead_job, "create_stripe_customer", "dead"]
        assert says == "1 would be requeued. Nothing was changed."
    assert one("SELECT state FROM jobs WHERE id = %(id)s", id=dead_job) == "dead"
    assert recorded() == []


def test_all_dead_jobs_of_an_error_are_requeued_and_paced(dead_job: str) -> None:
    assert tallyhook("jobs", "requeue", "--state", "dead", "--error", "something else").stdout == "0 requeued.\n"
    result = tallyhook("jobs", "requeue", "--state", "dead", "--error", "permanent", "--name", "create_stripe_customer")
    assert (result.exit_code, result.stdout) == (0, "1 requeued.\n")


def test_a_waiting_job_is_cancelled_and_the_cancellation_taken_back(web: FlaskClient, mailbox: Mailbox) -> None:
    answer = sign_up(web)
    job = str(one("SELECT id FROM jobs"))
    assert tallyhook("jobs", "cancel", job, "--why", "a test").exit_code == 0
    drain()
    assert count("customers") == 0
    assert progress(web, answer)["status"] == "failed"
    again = tallyhook("jobs", "cancel", job)
    assert again.exit_code == 1
    assert f"job {job} cannot be cancelled: it is cancelled" in again.stderr
    assert tallyhook("jobs", "requeue", job).exit_code == 0
    drain()
    assert progress(web, answer)["status"] == "provisioned"
    too_late = tallyhook("jobs", "cancel", job)
    assert (too_late.exit_code, too_late.stderr) == (
        1, f"job {job} cannot be cancelled: it has succeeded already\n"
    )  # fmt: skip
    assert [action for action, _, _ in recorded()] == ["cancel", "requeue"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["jobs", "show", NOBODY], "there is no job"),
        (["jobs", "show", "7"], "UUID"),
        (["jobs", "list", "--state", "lost"], "lost"),
        (["jobs", "list", "--since", "yesterday"], "yesterday"),
        (["jobs", "list", "--since", ""], "--since"),
        (["jobs", "list", "--since", "99999999999d"], "--since"),
        (["jobs", "list", "--limit", "0"], "limit"),
        (["jobs", "list", "--customer", "jane"], "integer"),
        (["jobs", "list", "--customer", str(10**30)], "customer"),
        (["jobs", "requeue"], "IDs"),
        (["jobs", "requeue", "--state", "succeeded"], "dead"),
        (["jobs", "requeue", NOBODY, "--state", "dead"], "not both"),
        (["jobs", "cancel"], "ID"),
        (["jobs", "list", "--since", "[/x]"], "'[/x]'"),
        (["queues", "pause", "nowhere"], "nowhere"),
        (["queues", "pause", "x[/y]"], "'x[/y]'"),
        (["webhooks", "show", "evt_[/x]"], "evt_[/x]"),
        (["customers", "show", "x[/b]@y"], "x[/b]@y"),
        (["signups", "approve", NOBODY], "no signup"),
        (["signups", "reject", "7"], "UUID"),
        (["signups", "list", "--status", "bogus"], "failed"),
        (["jobs", "list", "--queue", "nope"], "provisioning"),
        (["jobs", "list", "--name", "create_stripe_custmer"], "create_stripe_customer"),
        (["jobs", "list", "--name", "nope"], "send_welcome_email"),
        (["jobs", "requeue", "--state", "dead", "--name", "create_stripe_custmer"], "create_stripe_customer"),
        (["jobs", "requeue", "--state", "dead", "--queue", "nope", "--dry-run"], "provisioning"),
        (["customers", "show", "9" * 20], "no customer"),
        (["customers", "show", "9" * 5000], "no customer"),
        (["customers", "refund", "9" * 20, "--why", "x"], "FIX"),
        (["nothing"], "nothing"),
    ],
    ids=lambda value: " ".join(value)[:80] if isinstance(value, list) else "",
)
def test_wrong_usage_is_told_with_status_2(
    main: Callable[..., tuple[int, str, str]], arguments: list[str], says: str
) -> None:
    status, out, err = main(*arguments)
    assert (status, out) == (2, "")
    assert says in err


def test_a_kind_of_job_that_another_release_knows_can_be_asked_for(web: FlaskClient) -> None:
    sign_up(web)
    sql("UPDATE jobs SET name = 'bill_in_euros', queue = 'treasury'")
    [job] = read("jobs", "list", "--name", "bill_in_euros", "--queue", "treasury")
    assert job["name"] == "bill_in_euros"


@pytest.mark.parametrize("command", ["requeue", "cancel"])
def test_a_job_that_is_not_there_is_neither_requeued_nor_cancelled(command: str) -> None:
    result = tallyhook("jobs", command, NOBODY)
    assert result.exit_code == 1
    assert f"there is no job {NOBODY}" in result.stderr


@pytest.mark.parametrize("options", [[], ["--dry-run"]], ids=" ".join)
def test_a_dry_run_refuses_what_the_command_refuses(web: FlaskClient, options: list[str]) -> None:
    sign_up(web)
    drain()
    done = str(one("SELECT id FROM jobs WHERE name = 'create_customer'"))
    result = tallyhook("jobs", "requeue", done, NOBODY, *options)
    assert result.exit_code == 1
    assert f"job {done} cannot be requeued: it has succeeded: doing it again would do nothing or harm" in result.stderr
    assert f"there is no job {NOBODY}" in result.stderr
    assert result.stdout.startswith("0 ")
    assert " 2 not." in result.stdout


# queues


def test_queues_are_listed_with_their_depth(web: FlaskClient, dead_job: str) -> None:
    sign_up(web, email="john@example.com")
    sign_up(web, email="jim@example.com")
    sql(
        "UPDATE jobs SET run_at = clock_timestamp() + interval '1 hour'"
        " WHERE id = (SELECT id FROM jobs ORDER BY id DESC LIMIT 1)"
    )
    queues = {queue["name"]: queue for queue in read("queues")}
    assert queues.keys() >= {"mail", "provisioning", "upkeep"}
    age = queues["provisioning"].pop("oldest_age_s")
    assert 0 <= age < 60
    assert queues["provisioning"] == {
        "name": "provisioning", "state": "active", "waiting": 1, "scheduled": 1, "running": 0, "held": 0, "dead": 1,
    }  # fmt: skip


def test_a_paused_queue_holds_its_jobs_until_it_is_resumed(web: FlaskClient) -> None:
    assert tallyhook("queues", "pause", "provisioning", "--why", "Stripe is down").exit_code == 0
    answer = sign_up(web)
    drain()
    sweep()
    drain()
    assert progress(web, answer)["status"] == "queued"
    [queue] = [queue for queue in read("queues") if queue["name"] == "provisioning"]
    assert (queue["state"], queue["held"], queue["waiting"]) == ("paused", 1, 0)
    assert "already" in tallyhook("queues", "pause", "provisioning").stdout
    assert tallyhook("queues", "resume", "provisioning").exit_code == 0
    sweep()
    drain()
    assert progress(web, answer)["status"] == "provisioned"
    assert recorded()[0] == ("pause", "queue:provisioning", "Stripe is down")
    assert recorded()[-1] == ("resume", "queue:provisioning", None)


# signups


def test_signups_that_failed_are_found(web: FlaskClient, dead_job: str) -> None:
    """As `GET /api/v1/signups/{id}` says it. `dead_job` is of the first of them."""
    cancelled, rejected, fine = (sign_up(web, email=f"{n}@example.com") for n in range(3))

    def listed(*options: str) -> list[str]:
        return [signup["email"] for signup in read("signups", "list", *options)]

    key = f"signup:{id_of(cancelled)}:create_customer"
    assert tallyhook("jobs", "cancel", str(one("SELECT id FROM jobs WHERE key = %(key)s", key=key))).exit_code == 0
    sql("UPDATE signups SET status = 'awaiting_approval' WHERE id = %(id)s", id=id_of(rejected))
    assert tallyhook("signups", "reject", id_of(rejected)).exit_code == 0
    drain()
    assert listed("--status", "failed") == ["0@example.com", "jane@example.com"]
    assert listed("--status", "rejected") == ["1@example.com"]
    assert listed("--status", "provisioned") == ["2@example.com"]
    assert listed("--status", "provisioning") == listed("--status", "queued") == []
    shown = {signup["signup_id"]: signup["status"] for signup in read("signups", "list")}
    for answer in (cancelled, rejected, fine):
        assert progress(web, answer)["status"] == shown[id_of(answer)]


def id_of(accepted: TestResponse) -> str:
    return str(accepted.json["signup_id"])


@pytest.mark.parametrize(
    "name",
    [
        "Eve [/bold] [bold]X[/bold] [link=https://eve.example]y :key: [redacted]",
        "\u5c71\u7530\u3000\u592a\u90ce",  # parted by a wide space
        "\u0639\u0644\u06cc\u200c\u0631\u0636\u0627",  # joined by what has no width
    ],
    ids=ascii,
)
def test_what_a_stranger_calls_themselves_is_shown_as_it_is(web: FlaskClient, name: str) -> None:
    assert sign_up(web, name=name).status_code == 202
    drain()
    for command in (["signups", "list"], ["customers", "show", str(one("SELECT id FROM customers"))]):
        shown = tallyhook(*command)
        assert shown.exit_code == 0, shown.exception
        assert name in shown.stdout


def test_a_name_kept_from_before_does_nothing_to_the_terminal(web: FlaskClient) -> None:
    sign_up(web)
    drain()
    for table in ("signups", "customers"):
        sql(f"UPDATE {table} SET name = %(name)s", name="\x1b[2J\x1b]0;owned\x07\x9b\u202e!")
    for command in (["signups", "list"], ["customers", "show", str(one("SELECT id FROM customers"))]):
        shown = tallyhook(*command).stdout
        assert r"\x1b[2J\x1b]0;owned\x07\x9b\u202e!" in shown
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(shown)


# customers refund


@pytest.fixture
def paid_fix() -> tuple[Customer, str]:
    """A customer who has paid 1500 cents for a fix, and the number of the fix."""
    ada = customer("payg", "pm_card_visa")
    deploy(ada, 1)
    drain()
    return ada, str(one("SELECT id FROM fixes"))


def test_a_part_and_then_the_rest_of_a_charge_is_refunded_on_record(
    paid_fix: tuple[Customer, str], stripe: StripeSandbox, mailbox: Mailbox
) -> None:
    ada, fix = paid_fix
    part = read("customers", "refund", fix, "--cents", "400", "--why", "slow")
    assert part == {
        "job_id": str(one("SELECT id FROM jobs WHERE name = 'refund_charge'")),
        "fix": int(fix),
        "cents": 400,
    }
    drain()
    rest = tallyhook("customers", "refund", fix, "--why", "it broke the build")
    assert rest.exit_code == 0
    assert rest.stdout.startswith(f"1100 cents of fix {fix} are given back by job ")
    drain()
    assert [cents for kind, cents in entries(ada) if kind == "refunded"] == [-400, -1100]
    assert sorted(refund["amount"] for refund in stripe.objects("refund")) == [400, 1100]
    assert sum("We have refunded" in mail.subject for mail in mailbox.mails()) == 2
    assert recorded() == [
        ("refund", f"fix:{fix}", "400 cents: slow"),
        ("refund", f"fix:{fix}", "1100 cents: it broke the build"),
    ]


@pytest.mark.parametrize(
    ("options", "asked", "says"),
    [
        (["--cents", "1501", "--why", "x"], "1501 cents: x", "1501 cents cannot be refunded: 1500 of 1500 are left"),
        (["--cents", "0", "--why", "x"], "0 cents: x", "0 cents cannot be refunded: 1500 of 1500 are left"),
        (["--why", ""], "all of it: ", "a refund needs a reason: say why with --why"),
        (["--cents", "5", "--why", " \t"], "5 cents: ", "a refund needs a reason: say why with --why"),
    ],
    ids=["too much", "nothing", "no reason", "a blank reason"],
)
def test_a_refund_that_cannot_be_is_refused_on_record(
    paid_fix: tuple[Customer, str], stripe: StripeSandbox, options: list[str], asked: str, says: str
) -> None:
    _, fix = paid_fix
    refused = tallyhook("customers", "refund", fix, *options)
    assert (refused.exit_code, refused.stdout, refused.stderr) == (2, "", f"{says}\n")
    drain()
    assert recorded() == [("refund_refused", f"fix:{fix}", f"{asked} (refused: {says})")]
    assert stripe.objects("refund") == []
    assert count("jobs WHERE name = 'refund_charge'") == 0


def test_what_was_paid_and_given_back_is_shown_as_the_api_says_it(
    web: FlaskClient, paid_fix: tuple[Customer, str]
) -> None:
    ada, fix = paid_fix
    tallyhook("customers", "refund", fix, "--cents", "500", "--why", "slow")
    drain()
    [bill] = web.get("/api/v1/invoices", headers=ada.headers).json
    [row] = read("customers", "show", str(ada.id))["fixes"]
    assert (row["paid_cents"], row["refunded_cents"]) == (bill["paid_cents"], bill["refunded_cents"]) == (1500, 500)
    assert row["accepted_at"] == datetime.fromisoformat(row["accepted_at"]).isoformat()
    *_, header, line = tallyhook("customers", "show", str(ada.id)).stdout.splitlines()
    assert header.endswith("paid cents  refunded cents")
    assert line.split()[-2:] == ["1500", "500"]


def test_what_a_person_did_cannot_be_unwritten() -> None:
    tallyhook("queues", "pause", "mail")
    with pytest.raises(Exception, match="append-only"):
        sql("DELETE FROM operator_actions")
    with pytest.raises(Exception, match="append-only"):
        sql("UPDATE operator_actions SET actor = 'nobody'")


# what goes wrong outside


@pytest.mark.parametrize(
    "arguments",
    [["jobs", "list"], ["db", "migrate"]],
    ids=" ".join,
)
def test_a_database_that_is_away_is_told_in_a_line(arguments: list[str]) -> None:
    done = run(*arguments, DATABASE_URL=f"postgresql://jane:hunter2@127.0.0.1:{closed_port()}/x")
    assert done.returncode == 1
    assert "database" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_a_database_without_our_tables_is_told_in_a_line(empty_database: str) -> None:
    with_no_tables = run("jobs", "list", DATABASE_URL=empty_database)
    assert with_no_tables.returncode == 1
    assert 'the database refused: relation "jobs" does not exist' in with_no_tables.stderr


def test_an_audit_against_a_stripe_that_is_away_says_so_beside_what_it_found_here() -> None:
    away = {"STRIPE_API_BASE": f"http://127.0.0.1:{closed_port()}"}
    done = run("audit", "--stripe", **away)
    assert done.returncode == 1
    assert "dedup_key_once" in done.stdout
    assert "no answer from Stripe" in done.stdout
    assert "clean" not in done.stdout
    done = run("audit", "--stripe", "--json", **away)
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"]) == (1, False)
    assert "no answer from Stripe" in report["error"]
    assert report["checked"] == read("audit")["checked"]


def test_json_stays_json_while_something_is_logged() -> None:
    done = run("audit", "--stripe", "--json", REDIS_URL=f"redis://127.0.0.1:{closed_port()}/0")
    assert json.loads(done.stdout)["ok"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"PORT": "eighty"}, "PORT"),
        ({"TALLYHOOK_ENV": "prod"}, "TALLYHOOK_ENV"),
        ({"TRIAL_FIXES": "-1"}, "TRIAL_FIXES"),
        ({"AUTO_PROVISION": "perhaps"}, "AUTO_PROVISION"),
        ({"DATABASE_URL": "mysql://jane:hunter2@localhost/x"}, "DATABASE_URL"),
        ({"DATABASE_URL": "hunter2"}, "DATABASE_URL"),
        ({"SIGNUP_RATE_LIMIT": "often"}, "SIGNUP_RATE_LIMIT"),
    ],
    ids=str,
)
def test_a_setting_that_is_wrong_is_named_in_a_line(settings: dict[str, str], says: str) -> None:
    done = run("check", **settings)
    assert done.returncode in (1, 2)
    assert says in done.stdout + done.stderr
    assert "hunter2" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "url", ["postgresql://jane:verysecret@127.0.0.1:1/x", "postgresql://127.0.0.1:1/x?user=jane&password=verysecret"]
)
def test_check_tells_of_a_database_that_is_away_and_not_its_password(url: str) -> None:
    done = run("check", DATABASE_URL=url)
    assert done.returncode == 1
    assert "PostgreSQL cannot be reached" in done.stdout
    assert "verysecret" not in done.stdout + done.stderr


def test_check_tells_of_a_redis_that_is_away() -> None:
    done = run("check", REDIS_URL=f"redis://127.0.0.1:{closed_port()}/0")
    assert done.returncode == 1
    assert "Redis cannot be reached" in done.stdout


# production

GOOD = {
    "TALLYHOOK_ENV": "production",
    "STRIPE_SECRET_KEY": "sk_live_x",
    "STRIPE_WEBHOOK_SECRETS": "whsec_x",
    "MAIL_URL": "smtp://mail.example.com",
    "BASE_URL": "https://billing.example.com",
    "SECRET_KEYS": "x" * 40,
    "OPS_TOKEN": "y" * 40,
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"DATABASE_URL": ""}, "DATABASE_URL"),
        ({"REDIS_URL": ""}, "REDIS_URL"),
        ({"STRIPE_SECRET_KEY": ""}, "STRIPE_SECRET_KEY"),
        ({"STRIPE_SECRET_KEY": "sk_test_x"}, "STRIPE_SECRET_KEY"),
        ({"STRIPE_WEBHOOK_SECRETS": ""}, "STRIPE_WEBHOOK_SECRETS"),
        ({"MAIL_URL": ""}, "MAIL_URL"),
        ({"BASE_URL": ""}, "BASE_URL"),
        ({"SECRET_KEYS": ""}, "SECRET_KEYS"),
        ({"OPS_TOKEN": ""}, "OPS_TOKEN"),
        ({"TALLYHOOK_HOEM": "/x"}, "TALLYHOOK_HOEM"),
    ],
    ids=str,
)
def test_production_refuses_what_it_must_not_run_with_in_one_line_each(
    configure: Callable[..., None], change: dict[str, str], says: str
) -> None:
    configure(**GOOD | change)
    [line] = get_settings().problems()
    assert line.startswith(says)


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "app.ops.cli", "up"],
        ["-m", "app.ops.cli", "relay"],
        ["-m", "dramatiq", "worker", "--processes", "1", "--threads", "1"],
        ["-m", "gunicorn", "-c", "python:app.intake.server", "web:app"],
    ],
    ids=["up", "relay", "worker", "web"],
)
def test_a_process_of_production_that_lacks_something_ends_with_a_line_for_each(
    processes: Processes, command: list[str]
) -> None:
    lacking = {"SECRET_KEYS": "", "OPS_TOKEN": ""}
    process = processes.start(sys.executable, *command, **GOOD | {"PORT": str(free_port())} | lacking)
    assert process.wait() != 0
    for name in lacking:
        assert len([line for line in process.output.splitlines() if f"{name} is not set" in line]) == 1
    assert "Traceback" not in process.output


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "app.ops.cli", "relay"],
        ["-m", "dramatiq", "worker", "--processes", "1", "--threads", "1"],
        ["-m", "gunicorn", "-c", "python:app.intake.server", "web:app"],
    ],
    ids=["relay", "worker", "web"],
)
def test_a_process_with_a_malformed_setting_ends_with_a_line(processes: Processes, command: list[str]) -> None:
    process = processes.start(sys.executable, *command, TRIAL_FIXES="five")
    assert process.wait() != 0
    assert "TRIAL_FIXES" in process.output
    assert "Traceback" not in process.output
