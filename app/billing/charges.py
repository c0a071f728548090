"""Charges: one a fix of payg, its state, and an append-only entry for whatever happens to its money (law 11)."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, exists, func, insert, select, update

from app.billing import standing
from app.billing.fixes import deployed
from app.billing.tables import charge_entries, charges, fixes
from app.contracts.billing import ChargeFix, RefundCharge, SendNotice
from app.ledger import ops
from app.ledger.enqueue import enqueue
from app.ledger.errors import AlreadyDone

CURRENCY = "usd"

DELETED = "customer_deleted"
"""Why a charge is given up whose customer was deleted in Stripe."""

OVER = ("succeeded", "written_off")
"""States in which nothing of a charge is owed."""

RETRY_DAYS = (1, 3, 5, 7)
"""Days after the first failure on which a charge is tried again; after the last it is uncollectible. Where one comes
late (billing was held, Stripe was away), those after it keep their distance to it."""
_LAST = f"retry:{len(RETRY_DAYS)}"

HARD = {
    "account_closed",
    "card_not_supported",
    "expired_card",
    "fraudulent",
    "incorrect_number",
    "invalid_account",
    "invalid_number",
    "lost_card",
    "merchant_blacklist",
    "payment_method_unavailable",
    "pickup_card",
    "restricted_card",
    "revocation_of_all_authorizations",
    "revocation_of_authorization",
    "stolen_card",
    "stop_payment_order",
    "transaction_not_allowed",
}
"""Decline codes after which the same card is not tried again (Stripe's "decline codes")."""


class RefundRefused(Exception):
    """The refund cannot be made; the message says why."""


def open_charge(db: Connection, fix_id: int, customer_id: int, amount_cents: int) -> int:
    """A charge for the fix, to be taken by a job of its own; returns its id."""
    charge_id: int = db.execute(
        insert(charges)
        .values(fix_id=fix_id, customer_id=customer_id, amount_cents=amount_cents, currency=CURRENCY)
        .returning(charges.c.id)
    ).scalar_one()
    note(db, charge_id, "accepted")
    enqueue(db, ChargeFix(customer_id=customer_id, charge_id=charge_id, occasion="fix"))
    return charge_id


def get(db: Connection, charge_id: int) -> Row[Any]:
    """The charge, and as `fix` what its fix is called in Stripe."""
    query = select(charges, fixes.c.ref.label("fix")).join(fixes, fixes.c.id == charges.c.fix_id)
    return db.execute(query.where(charges.c.id == charge_id)).one()


def note(db: Connection, charge_id: int, kind: str, amount_cents: int = 0, **what: Any) -> None:
    """An entry: what was taken is positive, what was given back negative."""
    db.execute(insert(charge_entries).values(charge_id=charge_id, kind=kind, amount_cents=amount_cents, **what))


def _set(db: Connection, charge_id: int, **values: Any) -> None:
    db.execute(update(charges).where(charges.c.id == charge_id).values(**values))


def keep_intent(db: Connection, charge_id: int, intent_id: str) -> None:
    """Remember the one payment intent of the charge."""
    _set(db, charge_id, payment_intent=intent_id)


def succeed(db: Connection, charge: Row[Any], intent_id: str) -> None:
    """The money was taken. Tells the customer where an earlier attempt had failed; ends their being past due with
    the last charge that was open for it."""
    note(db, charge.id, "succeeded", charge.amount_cents, stripe_id=intent_id)
    _set(db, charge.id, state="succeeded", succeeded_at=func.clock_timestamp(), decline_code=None)
    if charge.failed_at is not None:
        tell(db, charge, "charge_succeeded", "paid")
    if charge.state == "uncollectible":
        standing.settle(db, charge.customer_id)


def decline(
    db: Connection, charge: Row[Any], occasion: str, *, number: int, code: str, refused: str | None, intent_id: str
) -> None:
    """The money was refused, under confirmation `number` (0: none was sent). What comes next depends on the occasion:
    the first try and each retry plan the next one; the last retry ends in `uncollectible`.

    Args:
        code: Stripe's decline code, or why nothing was sent.
        refused: the payment method that this rules out, where the decline is a hard one.
    """
    note(db, charge.id, "declined", stripe_id=intent_id, reason=code, ruled_out=refused)
    failed_at = charge.failed_at or _now(db)
    # Where nothing was sent, the bank still waits for the customer to use the link.
    stays = charge.state == "uncollectible" or (charge.state == "requires_action" and number == 0)
    state = charge.state if stays else "declined"
    confirms = max(charge.confirms, number)
    _set(db, charge.id, state=state, decline_code=code, failed_at=failed_at, confirms=confirms)
    next_at = _after(db, charge, occasion, failed_at, code)
    if occasion != _LAST and (number or occasion == "fix"):
        again = next_at.isoformat() if next_at and refused is None else None
        tell(db, charge, "charge_declined", f"confirm:{number}", reason=code, next_attempt_at=again)


def is_ruled_out(charge_id: int | ColumnElement[int], payment_method: str) -> ColumnElement[bool]:
    """Whether a hard decline of that charge has ruled out that payment method for it."""
    return exists().where(charge_entries.c.charge_id == charge_id, charge_entries.c.ruled_out == payment_method)


def ask_customer(db: Connection, charge: Row[Any], occasion: str, *, number: int, url: str, intent_id: str) -> None:
    """The bank wants to hear the customer: they get a link that completes the same intent. What had been given up stays
    so until it is paid: no retry would look at it again."""
    note(db, charge.id, "requires_action", stripe_id=intent_id)
    failed_at = charge.failed_at or _now(db)
    code = "authentication_required"
    state = charge.state if charge.state == "uncollectible" else "requires_action"
    _set(db, charge.id, state=state, decline_code=code, failed_at=failed_at, confirms=number)
    tell(db, charge, "authentication_required", f"confirm:{number}", url=url)
    _after(db, charge, occasion, failed_at, code)


def still_waiting(db: Connection, charge: Row[Any], occasion: str) -> None:
    """The customer has not used the link yet: look again with the next retry, give up after the last."""
    _after(db, charge, occasion, charge.failed_at, "authentication_required")


def give_up(db: Connection, charge: Row[Any], reason: str) -> None:
    """Nobody tries any more by themselves: the customer is past due. A new card, or the customer, still can pay; not
    one who was deleted in Stripe, who is told nothing of cards."""
    if charge.state == "uncollectible":
        return
    note(db, charge.id, "uncollectible", reason=reason)
    _set(db, charge.id, state="uncollectible", failed_at=charge.failed_at or _now(db))
    standing.settle(db, charge.customer_id)
    if reason != DELETED:
        tell(db, charge, "charge_uncollectible", "lost")


def write_off(db: Connection, charge: Row[Any]) -> None:
    """The intent was cancelled in Stripe, which only a person does: nobody can pay it any more, and nobody owes it."""
    if charge.state == "written_off":
        return
    note(db, charge.id, "written_off", stripe_id=charge.payment_intent)
    _set(db, charge.id, state="written_off")
    standing.settle(db, charge.customer_id)
    if charge.failed_at is not None:  # they were told that it is open
        tell(db, charge, "charge_written_off", "written_off")


def _now(db: Connection) -> datetime:
    now: datetime = db.execute(select(func.clock_timestamp())).scalar_one()
    return now


def _after(db: Connection, charge: Row[Any], occasion: str, failed_at: datetime, code: str) -> datetime | None:
    """What comes after `occasion` has not brought the money: enqueue the retry after it, and return when that is due;
    give up after the last; nothing where it is not one of the series. A card is never tried twice in less than the
    schedule has between the two."""
    kind, _, number = occasion.partition(":")
    if kind not in ("fix", "retry"):
        return None
    if occasion == _LAST:
        give_up(db, charge, code)
        return None
    following = int(number or 0) + 1
    before, after = (0, *RETRY_DAYS)[following - 1 : following + 1]
    at = max(failed_at + timedelta(days=after), _now(db) + timedelta(days=after - before))
    again = ChargeFix(customer_id=charge.customer_id, charge_id=charge.id, occasion=f"retry:{following}")
    enqueue(db, again, run_at=at)
    return at


def redrive(db: Connection, customer_id: int, payment_method: str, occasion: str) -> None:
    """Try every charge that has failed at once on a payment method that has just arrived, once for each `occasion` of
    its arriving: whoever has put money on a card adds the same one again."""
    failed = select(charges.c.id).where(
        charges.c.customer_id == customer_id, charges.c.state.in_(("declined", "requires_action", "uncollectible"))
    )
    for charge_id in db.execute(failed.order_by(charges.c.id)).scalars():
        again = ChargeFix(customer_id=customer_id, charge_id=charge_id, occasion=f"card:{payment_method}:{occasion}")
        enqueue(db, again)


def tell(db: Connection, charge: Row[Any], kind: str, ref: str, **values: Any) -> None:
    """Enqueue a notice about the charge; `ref` makes it one of its kind."""
    fix = deployed(db, select(fixes.c.phase_result_id).where(fixes.c.id == charge.fix_id).scalar_subquery())
    about = {"amount_cents": charge.amount_cents, "repo": fix.repo, "issue_number": fix.issue_number}
    notice_ref = f"charge:{charge.id}:{ref}"
    enqueue(db, SendNotice(customer_id=charge.customer_id, kind=kind, ref=notice_ref, values={**about, **values}))


def refundable(db: Connection, charge_id: int) -> int:
    """Cents that were taken and neither given back, nor asked back, nor disputed; below 0 where more was disputed than
    was left."""
    outcomes = ("refunded", "refund_failed", "refund_refused")
    done = select(charge_entries.c.refund_number).where(
        charge_entries.c.charge_id == charge_id, charge_entries.c.kind.in_(outcomes)
    )
    taken: int = db.execute(
        select(func.coalesce(func.sum(charge_entries.c.amount_cents), 0)).where(charge_entries.c.charge_id == charge_id)
    ).scalar_one()
    asked: int = db.execute(
        select(func.coalesce(func.sum(charge_entries.c.asked_cents), 0)).where(
            charge_entries.c.charge_id == charge_id,
            charge_entries.c.refund_number.not_in(done.where(charge_entries.c.refund_number.is_not(None))),
        )
    ).scalar_one()
    return int(taken - asked)


def ask_refund(db: Connection, fix_id: int, cents: int | None, *, actor: str, reason: str) -> tuple[Any, int]:
    """Have `cents` of the fix's charge given back (None: all that is left), on record; returns the job's id and the
    cents.

    Raises:
        RefundRefused: the fix has no charge that was paid, or less than that is left of it.
    """
    charge = db.execute(select(charges).where(charges.c.fix_id == fix_id).with_for_update()).one_or_none()
    if charge is None:
        raise RefundRefused(f"fix {fix_id} has no charge of its own: there is nothing to refund")
    if charge.state != "succeeded":
        raise RefundRefused(f"the charge of fix {fix_id} is {charge.state}: nothing was taken")
    left = refundable(db, charge.id)
    cents = left if cents is None else cents
    if not 0 < cents <= left:
        raise RefundRefused(f"{cents} cents cannot be refunded: {left} of {charge.amount_cents} are left")
    last = select(func.coalesce(func.max(charge_entries.c.refund_number), 0))
    number = db.execute(last.where(charge_entries.c.charge_id == charge.id)).scalar_one() + 1
    note(db, charge.id, "refund_asked", refund_number=number, asked_cents=cents, reason=reason)
    ops.record(db, actor=actor, action="refund", subject=f"fix:{fix_id}", reason=f"{cents} cents: {reason}")
    job = enqueue(db, RefundCharge(customer_id=charge.customer_id, charge_id=charge.id, cents=cents, number=number))
    return job.job_id, cents


def refund_asked_at(db: Connection, charge_id: int, number: int) -> datetime:
    """When an operator asked for that refund of the charge.

    Raises:
        AlreadyDone: what came of it is known.
    """
    entries = select(charge_entries.c.kind, charge_entries.c.at).where(
        charge_entries.c.charge_id == charge_id, charge_entries.c.refund_number == number
    )
    at = {row.kind: row.at for row in db.execute(entries)}
    if at.keys() - {"refund_asked"}:
        raise AlreadyDone("what came of the refund is known")
    asked_at: datetime = at["refund_asked"]
    return asked_at


def refund_made(db: Connection, charge: Row[Any], *, number: int | None, cents: int, refund_id: str) -> None:
    """Stripe has given back so much; known already, it changes nothing. `number`: which of those that operators asked
    for it is; None: one that was made in Stripe's dashboard."""
    if not _has_refund(db, refund_id, "refunded"):
        note(db, charge.id, "refunded", -cents, refund_number=number, stripe_id=refund_id)
        tell(db, charge, "refunded", f"refund:{number or refund_id}", amount_cents=cents)


def refund_failed(db: Connection, charge: Row[Any], *, number: int | None, cents: int, refund_id: str) -> None:
    """Stripe tried to give back and could not: the money is with us again, and the customer has to say where else to
    send it. As `refund_made`."""
    if not _has_refund(db, refund_id, "refunded"):
        note(db, charge.id, "refunded", -cents, refund_number=number, stripe_id=refund_id)
    if not _has_refund(db, refund_id, "refund_failed"):
        note(db, charge.id, "refund_failed", cents, refund_number=number, stripe_id=refund_id)
        tell(db, charge, "refund_failed", f"refund:{number or refund_id}", amount_cents=cents)


def refund_refused(db: Connection, charge: Row[Any], *, number: int, reason: str) -> None:
    """Stripe did not take the refund that operators asked for: what it was to give back can be asked for again."""
    note(db, charge.id, "refund_refused", refund_number=number, reason=reason)


def _has_refund(db: Connection, refund_id: str, kind: str) -> bool:
    entry = select(charge_entries.c.id).where(charge_entries.c.stripe_id == refund_id, charge_entries.c.kind == kind)
    return db.execute(entry).first() is not None


def refund_number(charge_id: int, name: str | None) -> int | None:
    """Which refund of the charge is called that in Stripe (`refund:7:1`); None: it is not one that we asked for."""
    prefix, _, number = (name or "").rpartition(":")
    return int(number) if prefix == f"refund:{charge_id}" and number.isdigit() else None
