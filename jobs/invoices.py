"""Invoices of Teams that could not be charged are charged when a card arrives."""

from typing import Any

from sqlalchemy import Row

from app.billing import invoices, subscriptions
from app.contracts.billing import PayInvoices
from app.customers import accounts
from app.ledger.errors import AlreadyDone, Busy
from app.ledger.run import Run, handles
from app.stripe import calls
from app.stripe import invoices as bills
from app.stripe import subscriptions as gateway
from app.stripe.client import Declined, Refused
from app.stripe.invoices import Invoice
from jobs.payment_methods import ready_customer


@handles(PayInvoices)
def pay_invoices(run: Run[PayInvoices]) -> None:
    """Stripe's own retries may be days away, or over. What is declined again stays with them."""
    customer = ready_customer(run, run.payload.customer_id, deleted=AlreadyDone)
    paid = [bill.id for bill in bills.of_customer(customer.stripe_customer_id) if bill.payable and _pay(run, bill)]
    with run.transaction() as db:
        known = subscriptions.open_subscription(db, customer.id)
    seen = gateway.retrieve(known.id) if known is not None else None
    its_invoices = bills.of_customer(customer.stripe_customer_id)
    with run.finish({"paid": paid}) as db:
        if seen is not None:
            subscriptions.keep(db, customer.id, seen, its_invoices)
        else:
            invoices.keep(db, customer.id, its_invoices)


def _pay(run: Run[PayInvoices], invoice: Invoice) -> bool:
    """Whether the customer's default card has paid it."""
    with run.transaction() as db:
        customer: Row[Any] = accounts.get(db, run.payload.customer_id)
        if customer.default_payment_method is None:
            raise AlreadyDone("the card is gone again")
        wanted = {"payment_method": customer.default_payment_method, "off_session": True}
        call = calls.freeze(db, f"pay_invoice:{invoice.id}:{run.payload.occasion}", wanted)
    try:
        return bills.pay(invoice.id, call).status == "paid"
    except Declined:
        return False
    except Refused as error:
        if error.param == "payment_method":
            return False  # detached since
        raise Busy(f"the invoice has just changed: it is looked at again ({error})", give_up_after=3600) from None
