"""What workers do: a module a subject. Importing this package registers every handler."""

from jobs import upkeep

__all__ = ["upkeep"]
