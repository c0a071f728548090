"""What workers do: a module a subject. Importing this package registers every handler."""

from jobs import (
    charges,
    fixes,
    invoices,
    mail,
    marketplace,
    overage,
    payment_methods,
    plans,
    provisioning,
    reconcile,
    sync,
    upkeep,
    webhooks,
)

__all__ = [
    "charges",
    "fixes",
    "invoices",
    "mail",
    "marketplace",
    "overage",
    "payment_methods",
    "plans",
    "provisioning",
    "reconcile",
    "sync",
    "upkeep",
    "webhooks",
]
