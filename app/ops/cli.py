"""The command `tallyhook`. Exit status: 0 done, 1 a check found something, 2 wrong usage.

What only one command needs and is slow to load (Alembic, the embedded parts) is imported where it is used: an
operator who lists jobs does not wait for it.
"""

import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError
from structlog.contextvars import bind_contextvars

import app.contracts.billing
import app.contracts.provisioning
import app.contracts.upkeep
import app.contracts.webhooks  # noqa: F401  (so that every queue and period is known)
from app.db import get_engine
from app.ledger.errors import JobError
from app.ledger.gates import closed_gates
from app.ledger.relay import Relay
from app.logs import configure_logs
from app.ops.audit import audit as run_audit
from app.ops.check_command import check
from app.ops.customer_commands import customers_app
from app.ops.job_commands import jobs_app, operator, queues_app
from app.ops.output import JsonOption, fail, print_json, print_rows, say
from app.ops.reconcile_command import reconcile
from app.ops.signup_commands import signups_app
from app.ops.stripe_commands import stripe_app
from app.ops.webhook_commands import webhooks_app
from app.settings import SettingsError, get_settings, load_settings

cli = typer.Typer(
    name="tallyhook",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="An asynchronous billing backend: an accepted event is never lost, and nothing is ever charged twice.",
)
db_app = typer.Typer(no_args_is_help=True, help="The database's schema.")
cli.add_typer(jobs_app, name="jobs")
cli.add_typer(queues_app, name="queues")
cli.add_typer(signups_app, name="signups")
cli.add_typer(customers_app, name="customers")
cli.add_typer(db_app, name="db")
cli.add_typer(stripe_app, name="stripe")
cli.add_typer(webhooks_app, name="webhooks")
cli.command()(reconcile)
cli.command()(check)


@cli.callback()
def begin(context: typer.Context) -> None:
    # Standard output is for what was asked for; only what serves logs there.
    if context.invoked_subcommand not in ("up", "relay", "demo"):
        configure_logs(Path("/dev/stderr"))


@cli.command()
def up(
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Worker processes, of 8 threads each.")] = 2,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65535, help="Instead of PORT.")] = None,
) -> None:
    """Run everything on this machine: web, workers and relay; what is not configured is embedded.

    Migrates first, prints `ready` once it serves, and stops all of it cleanly on Ctrl-C.
    """
    from app.ops.system import AlreadyUp, System

    configure_logs()
    finished = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: finished.set())
    system = System(workers=workers, port=port or load_settings(embedded=False).port)
    try:
        settings = system.start()
        if system.embedded.names:
            say(f"embedded: {', '.join(system.embedded.names)} (data in {settings.tallyhook_home})")
        assert settings.ops_token is not None
        say(f"ops token: {settings.ops_token.get_secret_value()}")
        say(f"ready http://127.0.0.1:{system.url.rsplit(':', 1)[1]}")
        sys.stdout.flush()
        finished.wait()
        say("stopping …")
    except (AlreadyUp, TimeoutError) as error:
        raise fail(str(error), 1) from None
    finally:
        system.stop()


@cli.command()
def demo() -> None:
    """Show the whole journey on embedded parts, from the signup to the second invoice, with workers killed on the way.

    Everything lives in a folder of its own and is gone afterwards.
    """
    from app.ops.demo import show

    show()


@cli.command()
def relay() -> None:
    """Run the relay alone: one leads, any number may stand by. `up` and the Procfile run it."""
    configure_logs()
    if problems := get_settings().problems():
        raise SettingsError(problems)
    running = Relay(closed_gates())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: running.stop())
    running.run()


@db_app.command("migrate")
def db_migrate() -> None:
    """Bring the database to the newest schema. Refuses a database that a newer release has migrated."""
    from app.migrations import NewerDatabase, migrate

    try:
        before, after = migrate(get_engine())
    except NewerDatabase as error:
        raise fail(str(error), 1) from None
    say(f"at {after} already" if before == after else f"{before or 'empty'} → {after}")


@cli.command()
def audit(
    stripe: Annotated[bool, typer.Option("--stripe", help="Compare with Stripe as well.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check the invariants over the whole database; exit status 1 if one is broken."""
    report = run_audit(with_stripe=stripe)
    if as_json:
        print_json(report)
    else:
        rows = [{"rule": rule, "checked": count} for rule, count in report["checked"].items()]
        print_rows(rows, ("rule", "checked"), "")
        if report["ok"]:
            say("clean", "green")
        else:
            print_rows(report["findings"], ("rule", "subject", "detail"), "")
    if not report["ok"]:
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; what can go wrong outside the code is told in a line, not in a traceback."""
    bind_contextvars(origin=operator())
    try:
        cli()
    except SettingsError as error:
        for problem in error.problems:
            fail(problem)
        sys.exit(2)
    except JobError as error:  # of the gateway: Stripe is away, or refuses our key
        sys.exit(fail(str(error), 1).exit_code)
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0] if error.orig else type(error).__name__
        away = isinstance(error, OperationalError | InterfaceError | InternalError)
        said = "the database does not answer" if away else "the database refused"
        sys.exit(fail(f"{said}: {reason}", 1).exit_code)


if __name__ == "__main__":
    main()
