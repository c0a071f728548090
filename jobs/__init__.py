"""What workers do: a module a subject. Importing this package registers every handler."""

from jobs import billing, github, mail, payment_methods, plans, provisioning, reconcile, sync, upkeep, webhooks

__all__ = [
    "billing",
    "github",
    "mail",
    "payment_methods",
    "plans",
    "provisioning",
    "reconcile",
    "sync",
    "upkeep",
    "webhooks",
]
