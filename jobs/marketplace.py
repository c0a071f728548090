"""The plan that a customer has bought on the GitHub Marketplace."""

from typing import Any

from app.contracts.marketplace import ApplyMarketplacePlan
from app.github import marketplace
from app.ledger.run import Run, handles


@handles(ApplyMarketplacePlan)
def apply_marketplace_plan(run: Run[ApplyMarketplacePlan]) -> None:
    result: dict[str, Any] = {}
    with run.finish(result) as db:
        result["plan"] = marketplace.apply(db, run.payload.customer_id)
