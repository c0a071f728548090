"""What GitHub's deliveries lead to. A new event is a function and a line in `_EVENTS`."""

from collections.abc import Callable
from typing import Any

from app.contracts.marketplace import ApplyMarketplacePlan
from app.contracts.webhooks import GithubEvent
from app.github import deliveries, installations, marketplace
from app.ledger.enqueue import enqueue
from app.ledger.errors import Busy, Permanent
from app.ledger.run import Run, handles
from app.metrics import WEBHOOKS

_APPROVED_WITHIN_S = 30 * 86400.0
"""How long a purchase waits for its customer, whose signup may wait for approval (AUTO_PROVISION)."""


def _ping(run: Run[GithubEvent]) -> None:
    """GitHub tries a webhook that was just set up."""
    with run.finish({"answered": "ping"}):
        pass


def _installation(run: Run[GithubEvent]) -> None:
    said = deliveries.read(deliveries.Installation, run.payload.body)
    result = {"action": said.action, "installation": said.installation.id}
    with run.finish(result) as db:
        result["state"] = installations.keep(db, said)


def _marketplace_purchase(run: Run[GithubEvent]) -> None:
    """Whose it is comes first: who has paid gets their account also where the plan is not known here yet."""
    job = run.payload
    said = deliveries.read(deliveries.MarketplacePurchase, job.body)
    if said.action not in marketplace.ACTIONS:
        _ignore(run, "unknown action")
        return
    with run.transaction() as db:
        buyer = marketplace.buyer(db, said)
    with run.transaction() as db:
        marketplace.keep(db, said, delivery=job.delivery, received_at=run.claim.created_at)
    if buyer == (None, None):
        login = said.marketplace_purchase.account.login
        raise Permanent(
            f"GitHub names no e-mail address of the account {login}, so there is nobody to provision. The purchase is"
            " kept: it counts as soon as a delivery names one. Ask them to set a billing e-mail on GitHub"
        )
    if buyer.customer_id is None:
        raise Busy("the customer is being made", give_up_after=_APPROVED_WITHIN_S)
    occasion = f"delivery:{run.claim.key.removeprefix('github:')}"  # a replay has one of its own
    follow = ApplyMarketplacePlan(customer_id=buyer.customer_id, occasion=occasion)
    came_to: dict[str, Any] = {"action": said.action, "customer_id": buyer.customer_id, "command": follow.name}
    with run.finish(came_to) as db:
        came_to["job_id"] = str(enqueue(db, follow).job_id)


_EVENTS: dict[str, Callable[[Run[GithubEvent]], None]] = {
    "ping": _ping,
    "installation": _installation,
    "marketplace_purchase": _marketplace_purchase,
}
"""By X-GitHub-Event."""


@handles(GithubEvent)
def github_event(run: Run[GithubEvent]) -> None:
    event = run.payload.event
    follow = _EVENTS.get(event)
    if follow is None:
        _ignore(run, "unknown event")
    else:
        follow(run)
    WEBHOOKS.labels("github", event, "ignored" if follow is None else "followed").inc()


def _ignore(run: Run[GithubEvent], why: str) -> None:
    with run.finish({"ignored": why}):
        pass
