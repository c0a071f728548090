"""The kill switches that jobs obey: a command names its gate, and a closed gate holds its jobs (law 8)."""

from app.settings import get_settings

BILLING = "billing"
"""BILLING_ENABLED: every job that moves money."""


def closed_gates() -> list[str]:
    """The gates that this process's settings close."""
    return [] if get_settings().billing_enabled else [BILLING]
