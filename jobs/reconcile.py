"""What Stripe has and never told us is looked for by the clock."""

from typing import Any

from app.billing.reconcile import Sweep
from app.contracts.upkeep import Reconcile
from app.ledger.run import Run, handles
from app.logs import log


@handles(Reconcile)
def reconcile(run: Run[Reconcile]) -> None:
    sweep = Sweep(run.transaction, f"reconcile:{run.claim.job_id}", fix=True)
    sweep.catch_up()
    for row in sweep.drift:
        log.warning("reconcile.drift", **row)
    came_to: dict[str, Any] = {"checked": dict(sweep.checked), "drift": len(sweep.drift), "left": sweep.left}
    with run.finish(came_to):
        pass
