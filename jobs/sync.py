"""What Stripe's objects are now, written down: charges, customers and invoices, read because an event says that
something about them has changed (law 10). Nothing here takes or gives money."""

from typing import Any

from sqlalchemy import Connection, Row

from app.billing import charges, disputes, invoice_entries, invoices, payment_methods
from app.billing.tables import charge_entries
from app.contracts.webhooks import SyncCharge, SyncCustomer, SyncInvoicePayment, SyncInvoices
from app.customers import accounts
from app.ledger.errors import AlreadyDone, Busy, Permanent
from app.ledger.run import Run, handles
from app.stripe import calls, cards, payments
from app.stripe import invoices as bills
from app.stripe.client import Refused
from app.stripe.payments import Payment
from jobs.payment_methods import make_default


def _customer(run: Run[Any]) -> Row[Any]:
    """The customer; one who was deleted in Stripe, too.

    Raises:
        Busy: they have no counterpart in Stripe yet.
    """
    with run.transaction() as db:
        customer = accounts.get(db, run.payload.customer_id)
    if customer.stripe_customer_id is None:
        raise Busy("the customer is being provisioned")
    return customer


@handles(SyncCharge)
def sync_charge(run: Run[SyncCharge]) -> None:
    customer = _customer(run)
    with run.transaction() as db:
        charge = charges.get(db, run.payload.charge_id)
    intent_id = charge.payment_intent or _find_intent(customer, charge)
    payment = payments.get_payment(intent_id)
    payments.check_intent(
        payment.intent,
        amount_cents=charge.amount_cents,
        currency=charge.currency,
        stripe_customer=customer.stripe_customer_id,
        fix=charge.fix,
    )
    with run.finish({"payment_intent": intent_id, "status": payment.intent["status"]}) as db:
        if charge.payment_intent is None:
            charges.keep_intent(db, charge.id, intent_id)
        _keep_outcome(db, charge, payment, run.payload.occasion)
        for refund in payment.refunds:
            number = charges.refund_number(charge.id, refund.name)
            keep = charges.refund_failed if refund.failed else charges.refund_made
            keep(db, charge, number=number, cents=refund.cents, refund_id=refund.id)
        for dispute in disputes.keep(db, payment.disputes, charge_entries, charge_id=charge.id):
            about = {"amount_cents": dispute.amount_cents, "reason": dispute.reason}
            charges.tell(db, charge, "dispute_opened", f"dispute:{dispute.id}", **about)


def _find_intent(customer: Row[Any], charge: Row[Any]) -> str:
    """The intent of a charge that has none yet: its worker died, or the database was restored (failures.md 2, 40)."""
    intent = payments.find_intent(customer.stripe_customer_id, charge.fix)
    if intent is None:
        raise AlreadyDone("there is no payment intent in Stripe")
    return str(intent["id"])


def _keep_outcome(db: Connection, charge: Row[Any], payment: Payment, occasion: str) -> None:
    """What has become of the intent, where we do not know it. One that was refused is left to the retries."""
    intent = payment.intent
    if charge.state == "succeeded":
        return
    if intent["status"] == "succeeded":
        if intent["amount_received"] != charge.amount_cents:
            raise Permanent(f"payment intent {intent['id']} has taken {intent['amount_received']} cents")
        charges.succeed(db, charge, intent["id"])
    elif intent["status"] == "canceled":
        charges.write_off(db, charge)
    elif intent["status"] == "requires_action":
        sent = calls.latest(db, f"fix:{charge.fix}:confirm")
        number = sent.number if sent is not None else 1
        link = ((intent["next_action"] or {}).get("redirect_to_url") or {}).get("url")
        if number > charge.confirms and link is not None:
            charges.ask_customer(db, charge, occasion, number=number, url=link, intent_id=intent["id"])


@handles(SyncCustomer)
def sync_customer(run: Run[SyncCustomer]) -> None:
    """The default in Stripe and ours become one, also where a card was taken away there. One that is no card is what
    somebody wants Stripe to charge for Teams: it stays, and ours is a card for all that."""
    customer = _customer(run)
    wallet = cards.wallet(customer.stripe_customer_id)
    if wallet is None:
        with run.finish({"deleted": True}) as db:
            accounts.mark_deleted_in_stripe(db, customer.id)
            payment_methods.follow(db, customer, cards.Wallet([], None), run.payload.occasion)
        return
    default = payment_methods.default_of(customer, wallet)
    differs = default != customer.default_payment_method or default != wallet.default
    if differs and not wallet.default_is_no_card:
        try:
            make_default(run, customer, default)
        except Refused as error:
            raise Busy(f"a card has just changed: they are looked at again ({error})", give_up_after=3600) from None
    with run.finish({"cards": len(wallet.cards), "default": default}) as db:
        payment_methods.follow(db, customer, wallet, run.payload.occasion)


@handles(SyncInvoicePayment)
def sync_invoice_payment(run: Run[SyncInvoicePayment]) -> None:
    customer = _customer(run)
    found = bills.paid_with(run.payload.payment_intent)
    if found is None or found[0] != customer.stripe_customer_id:
        raise AlreadyDone("it is of no invoice of theirs")
    invoice = found[1]
    payment = payments.get_payment(run.payload.payment_intent)
    with run.finish({"invoice": invoice.id, "status": invoice.status}) as db:
        invoices.keep(db, customer.id, [invoice])
        invoice_entries.keep(db, customer.id, invoice, payment)


@handles(SyncInvoices)
def sync_invoices(run: Run[SyncInvoices]) -> None:
    customer = _customer(run)
    seen = bills.of_customer(customer.stripe_customer_id)
    with run.finish({"invoices": len(seen)}) as db:
        invoices.keep(db, customer.id, seen)
        invoices.forget_deleted(db, customer.id, seen)
