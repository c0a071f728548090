"""Commands that keep the house in order; the relay's calendar makes them."""

from app.ledger.command import Command


class BuryApiKey(Command, queue="upkeep"):
    """Overrule what the cache holds of a revoked key, once Redis can be reached again."""

    digest: str
    """The key's SHA-256, in hex."""

    @property
    def dedup_key(self) -> str:
        return f"bury_api_key:{self.digest}"


class PruneLedger(Command, queue="upkeep", every=3600):
    """Delete finished jobs after 30 days and free keys after 90."""

    period: str
    """The start of the hour (ISO 8601, UTC) that this job is for."""

    @property
    def dedup_key(self) -> str:
        return f"prune_ledger:{self.period}"


class WarnOfExpiringCards(Command, queue="upkeep", every=86400):
    """Tell customers whose card is about to expire."""

    period: str
    """The start of the day (ISO 8601, UTC) that this job is for."""

    @property
    def dedup_key(self) -> str:
        return f"warn_of_expiring_cards:{self.period}"


class Reconcile(Command, queue="upkeep", every=3600):
    """Fetch the events of Stripe's that never arrived, and once a day compare every open object."""

    period: str
    """The start of the hour (ISO 8601, UTC) that this job is for."""

    @property
    def dedup_key(self) -> str:
        return f"reconcile:{self.period}"

    @property
    def serialize_by(self) -> str:
        return "reconcile"
