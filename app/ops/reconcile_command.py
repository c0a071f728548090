"""`tallyhook reconcile`: what Stripe has that never arrived here."""

from typing import Annotated, Any

import typer
from uuid_utils.compat import uuid7

from app.billing.reconcile import Sweep
from app.db import transaction
from app.ledger import ops
from app.ops.job_commands import operator, parse_since
from app.ops.output import JsonOption, WhyOption, errors, print_json, print_rows, say


def reconcile(
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            help="Look back to 2026-11-22T03:00 (UTC), or an age: 90m, 6h, 3d. Unset: events since the last time,"
            " objects of 60 days and all that are open. Stripe keeps events for 30 days.",
        ),
    ] = None,
    fix: Annotated[
        bool,
        typer.Option(
            "--fix",
            help="Have what differs read again and kept, and missed events applied, as if they had just come. Takes no"
            " money itself; what follows from the news does, behind the kill switch: a card whose arrival was missed"
            " pays what has failed, a Teams that has ended bills its overage.",
        ),
    ] = False,
    why: WhyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch Stripe's events that never arrived, compare every open object, and print the drift.

    Exit status 1 if anything differs; with --fix, only if something is left that needs an operator.
    """
    run = f"reconcile:{uuid7()}"
    if fix:
        with transaction() as db:
            ops.record(db, actor=operator(), action="reconcile", subject=run, reason=why)
    with errors.status("Asking Stripe") as status:
        sweep = Sweep(
            transaction, run, fix=fix, progress=lambda what, count: status.update(f"Asking Stripe: {count} {what}")
        )
        sweep.everything(parse_since(since))
    ok = not (sweep.left if fix else sweep.drift)
    if as_json:
        print_json({"ok": ok, "checked": dict(sweep.checked), "drift": sweep.drift})
    else:
        _print(sweep, fix)
    if not ok:
        raise typer.Exit(1)


def _print(sweep: Sweep, fix: bool) -> None:
    rows: list[dict[str, Any]] = [{"looked at": what, "count": count} for what, count in sweep.checked.items()]
    print_rows(rows, ("looked at", "count"), "")
    if not sweep.drift:
        say("no drift: what is here is what Stripe has", "green")
        return
    print_rows(sweep.drift, ("rule", "subject", "ours", "stripe", "repair"), "")
    mended = len(sweep.drift) - sweep.left
    if fix:
        say(f"{mended} of {len(sweep.drift)} differences: their repairs are enqueued")
    else:
        say(f"{len(sweep.drift)} differences; `tallyhook reconcile --fix` repairs what no operator must see to")
