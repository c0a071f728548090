"""`tallyhook webhooks …`"""

import json
from typing import Annotated, Any

import typer
from rich.progress import track

from app.db import transaction
from app.ledger import ops
from app.ledger.states import State
from app.ops import webhooks
from app.ops.job_commands import StateOption, operator, parse_since
from app.ops.output import JsonOption, WhyOption, errors, fail, print_json, print_rows, say, warn
from app.sources import SOURCES

webhooks_app = typer.Typer(no_args_is_help=True, help="What Stripe and GitHub have sent: look at it, do it again.")

TypeOption = Annotated[str | None, typer.Option("--type", help="Only this type, or a family: 'invoice.*'.")]
SinceOption = Annotated[
    str | None, typer.Option("--since", help="Only received since: 2026-11-22T03:00 (UTC), or an age: 90m, 6h, 3d.")
]
UntilOption = Annotated[str | None, typer.Option("--until", help="Only received before then, said as with --since.")]
CustomerOption = Annotated[
    int | None, typer.Option("--customer", min=1, max=2**63 - 1, help="Only those about this customer.")
]


def _known_source(name: str | None) -> str | None:
    if name is not None and name not in SOURCES:
        raise typer.BadParameter(f"is one of: {', '.join(SOURCES)}.")
    return name


SourceOption = Annotated[
    str | None, typer.Option("--source", callback=_known_source, help=f"Only from: {' or '.join(SOURCES)}.")
]


def _filter(
    kind: str | None,
    since: str | None,
    until: str | None,
    customer: int | None,
    source: str | None,
    state: State | None,
) -> webhooks.WebhookFilter:
    ends = parse_since(until, "--until")
    return webhooks.WebhookFilter(kind, parse_since(since), ends, customer, source, state)


@webhooks_app.command("list")
def list_webhooks(
    kind: TypeOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    customer: CustomerOption = None,
    source: SourceOption = None,
    state: StateOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="At most so many, newest first.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List webhooks and what became of them, newest first."""
    with transaction() as db:
        rows = webhooks.list_webhooks(db, _filter(kind, since, until, customer, source, state), limit)
    if as_json:
        print_json(rows)
        return
    shown = [row | {"came_to": _came_to(row)} for row in rows]
    columns = ("id", "source", "type", "replay", "state", "customer_id", "received_at", "came_to")
    print_rows(shown, columns, "No webhook matches.")


def _came_to(row: dict[str, Any]) -> str | None:
    if row["error"] is not None and row["state"] != State.SUCCEEDED:
        return str(row["error"]["message"])
    result = row["result"] or {}
    if "ignored" in result:
        return f"ignored: {result['ignored']}"
    return result.get("command") or result.get("action")


@webhooks_app.command("show")
def show_webhook(
    wanted: Annotated[str, typer.Argument(metavar="ID", help="The sender's id of it, or its job's.")],
    as_json: JsonOption = False,
) -> None:
    """Show one: its body (redacted), what followed from it, and how often it was done again."""
    try:
        with transaction() as db:
            shown = webhooks.show_webhook(db, wanted)
    except webhooks.NoSuchWebhook as error:
        raise fail(str(error)) from None
    if as_json:
        print_json(shown)
        return
    payload = shown["job"]["payload"]
    for name, value in shown.items():
        if name not in ("job", "replays"):
            say(f"{name.replace('_', ' '):>18}  {'-' if value is None else value}")
    say("\nBody", "bold")
    say(json.dumps(payload, indent=2, ensure_ascii=False))
    say("\nAttempts", "bold")
    columns = ("attempt", "started_at", "ended_at", "outcome", "error_kind", "error_message")
    print_rows(shown["job"]["history"], columns, "None yet.")
    if shown["replays"]:
        say("\nReplays", "bold")
        print_rows(shown["replays"], ("replay", "job_id", "state", "received_at"), "")


@webhooks_app.command("replay")
def replay_webhooks(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID…")] = None,
    kind: TypeOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    customer: CustomerOption = None,
    source: SourceOption = None,
    state: StateOption = None,
    rate: Annotated[
        int, typer.Option("--rate", min=1, max=10_000, help="Of many, let so many go a second.")
    ] = ops.REQUEUE_PER_S,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done, and what it changes.")
    ] = False,
    why: WhyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Do webhooks again, by ID or all that match: what each is about is read anew, and nothing is done twice."""
    filters = (kind, since, until, customer, source, state)
    if bool(ids) == any(filters):
        raise fail("Give either IDs or filters.")
    try:
        with transaction() as db:
            wanted = [webhooks.find(db, one) for one in ids] if ids else webhooks.matching(db, _filter(*filters))
    except webhooks.NoSuchWebhook as error:
        raise fail(str(error)) from None
    if dry_run:
        _print_preview([webhooks.preview(row) for row in wanted], as_json)
        return
    replayed, refused = [], []
    for place, row in enumerate(track(wanted, "Replaying", console=errors, disable=len(wanted) < 20)):
        try:
            with transaction() as db:
                job_id = webhooks.replay(db, row.id, actor=operator(), reason=why, delay_s=place // rate)
            replayed.append({"key": row.key, "job_id": str(job_id)})
        except (webhooks.NotYet, ops.NoSuchJob) as problem:
            refused.append({"key": row.key, "problem": str(problem)})
    if as_json:
        print_json({"replayed": replayed, "refused": refused})
    else:
        for one in refused:
            warn(one["problem"])
        say(f"{len(replayed)} replayed." + (f" {len(refused)} not." if refused else ""))
    if refused:
        raise typer.Exit(1)


def _print_preview(previews: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(previews)
        return
    changes = [
        {"id": one["id"], **change, "theirs": change[one["source"]]} for one in previews for change in one["changes"]
    ]
    print_rows(previews, ("id", "type", "would"), "No webhook matches.")
    if changes:
        say("\nWhat differs now", "bold")
        print_rows(changes, ("id", "subject", "ours", "theirs"), "")
    say(f"{len(previews)} would be replayed; nothing was changed.")
