"""Keeping the house in order."""

import redis

from app.billing import payment_methods
from app.contracts.upkeep import BuryApiKey, PruneLedger, WarnOfExpiringCards
from app.customers import api_keys
from app.ledger.errors import Busy
from app.ledger.retention import prune_jobs, prune_keys
from app.ledger.run import Run, handles


@handles(BuryApiKey)
def bury_api_key(run: Run[BuryApiKey]) -> None:
    try:
        api_keys.bury(run.payload.digest)
    except redis.RedisError as error:
        raise Busy(f"Redis cannot be reached: {type(error).__name__}") from None


@handles(PruneLedger)
def prune_ledger(run: Run[PruneLedger]) -> None:
    """In small transactions, so that nobody waits for a long delete."""
    for prune in (prune_jobs, prune_keys):
        while True:
            with run.transaction() as db:
                if not prune(db):
                    break


@handles(WarnOfExpiringCards)
def warn_of_expiring_cards(run: Run[WarnOfExpiringCards]) -> None:
    with run.finish() as db:
        payment_methods.warn_of_expiry(db)
