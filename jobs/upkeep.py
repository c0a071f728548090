"""Keeping the house in order."""

from app.contracts.upkeep import PruneLedger
from app.ledger.executor import Run, handles
from app.ledger.retention import prune_jobs, prune_keys


@handles(PruneLedger)
def prune_ledger(run: Run[PruneLedger]) -> None:
    """In small transactions, so that nobody waits for a long delete."""
    for prune in (prune_jobs, prune_keys):
        while True:
            with run.transaction() as db:
                if not prune(db):
                    break
