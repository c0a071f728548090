"""What Stripe has and never told us is looked for by the clock; and what a restored database has forgotten that it
did is written down again."""

from datetime import UTC, datetime
from typing import Any

from app.billing import overage
from app.billing.reconcile import Sweep
from app.contracts.upkeep import Reconcile
from app.contracts.webhooks import LearnOverage, RememberIntent
from app.ledger.run import Run, handles
from app.logs import log
from app.stripe import calls, payments
from app.stripe import overage as items

_SHOWN = 50
"""What needs an operator is kept with the job, so many rows at most; `tallyhook reconcile` has them all."""


@handles(Reconcile)
def reconcile(run: Run[Reconcile]) -> None:
    sweep = Sweep(run.transaction, f"reconcile:{run.claim.job_id}", fix=True)
    sweep.catch_up()
    for row in sweep.drift:
        log.warning("reconcile.drift", **row)
    came_to: dict[str, Any] = {
        "checked": dict(sweep.checked),
        "drift": len(sweep.drift),
        "left": sweep.left,
        "needs_operator": [row for row in sweep.drift if not row["repaired"]][:_SHOWN],
    }
    with run.finish(came_to):
        pass


@handles(RememberIntent)
def remember_intent(run: Run[RememberIntent]) -> None:
    """The fix's charge will take this for its own call, sent when the intent was made: long ago, so it looks first."""
    intent = payments.get_intent(run.payload.payment_intent)
    fix = intent["metadata"]["fix"]
    parameters = payments.intent_parameters(
        stripe_customer=intent["customer"],
        fix_id=int(intent["metadata"]["fix_id"]),
        fix=fix,
        amount_cents=intent["amount"],
        currency=intent["currency"],
    )
    with run.finish({"fix": fix}) as db:
        calls.freeze(db, f"fix:{fix}:pi", parameters, sent_at=datetime.fromtimestamp(intent["created"], UTC))


@handles(LearnOverage)
def learn_overage(run: Run[LearnOverage]) -> None:
    """Only what is more than is known here: the rest is not ours to explain."""
    customer_id, start = run.payload.customer_id, run.payload.period_start
    item = items.get_item(run.payload.invoice_item)
    with run.finish({"fixes": item.fixes, "amount_cents": item.amount_cents}) as db:
        known = {told.item: told.fixes for told in overage.read(db, customer_id, start).told}
        if item.fixes > known.get(item.id, 0):
            overage.note(db, customer_id, start, item)
