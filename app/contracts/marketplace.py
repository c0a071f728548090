"""Commands of plans that are bought on the GitHub Marketplace."""

from app.contracts.billing import OfCustomer


class ApplyMarketplacePlan(OfCustomer, queue="billing"):
    """Give the customer the plan that GitHub says they have at this moment. Moves no money itself."""

    occasion: str
    """What it is looked at for: `delivery:…`, or `date:…` where something takes effect."""

    @property
    def dedup_key(self) -> str:
        return f"marketplace_plan:{self.customer_id}:{self.occasion}"
