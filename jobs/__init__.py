"""What workers do: a module a subject. Importing this package registers every handler."""

from jobs import billing, mail, marketplace, payment_methods, plans, provisioning, reconcile, sync, upkeep, webhooks

__all__ = [
    "billing",
    "mail",
    "marketplace",
    "payment_methods",
    "plans",
    "provisioning",
    "reconcile",
    "sync",
    "upkeep",
    "webhooks",
]
