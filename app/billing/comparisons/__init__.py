"""What is compared between Stripe's objects and ours, a kind at a time, and which command mends what differs.

A repair is a command that reads the object and keeps what it is now, the same that webhooks end in: none of them moves
money. Where only a charge, or a person's judgement, could make the two agree, an operator is asked for.
"""

from app.billing.comparisons.charges import CHARGES
from app.billing.comparisons.comparison import Comparison, Difference
from app.billing.comparisons.customers import CUSTOMERS
from app.billing.comparisons.invoices import INVOICES
from app.billing.comparisons.overage import OVERAGE
from app.billing.comparisons.refunds import DISPUTES, REFUNDS
from app.billing.comparisons.subscriptions import SUBSCRIPTIONS

__all__ = ["COMPARISONS", "Comparison", "Difference"]

COMPARISONS: dict[str, Comparison] = {
    "customers": CUSTOMERS,
    "subscriptions": SUBSCRIPTIONS,
    "charges": CHARGES,
    "refunds": REFUNDS,
    "disputes": DISPUTES,
    "overage": OVERAGE,
    "invoices": INVOICES,
}
"""By kind of object, in the order of what depends on what."""
