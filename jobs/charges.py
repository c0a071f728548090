"""The charge of a fix on payg: taken once, and given back when an operator says so."""

from typing import Any

from sqlalchemy import Row, select

from app.billing import charges
from app.contracts.billing import ChargeFix, RefundCharge
from app.customers import accounts
from app.ledger.errors import AlreadyDone, Busy, Permanent, Unavailable
from app.ledger.run import Run, handles
from app.mail.links import account_url
from app.stripe import calls, customers, payments
from app.stripe.client import Declined, NotFound, Refused, StoredFailure


@handles(ChargeFix)
def charge_fix(run: Run[ChargeFix]) -> None:
    """Create the intent, then confirm it, each under a key of its own: a payment intent succeeds once at most.

    Whatever is not known to have failed is looked at in Stripe before anything is sent again.
    """
    job = run.payload
    with run.transaction() as db:
        charge = charges.get(db, job.charge_id)
        customer = accounts.get(db, job.customer_id)
        _refuse_what_is_over(charge, job.occasion)
        if customer.stripe_customer_id is None:
            raise Busy("the customer is being provisioned")
        creation = None
        if charge.payment_intent is None and customer.stripe_deleted_at is None:
            parameters = payments.intent_parameters(
                stripe_customer=customer.stripe_customer_id,
                fix_id=charge.fix_id,
                fix=charge.fix,
                amount_cents=charge.amount_cents,
                currency=charge.currency,
            )
            creation = calls.freeze(db, f"fix:{charge.fix}:pi", parameters)
            creation = calls.aged(creation, charge.created_at)
    if customer.stripe_deleted_at is not None:
        _lose(run, charge)
        return
    if creation is None:
        intent = payments.get_intent(charge.payment_intent)
    else:
        try:
            intent = payments.create_intent(creation)
        except NotFound:
            if not customers.is_deleted(customer.stripe_customer_id):
                raise
            _lose(run, charge)
            return
        with run.transaction() as db:
            charges.keep_intent(db, charge.id, intent["id"])
    payments.check_intent(
        intent,
        amount_cents=charge.amount_cents,
        currency=charge.currency,
        stripe_customer=customer.stripe_customer_id,
        fix=charge.fix,
    )
    _Attempt(run, charge, intent).settle()


def _refuse_what_is_over(charge: Row[Any], occasion: str) -> None:
    if charge.state == "succeeded":
        raise AlreadyDone("the charge is paid")
    if charge.state == "written_off":
        raise AlreadyDone("the charge is written off")
    if charge.state == "uncollectible" and occasion.startswith("retry:"):
        raise AlreadyDone("the charge is uncollectible: only the customer can still pay it")


def _lose(run: Run[ChargeFix], charge: Row[Any]) -> None:
    with run.finish({"state": "uncollectible"}) as db:
        accounts.mark_deleted_in_stripe(db, charge.customer_id)
        charges.give_up(db, charge, charges.DELETED)


class _Attempt:
    """Bring one intent to an outcome, as far as the customer's cards allow."""

    def __init__(self, run: Run[ChargeFix], charge: Row[Any], intent: payments.Intent) -> None:
        self._run, self._charge, self._intent = run, charge, intent
        self._known = charge.confirms
        """The newest confirmation whose outcome is known."""

    def settle(self) -> None:
        """Write down the outcome that the intent has, or confirm it."""
        status = self._intent["status"]
        if status == "succeeded":
            self._succeed()
        elif status == "processing":
            raise Busy("the payment is being processed")
        elif status == "canceled":
            with self._run.finish({"state": "written_off"}) as db:
                charges.write_off(db, self._charge)
        elif status == "requires_action" and not self._run.payload.occasion.startswith("card:"):
            self._wait_for_customer()
        else:
            self._confirm()

    def _wait_for_customer(self) -> None:
        """They have the link, or a worker died between Stripe's answer and the mail with it."""
        with self._run.transaction() as db:
            sent = calls.latest(db, f"fix:{self._charge.fix}:confirm")
        number = sent.number if sent is not None else 1
        if number > self._charge.confirms:
            self._ask_customer(number)
            return
        with self._run.finish({"state": "requires_action"}) as db:
            charges.still_waiting(db, self._charge, self._run.payload.occasion)

    def _succeed(self) -> None:
        if self._intent["amount_received"] != self._charge.amount_cents:
            raise Permanent(f"payment intent {self._intent['id']} has taken {self._intent['amount_received']} cents")
        with self._run.finish({"state": "succeeded"}) as db:
            charges.succeed(db, self._charge, self._intent["id"])

    def _confirm(self, *, on_session: bool = False) -> None:
        call = self._next_call(on_session)
        if call is None:
            self._decline(self._charge.decline_code or "no_payment_method", None, 0)
            return
        method = call.parameters["payment_method"]
        try:
            self._intent = payments.confirm_intent(self._intent["id"], call)
        except Declined as refused:
            self._intent = refused.payment_intent or payments.get_intent(self._intent["id"])
            code = refused.decline_code or refused.code
            self._refused(call, method, code, hard=refused.final or code in charges.HARD)
            return
        except Refused as error:
            if error.code == "payment_intent_unexpected_state":
                raise Busy("the payment intent has just changed: it is looked at again") from None
            if error.param != "payment_method":
                raise
            self._refused(
                call, method, "payment_method_unavailable", hard=True
            )  # detached since we looked (failures.md 23)
            return
        except StoredFailure as error:
            with self._run.transaction() as db:
                calls.renew(db, call)
            raise Unavailable(f"{error}: the intent is looked at before it is confirmed under a new key") from None
        self._known = call.number
        if self._intent["status"] == "succeeded":
            self._succeed()
        elif self._intent["status"] == "requires_action":
            self._ask_customer(call.number)
        else:
            raise Busy(f"the payment intent is {self._intent['status']}")

    def _next_call(self, on_session: bool) -> calls.Call | None:
        """The confirmation to send: one whose outcome is not known, again under its key; else the next number, on what
        is the default payment method now. None: there is no method to try."""
        operation = f"fix:{self._charge.fix}:confirm"
        with self._run.transaction() as db:
            sent = calls.latest(db, operation)
            if sent is not None and sent.number > self._known and sent.age_s < calls.LOOK_FIRST_S:
                return sent
            # Where its key is too old to be relied on, the look at the intent has shown that it took nothing.
            customer = accounts.get(db, self._charge.customer_id)
            method = customer.default_payment_method
            if method is None or db.execute(select(charges.is_ruled_out(self._charge.id, method))).scalar_one():
                return None
            parameters: dict[str, Any] = {"payment_method": method, "off_session": not on_session}
            if on_session:
                parameters["return_url"] = account_url(customer.id, self._run.claim.created_at)
            return calls.freeze(db, operation, parameters, (sent.number if sent else 0) + 1)

    def _refused(self, call: calls.Call, method: str, code: str, *, hard: bool) -> None:
        """The outcome of a confirmation: refused. Where the bank only wants to hear the customer, ask for a link;
        where another card has become the default meanwhile, try that."""
        self._known = call.number
        if code == "authentication_required" and call.parameters["off_session"]:
            self._confirm(on_session=True)
            return
        with self._run.transaction() as db:
            default = accounts.get(db, self._charge.customer_id).default_payment_method
        if default is not None and default != method:
            self._confirm()
        else:
            self._decline(code, method if hard else None, call.number)

    def _decline(self, code: str, refused: str | None, number: int) -> None:
        with self._run.finish({"state": "declined", "reason": code}) as db:
            charges.decline(
                db,
                self._charge,
                self._run.payload.occasion,
                number=number,
                code=code,
                refused=refused,
                intent_id=self._intent["id"],
            )

    def _ask_customer(self, number: int) -> None:
        url = ((self._intent["next_action"] or {}).get("redirect_to_url") or {}).get("url")
        if url is None:
            raise Permanent(f"payment intent {self._intent['id']} wants an action that has no link")
        with self._run.finish({"state": "requires_action"}) as db:
            charges.ask_customer(
                db,
                self._charge,
                self._run.payload.occasion,
                number=number,
                url=url,
                intent_id=self._intent["id"],
            )


@handles(RefundCharge)
def refund_charge(run: Run[RefundCharge]) -> None:
    job = run.payload
    with run.transaction() as db:
        charge = charges.get(db, job.charge_id)
        asked_at = charges.refund_asked_at(db, charge.id, job.number)
        name = f"refund:{charge.id}:{job.number}"
        parameters = {
            "payment_intent": charge.payment_intent,
            "amount": job.cents,
            "metadata": {"refund": name, "fix_id": str(charge.fix_id)},
        }
        call = calls.aged(calls.freeze(db, name, parameters), asked_at)
    try:
        refund = payments.create_refund(call)
    except NotFound:
        raise  # our key is of another account, say: it can be tried again
    except Refused as error:
        with run.transaction() as db:
            charges.refund_refused(db, charge, number=job.number, reason=str(error))
        raise
    if (refund["amount"], refund["currency"]) != (job.cents, charge.currency):
        raise Permanent(f"refund {refund['id']} is of {refund['amount']} {refund['currency']}, not of {job.cents}")
    made = charges.refund_failed if refund["status"] in ("failed", "canceled") else charges.refund_made
    with run.finish({"refund": refund["id"], "status": refund["status"]}) as db:
        made(db, charge, number=job.number, cents=job.cents, refund_id=refund["id"])
