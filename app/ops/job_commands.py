"""`tallyhook jobs …` and `tallyhook queues …`"""

import difflib
import getpass
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.progress import track

from app.db import transaction
from app.ledger import ops
from app.ledger.command import COMMANDS
from app.ledger.command import queues as known_queues
from app.ledger.states import State
from app.ops.output import JsonOption, WhyOption, errors, fail, print_json, print_rows, say, warn

jobs_app = typer.Typer(no_args_is_help=True, help="The ledger: look at jobs, requeue or cancel them.")
queues_app = typer.Typer(help="Depth, oldest age and pauses of every queue.")

StateOption = Annotated[State | None, typer.Option("--state", help="Only jobs in this state.")]
NameOption = Annotated[str | None, typer.Option("--name", help="Only jobs of this kind.")]
QueueOption = Annotated[str | None, typer.Option("--queue", help="Only jobs of this queue.")]
CustomerOption = Annotated[
    int | None, typer.Option("--customer", min=1, max=2**63 - 1, help="Only jobs about this customer.")
]
ErrorOption = Annotated[str | None, typer.Option("--error", help="Only jobs with this error kind, or text in it.")]
SinceOption = Annotated[
    str | None, typer.Option("--since", help="Only jobs created since: 2026-11-22T03:00 (UTC), or an age: 90m, 6h, 3d.")
]
IdsArgument = Annotated[list[UUID] | None, typer.Argument(metavar="ID…")]

_LISTED = ("id", "name", "state", "attempts", "customer_id", "created_at", "run_at", "error")


def operator() -> str:
    """Who is at the keyboard, for the record."""
    return f"cli:{getpass.getuser()}"


def parse_since(text: str | None, option: str = "--since") -> datetime | None:
    """The moment that a --since says, None for none; ends with status 2 where it says none that can be."""
    if text is None:
        return None
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    try:
        if text[-1] in units and text[:-1].isdigit():
            return datetime.now(UTC) - timedelta(**{units[text[-1]]: int(text[:-1])})
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError, IndexError):
        raise fail(f"{option}: {text!r} is neither a time (2026-11-22T03:00) nor an age (90m, 6h, 3d)") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _filter(
    state: State | None, name: str | None, queue: str | None, customer: int | None, error: str | None, since: str | None
) -> ops.JobFilter:
    if name is not None and name not in COMMANDS:
        _must_be_there(ops.JobFilter(name=name), "kind of job", name, COMMANDS)
    if queue is not None and queue not in known_queues():
        _must_be_there(ops.JobFilter(queue=queue), "queue", queue, known_queues())
    return ops.JobFilter(state, name, queue, customer, error, parse_since(since))


def _must_be_there(wanted: ops.JobFilter, what: str, name: str, known: Collection[str]) -> None:
    """A name that this release does not know is another's if jobs have it, else a slip, after which all would look
    well: ends with status 2."""
    with transaction() as db:
        if ops.list_jobs(db, wanted, limit=1):
            return
    raise _unknown(what, name, known)


def _unknown(what: str, name: str, known: Collection[str]) -> typer.Exit:
    close = difflib.get_close_matches(name, known)
    hint = f"Did you mean {' or '.join(close)}?" if close else f"Known: {', '.join(sorted(known))}."
    return fail(f"There is no {what} {name!r}. {hint}")


@jobs_app.command("list")
def list_jobs(
    state: StateOption = None,
    name: NameOption = None,
    queue: QueueOption = None,
    customer: CustomerOption = None,
    error: ErrorOption = None,
    since: SinceOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="At most so many, newest first.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    with transaction() as db:
        rows = ops.list_jobs(db, _filter(state, name, queue, customer, error, since), limit)
    if as_json:
        print_json(rows)
        return
    print_rows(rows, _LISTED, "No job matches.")


@jobs_app.command("show")
def show_job(job_id: Annotated[UUID, typer.Argument(metavar="ID")], as_json: JsonOption = False) -> None:
    """Show everything about one job: payload, every attempt, and what people did to it."""
    try:
        with transaction() as db:
            job = ops.show_job(db, job_id)
    except ops.NoSuchJob as error:
        raise fail(str(error)) from None
    if as_json:
        print_json(job)
        return
    _print_job(job)


def _print_job(job: dict[str, Any]) -> None:
    for name, value in job.items():
        if name not in ("history", "operators"):
            say(f"{name.replace('_', ' '):>18}  {'-' if value is None else value}")
    say("\nAttempts", "bold")
    columns = ("attempt", "started_at", "ended_at", "outcome", "error_kind", "error_message", "worker")
    print_rows(job["history"], columns, "None yet.")
    for attempt in job["history"]:
        if attempt["traceback"]:
            say(f"\nTraceback of attempt {attempt['attempt']}", "bold")
            say(attempt["traceback"])
    if job["operators"]:
        say("\nOperators", "bold")
        print_rows(job["operators"], ("at", "actor", "action", "reason"), "")
    if job["state"] == State.DEAD:
        say(f"\nOnce the cause is mended, `tallyhook jobs requeue {job['id']}` gives it a new budget of attempts.")
    elif job["state"] == State.CANCELLED:
        say(f"\n`tallyhook jobs requeue {job['id']}` takes the cancellation back.")


@jobs_app.command("requeue")
def requeue_jobs(
    ids: IdsArgument = None,
    state: StateOption = None,
    name: NameOption = None,
    queue: QueueOption = None,
    customer: CustomerOption = None,
    error: ErrorOption = None,
    since: SinceOption = None,
    rate: Annotated[
        int, typer.Option("--rate", min=1, max=10_000, help="Of many, let so many go a second.")
    ] = ops.REQUEUE_PER_S,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which jobs it would be.")] = False,
    why: WhyOption = None,
) -> None:
    """Give dead or cancelled jobs a new budget of attempts: by ID, or all that match with --state dead.

    Their history stays. `jobs cancel` takes it back for those that have not begun.
    """
    if ids and (state or name or queue or customer or error or since):
        raise fail("Give either IDs or filters, not both.")
    if not ids and state not in (State.DEAD, State.CANCELLED):
        raise fail("Give IDs, or --state dead (or cancelled) with more filters if you like.")
    wanted = list(dict.fromkeys(ids or []))
    if not ids:
        with transaction() as db:
            wanted = ops.matching(db, _filter(state, name, queue, customer, error, since))
    done = refused = 0
    found: list[dict[str, Any]] = []
    for place, job_id in enumerate(track(wanted, "Requeuing", console=errors, disable=len(wanted) < 20)):
        try:
            with transaction() as db:
                if dry_run:
                    found.append(ops.would_requeue(db, job_id))
                else:
                    ops.requeue(db, job_id, actor=operator(), reason=why, delay_s=place // rate)
            done += 1
        except (ops.NoSuchJob, ops.NotAllowed) as problem:
            refused += 1
            warn(str(problem))
    if found:
        print_rows(found, _LISTED, "")
    pace = f", over {done / rate:.0f} s" if done > rate else ""
    said = f"{done} {'would be ' if dry_run else ''}requeued{pace}." + (f" {refused} not." if refused else "")
    say(f"{said} Nothing was changed." if dry_run else said)
    if refused:
        raise typer.Exit(1)


@jobs_app.command("cancel")
def cancel_jobs(ids: Annotated[list[UUID], typer.Argument(metavar="ID…")], why: WhyOption = None) -> None:
    """End jobs that have not begun or wait to be tried again. `jobs requeue` takes it back."""
    refused = 0
    for job_id in ids:
        try:
            with transaction() as db:
                ops.cancel(db, job_id, actor=operator(), reason=why)
            say(f"{job_id} cancelled.")
        except (ops.NoSuchJob, ops.NotAllowed) as problem:
            refused += 1
            warn(str(problem))
    if refused:
        raise typer.Exit(1)


@queues_app.callback(invoke_without_command=True)
def list_queues(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show every queue."""
    if context.invoked_subcommand is not None:
        return
    with transaction() as db:
        rows = ops.overview(db)
    if as_json:
        print_json(rows)
        return
    columns = ("name", "state", "waiting", "scheduled", "running", "held", "dead", "oldest_age_s")
    print_rows(rows, columns, "No queues.")


def _known(name: str) -> str:
    if name not in known_queues():
        raise _unknown("queue", name, known_queues())
    return name


@queues_app.command("pause")
def pause(name: str, why: WhyOption = None) -> None:
    """Stop a queue: its jobs are held, none is lost. What runs now goes on."""
    with transaction() as db:
        fresh = ops.pause_queue(db, _known(name), actor=operator(), reason=why)
    say(f"{name} is paused." if fresh else f"{name} was paused already.")


@queues_app.command("resume")
def resume(name: str, why: WhyOption = None) -> None:
    """Let a paused queue go on; what was held runs."""
    with transaction() as db:
        was_paused = ops.resume_queue(db, _known(name), actor=operator(), reason=why)
    say(f"{name} goes on." if was_paused else f"{name} was not paused.")
