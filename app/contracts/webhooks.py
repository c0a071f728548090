"""Commands that come of what Stripe and GitHub send, and those that read an object in Stripe and keep what it is now
(law 10): a webhook says that something changed, the object says what."""

from datetime import datetime
from typing import Any

from app.contracts.billing import OfCustomer
from app.ledger.command import Command


class StripeEvent(Command, queue="webhooks"):
    """See whose an event of Stripe's is, and have its object read. Keeps the event whole."""

    event: dict[str, Any]

    @property
    def dedup_key(self) -> str:
        return f"stripe:{self.event['id']}"


class GithubEvent(Command, queue="webhooks"):
    """Apply what GitHub tells of an installation or a Marketplace purchase. Keeps the delivery whole."""

    delivery: str
    event: str
    """The value of X-GitHub-Event, such as `marketplace_purchase`."""
    body: dict[str, Any]

    @property
    def dedup_key(self) -> str:
        return f"github:{self.delivery}"


class SyncCharge(OfCustomer, queue="billing"):
    """Read a charge's payment intent, refunds and disputes in Stripe, and keep what they are now. Moves no money."""

    charge_id: int
    occasion: str

    @property
    def dedup_key(self) -> str:
        return f"sync_charge:{self.charge_id}:{self.occasion}"


class RememberIntent(OfCustomer, queue="billing"):
    """Remember a payment intent of a fix that is not here: should the fix come again, its charge finds the intent."""

    payment_intent: str
    occasion: str

    @property
    def dedup_key(self) -> str:
        return f"remember_intent:{self.payment_intent}:{self.occasion}"


class LearnOverage(OfCustomer, queue="billing"):
    """Read an overage's invoice item in Stripe, and note what it was set to, where that is forgotten here."""

    period_start: datetime
    invoice_item: str
    occasion: str

    @property
    def dedup_key(self) -> str:
        return f"learn_overage:{self.invoice_item}:{self.occasion}"


class SyncCustomer(OfCustomer, queue="billing"):
    """Read the customer and their payment methods in Stripe, and keep what they are now."""

    occasion: str

    @property
    def dedup_key(self) -> str:
        return f"sync_customer:{self.customer_id}:{self.occasion}"


class SyncInvoicePayment(OfCustomer, queue="billing"):
    """Read the payment of an invoice in Stripe, and keep what was given back of it or disputed. Moves no money."""

    payment_intent: str
    occasion: str

    @property
    def dedup_key(self) -> str:
        return f"sync_invoice_payment:{self.payment_intent}:{self.occasion}"


class SyncInvoices(OfCustomer, queue="billing"):
    """Read the customer's invoices in Stripe, and keep what they are now."""

    occasion: str

    @property
    def dedup_key(self) -> str:
        return f"sync_invoices:{self.customer_id}:{self.occasion}"
