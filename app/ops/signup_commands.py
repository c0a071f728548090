"""`tallyhook signups …`: the manual queue of AUTO_PROVISION=false."""

from typing import Annotated
from uuid import UUID

import typer

from app.contracts.http import SignupStatus
from app.customers import signups
from app.db import transaction
from app.ledger.ops import NotAllowed
from app.ops.job_commands import operator
from app.ops.output import JsonOption, WhyOption, fail, print_json, print_rows, say

signups_app = typer.Typer(no_args_is_help=True, help="Signups, and those that wait for approval.")

IdArgument = Annotated[UUID, typer.Argument(metavar="ID")]


@signups_app.command("list")
def list_signups(
    status: Annotated[SignupStatus | None, typer.Option("--status", help="Only signups that stand so.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="At most so many, newest first.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List signups, newest first."""
    with transaction() as db:
        rows = signups.list_signups(db, status, limit)
    if as_json:
        print_json(rows)
        return
    print_rows(rows, ("signup_id", "email", "name", "plan", "source", "status", "created_at"), "No signup matches.")


@signups_app.command("approve")
def approve(signup_id: IdArgument, why: WhyOption = None) -> None:
    """Let a parked signup be provisioned. Takes back a rejection, too."""
    try:
        with transaction() as db:
            signups.approve(db, signup_id, actor=operator(), reason=why)
    except (signups.NoSuchSignup, signups.NotAwaiting, NotAllowed) as error:
        raise fail(str(error)) from None
    say(f"{signup_id} approved.")


@signups_app.command("reject")
def reject(signup_id: IdArgument, why: WhyOption = None) -> None:
    """Turn a parked signup down. `signups approve` takes it back."""
    try:
        with transaction() as db:
            signups.reject(db, signup_id, actor=operator(), reason=why)
    except (signups.NoSuchSignup, signups.NotAwaiting, NotAllowed) as error:
        raise fail(str(error)) from None
    say(f"{signup_id} rejected.")
