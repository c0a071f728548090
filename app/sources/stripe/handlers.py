"""What Stripe's events lead to: the object that each is about is read, by a job of its customer's."""

from typing import Any

from app.billing import events
from app.contracts.webhooks import StripeEvent
from app.ledger.errors import Busy
from app.ledger.run import Run, handles
from app.metrics import WEBHOOKS

_KNOWN_WITHIN_S = 3600.0
"""How long an event waits for us to know its customer or payment (failures.md 7)."""
_SOON_S = 60.0
_AT_LEAST_EVERY_S = 600.0


@handles(StripeEvent)
def stripe_event(run: Run[StripeEvent]) -> None:
    event = run.payload.event
    occasion = f"event:{run.claim.key.removeprefix('stripe:')}"  # a replay's key is not its event's
    try:
        find, seen = events.read(event, occasion)
        try:
            _follow(run, find, seen)
        except events.Unknown as unknown:
            of_invoice = events.of_invoice(unknown)
            if of_invoice is None:
                raise
            _follow(run, of_invoice, seen)
    except events.Ignored as ignored:
        _ignore(run, str(ignored))
    except events.Unknown as unknown:
        if events.is_ours(unknown):
            raise _not_yet(unknown, run.claim.busy_s) from None
        _ignore(run, "it is not ours", about={unknown.kind: unknown.id})
    else:
        WEBHOOKS.labels("stripe", event["type"], "followed").inc()


def _follow(run: Run[StripeEvent], find: events.Find, seen: events.Seen) -> None:
    came_to: dict[str, Any] = {}
    with run.finish(came_to) as db:
        came_to |= events.follow(db, find(db, seen))


def _not_yet(unknown: events.Unknown, waited_s: float) -> Busy:
    """Our own commit comes within the first minute. Who is not known by then may never be: each look costs a request,
    and a restore can have lost many customers (failures.md 40)."""
    later = min(waited_s, _AT_LEAST_EVERY_S) if waited_s > _SOON_S else None
    return Busy(str(unknown), retry_after=later, give_up_after=_KNOWN_WITHIN_S)


def _ignore(run: Run[StripeEvent], reason: str, **more: Any) -> None:
    with run.finish({"ignored": reason, **more}):
        pass
    WEBHOOKS.labels("stripe", run.payload.event["type"], reason).inc()
