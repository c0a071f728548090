"""What workers do: a module a subject. Importing this package registers every handler."""

from jobs import mail, provisioning, upkeep

__all__ = ["mail", "provisioning", "upkeep"]
