"""Commands of billing. All of one customer run one after another (law 7); those that move money stop at the
`billing` gate (BILLING_ENABLED)."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from app.ledger.command import Command
from app.ledger.gates import BILLING


class OfCustomer(Command, queue="billing"):
    """Of one customer: never two of them at once (law 7)."""

    customer_id: int

    @property
    def serialize_by(self) -> str:
        return f"customer:{self.customer_id}"

    @property
    def about_customer(self) -> int:
        return self.customer_id


class TrackFix(OfCustomer, queue="billing"):
    """Count a deployed fix, once for ever, and see what it costs."""

    phase_result_id: UUID

    @property
    def dedup_key(self) -> str:
        return f"track_fix:{self.phase_result_id}"


class ChargeFix(OfCustomer, queue="billing", gate=BILLING):
    """Take the money for a fix, or learn whether it has been taken."""

    charge_id: int
    occasion: str
    """What it is tried for: `fix`, `retry:1` to `retry:4`, `card:pm_…`, `return:…`."""

    @property
    def dedup_key(self) -> str:
        return f"charge:{self.charge_id}:{self.occasion}"


class RefundCharge(OfCustomer, queue="billing", gate=BILLING):
    """Give back a part of a charge, or all of it, as an operator asked."""

    charge_id: int
    cents: int
    number: int
    """Which refund of this charge it is, from 1."""

    @property
    def dedup_key(self) -> str:
        return f"refund:{self.charge_id}:{self.number}"


class SyncOverage(OfCustomer, queue="billing", gate=BILLING):
    """Tell Stripe the whole overage of a Teams period."""

    period_start: datetime
    occasion: str
    """`after:3`: three times it was told before; `fix:7`, or whatever else wants it told."""

    @property
    def dedup_key(self) -> str:
        return f"overage:{self.customer_id}:{self.period_start.isoformat()}:{self.occasion}"


class SyncSubscription(OfCustomer, queue="billing"):
    """Read a Teams subscription and its invoices in Stripe, and keep what they are now."""

    subscription_id: str
    occasion: str

    @property
    def dedup_key(self) -> str:
        return f"sync_subscription:{self.subscription_id}:{self.occasion}"


class AttachPaymentMethod(OfCustomer, queue="billing"):
    """Make a payment method the customer's default, and charge what failed for want of one."""

    payment_method: str
    request: str

    @property
    def dedup_key(self) -> str:
        return f"attach:{self.customer_id}:{self.payment_method}:{self.request}"


class DetachPaymentMethod(OfCustomer, queue="billing"):
    """Take a payment method from the customer."""

    payment_method: str
    request: str

    @property
    def dedup_key(self) -> str:
        return f"detach:{self.customer_id}:{self.payment_method}:{self.request}"


class OpenCheckout(OfCustomer, queue="billing", gate=BILLING):
    """Make a page of Stripe Checkout, where the customer enters a card or subscribes to Teams."""

    purpose: Literal["payment_method", "teams"]
    request: str

    @property
    def held_by(self) -> str | None:
        """A page that sells Teams charges by itself: none is opened where jobs that move money are held."""
        return self.gate if self.purpose == "teams" else None

    @property
    def dedup_key(self) -> str:
        return f"checkout:{self.customer_id}:{self.request}"


class CompleteCheckout(OfCustomer, queue="billing"):
    """See what came of a page of Stripe Checkout, and keep it."""

    session_id: str
    occasion: str

    @property
    def dedup_key(self) -> str:
        return f"complete_checkout:{self.session_id}:{self.occasion}"


class StartTeams(OfCustomer, queue="billing", gate=BILLING):
    """Subscribe the customer to Teams: charges the first month."""

    request: str
    wanted_at_signup: bool = False
    """It begins with the first card, by no request of its own."""

    @property
    def dedup_key(self) -> str:
        return f"start_teams:{self.customer_id}:{self.request}"


class StartPayg(OfCustomer, queue="billing"):
    """From now on, each deployed fix is charged at once. Moves no money itself."""

    request: str

    @property
    def dedup_key(self) -> str:
        return f"start_payg:{self.customer_id}:{self.request}"


class LeavePayg(OfCustomer, queue="billing"):
    """From now on the trial's rules hold again: nothing is charged without a new choice. Moves no money itself."""

    request: str

    @property
    def dedup_key(self) -> str:
        return f"leave_payg:{self.customer_id}:{self.request}"


class EndTeams(OfCustomer, queue="billing", gate=BILLING):
    """Cancel Teams, at once (which bills what overage is unbilled) or at the end of the period."""

    at_period_end: bool
    plan_after: Literal["trial", "payg"]
    request: str
    on_release: bool = False
    """At once was asked for while billing was held: meanwhile it ends with its period, and at once with the release."""

    @property
    def held_by(self) -> str | None:
        """Held, it would let Stripe take another month's. To end with the period moves no money."""
        return self.gate if self.on_release else None

    @property
    def dedup_key(self) -> str:
        return f"end_teams:{self.customer_id}:{self.request}" + (":on_release" if self.on_release else "")


class InvoiceOverage(OfCustomer, queue="billing", gate=BILLING):
    """Teams has ended: have the overage invoiced that no invoice of the subscription took. `late`: the invoice item, as
    it was told, of a fix that was counted after that had been done; empty: when Teams ends."""

    subscription_id: str
    late: str = ""

    @property
    def invoice_ref(self) -> str:
        """What the invoice is called in Stripe."""
        return f"{self.subscription_id}:{self.late}" if self.late else self.subscription_id

    @property
    def dedup_key(self) -> str:
        return f"invoice_overage:{self.invoice_ref}"


class PayInvoices(OfCustomer, queue="billing", gate=BILLING):
    """A card has arrived: charge to it what invoices of Teams have tried in vain."""

    occasion: str
    """What it arrived by: for each, an invoice is tried once."""

    @property
    def dedup_key(self) -> str:
        return f"pay_invoices:{self.customer_id}:{self.occasion}"


class ResumeTeams(OfCustomer, queue="billing"):
    """Take back a cancellation at the period's end."""

    request: str

    @property
    def dedup_key(self) -> str:
        return f"resume_teams:{self.customer_id}:{self.request}"


class SendNotice(Command, queue="mail", max_attempts=40):
    """Tell the customer something by mail, once. It waits for nobody: a mail server that hangs must not hold up what
    the customer is charged."""

    customer_id: int

    kind: str
    """One of those of `app/mail/notices/`, which say what values they take."""
    ref: str
    """What it is about, such as `fix:7`: one mail of a kind for each."""
    values: dict[str, Any]

    @property
    def about_customer(self) -> int:
        return self.customer_id

    @property
    def dedup_key(self) -> str:
        return f"notice:{self.kind}:{self.customer_id}:{self.ref}"
