"""What workers do: a module a subject. Importing this package registers every handler."""

from jobs import provisioning, upkeep

__all__ = ["provisioning", "upkeep"]
