"""`tallyhook customers …`: what support looks at, and gives back."""

from typing import Annotated, Any

import typer
from sqlalchemy import BigInteger, ColumnElement, Connection, cast, func, select

from app.billing import charges
from app.billing.status import billing_status
from app.billing.tables import charge_entries, fixes
from app.billing.tables import charges as charges_table
from app.customers import accounts
from app.db import transaction
from app.github import marketplace
from app.ledger import ops
from app.logs import redact_text
from app.ops.job_commands import operator
from app.ops.output import JsonOption, fail, print_json, print_rows, say
from app.phases.tables import phase_results

customers_app = typer.Typer(no_args_is_help=True, help="Customers: how they stand, and refunds.")


def _cents(*kinds: str) -> ColumnElement[int]:
    """What the entries of these kinds of the charge at hand add up to. A sum of bigint is numeric, and no JSON."""
    total = cast(func.coalesce(func.sum(charge_entries.c.amount_cents), 0), BigInteger)
    of_these = charge_entries.c.charge_id == charges_table.c.id, charge_entries.c.kind.in_(kinds)
    return select(total).where(*of_these).scalar_subquery()


def _fixes(db: Connection, customer_id: int, limit: int) -> list[dict[str, Any]]:
    query = (
        select(
            fixes.c.id.label("fix"),
            fixes.c.accepted_at,
            phase_results.c.repo,
            phase_results.c.issue_number.label("issue"),
            fixes.c.plan,
            fixes.c.outcome,
            fixes.c.amount_cents,
            charges_table.c.state.label("charge"),
            charges_table.c.payment_intent,
            _cents("succeeded").label("paid_cents"),
            (-_cents("refunded", "refund_failed")).label("refunded_cents"),
        )
        .join(phase_results, phase_results.c.id == fixes.c.phase_result_id)
        .outerjoin(charges_table, charges_table.c.fix_id == fixes.c.id)
        .where(fixes.c.customer_id == customer_id)
        .order_by(fixes.c.id.desc())
        .limit(limit)
    )
    return [{**row._mapping, "accepted_at": row.accepted_at.isoformat()} for row in db.execute(query)]


def _is_number(who: str) -> bool:
    """A longer one is no customer's, and no bigint."""
    return who.isdecimal() and len(who) <= 18


@customers_app.command("show")
def show(
    who: Annotated[str, typer.Argument(metavar="ID|EMAIL")],
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many fixes, newest first.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show a customer: plan, use, and the newest fixes with what was charged for them."""
    try:
        with transaction() as db:
            customer_id = int(who) if _is_number(who) else accounts.find(db, who)
            if customer_id is None:
                raise accounts.NoSuchCustomer(redact_text(who))
            customer = accounts.get(db, customer_id)
            status = billing_status(db, customer_id)
            counted = _fixes(db, customer_id, limit)
            on_github = marketplace.accounts_of(db, customer_id)
    except accounts.NoSuchCustomer as error:
        raise fail(str(error)) from None
    shown = {
        "email": customer.email,
        "name": customer.name,
        **status.model_dump(mode="json"),
        "default_payment_method": customer.default_payment_method,
        "created_at": customer.created_at.isoformat(),
    }
    if as_json:
        print_json({**shown, "github": on_github, "fixes": counted})
        return
    for name, value in shown.items():
        say(f"{name}: {'-' if value is None else value}")
    for account in on_github:
        installed = ", ".join(account["installations"]) or "not installed"
        line = f"on GitHub: {account['login']}, {account['plan']} by the Marketplace, the App is {installed}"
        say(line)
    say("")
    money = ("amount_cents", "charge", "paid_cents", "refunded_cents")
    print_rows(counted, ("fix", "accepted_at", "repo", "issue", "plan", "outcome", *money), "No fix yet.")


@customers_app.command("refund")
def refund(
    fix: Annotated[
        int, typer.Argument(metavar="FIX", min=1, max=2**63 - 1, help="Its number, as `customers show` has it.")
    ],
    why: Annotated[str, typer.Option("--why", help="The reason, kept on record.")],
    cents: Annotated[int | None, typer.Option("--cents", help="How much; all that is left, if not given.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Give back what was charged for a fix, or a part of it. A job does it; `jobs show` tells how far it is."""
    why = why.strip()
    try:
        if not why:
            raise charges.RefundRefused("a refund needs a reason: say why with --why")
        with transaction() as db:
            job_id, amount = charges.ask_refund(db, fix, cents, actor=operator(), reason=why)
    except charges.RefundRefused as error:
        with transaction() as db:
            asked = "all of it" if cents is None else f"{cents} cents"
            reason = f"{asked}: {why} (refused: {error})"
            ops.record(db, actor=operator(), action="refund_refused", subject=f"fix:{fix}", reason=reason)
        raise fail(str(error)) from None
    if as_json:
        print_json({"job_id": str(job_id), "fix": fix, "cents": amount})
        return
    say(f"{amount} cents of fix {fix} are given back by job {job_id}.")
