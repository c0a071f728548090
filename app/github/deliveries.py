"""What we read of GitHub's deliveries, and when they were made. Whatever else they say is ignored."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, ValidationError

from app.customers.addresses import AddressRefused, normalise
from app.ledger.errors import Permanent

D = TypeVar("D", bound=BaseModel)

_GREGORIAN = datetime(1582, 10, 15, tzinfo=UTC)
"""From when time-based UUIDs count."""
_NO_REPLY = "noreply.github.com"


def _in_utc(at: datetime) -> datetime:
    if not 2000 <= at.year < 2200:
        raise ValueError("is not a time of this world")
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


Instant = Annotated[datetime, AfterValidator(_in_utc)]
Id = Annotated[int, Field(gt=0, lt=2**63)]
Login = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Account(BaseModel):
    """A user or an organization."""

    id: Id
    login: Login
    type: str
    organization_billing_email: str | None = None


class Sender(BaseModel):
    """Who did it."""

    email: str | None = None


class Plan(BaseModel):
    """A plan of our listing on the Marketplace."""

    id: int
    name: str


class Purchase(BaseModel):
    """The whole purchase, as it is from the delivery's effective date on."""

    account: Account
    plan: Plan
    unit_count: int | None = None
    next_billing_date: Instant | None = None


class PurchaseBefore(BaseModel):
    """The purchase as it was until then."""

    plan: Plan | None = None


class MarketplacePurchase(BaseModel):
    """The event `marketplace_purchase`."""

    action: str
    effective_date: Instant | None = None
    sender: Sender | None = None
    marketplace_purchase: Purchase
    previous_marketplace_purchase: PurchaseBefore | None = None

    @property
    def email(self) -> str | None:
        """Where whoever pays can be reached: the organization's address for bills, else the sender's."""
        account, sender = self.marketplace_purchase.account, self.sender
        for address in (account.organization_billing_email, sender and sender.email):
            try:
                if address and not address.endswith(_NO_REPLY):
                    return normalise(address)
            except AddressRefused:
                continue
        return None


class InstallationOf(BaseModel):
    """An installation of the GitHub App, as it is."""

    id: Id
    account: Account
    updated_at: Instant
    suspended_at: Instant | None = None


class Installation(BaseModel):
    """The event `installation`."""

    action: str
    installation: InstallationOf


def read(event: type[D], body: dict[str, Any]) -> D:
    """What `body` says.

    Raises:
        Permanent: it is not of the shape that such an event has. What it was is not repeated.
    """
    try:
        return event.model_validate(body)
    except ValidationError as error:
        wrong = sorted({".".join(map(str, item["loc"])) for item in error.errors(include_input=False)})
        raise Permanent(f"not the shape of this event: {', '.join(wrong)}") from None


def made_at(delivery: str) -> datetime | None:
    """When GitHub made the delivery, which its id tells as long as it is a time-based UUID; a redelivery keeps the id.
    Nothing in the body says in which order two of the same effective date were made."""
    try:
        made = UUID(delivery)
    except ValueError:
        return None
    return _GREGORIAN + timedelta(microseconds=made.time // 10) if made.version == 1 else None
