"""The JSON bodies of the HTTP interface (interface.md)."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from app.customers.addresses import normalise


def _no_nul(value: str) -> str:
    if "\x00" in value:
        raise ValueError("must not contain the NUL character")
    return value


# Constraints stand before validators: after one, Pydantic checks the length of the string and strips it then.
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_no_nul)]
Email = Annotated[
    str,
    StringConstraints(max_length=254),
    AfterValidator(_no_nul),
    AfterValidator(normalise),
    Field(json_schema_extra={"format": "email"}),
]


class SignupBody(BaseModel):
    """`POST /api/v1/customers`"""

    model_config = ConfigDict(extra="forbid")

    email: Email
    name: Name
    plan: Literal["trial", "payg", "teams"] = "trial"
    source: Literal["direct", "gh_marketplace", "early_access"] = "direct"


SignupStatus = Literal["queued", "provisioning", "awaiting_approval", "provisioned", "failed", "rejected"]
StepState = Literal["waiting", "queued", "held", "running", "retrying", "succeeded", "dead", "cancelled"]


class SignupAccepted(BaseModel):
    """The answer to a signup. `duplicate`: this Idempotency-Key was seen before."""

    signup_id: UUID
    status: SignupStatus
    status_url: str
    duplicate: bool


class Step(BaseModel):
    """One step of provisioning; `waiting` until the step before it has succeeded."""

    name: str
    state: StepState
    attempts: int
    finished_at: datetime | None


class SignupProgress(BaseModel):
    """How far a signup has come."""

    signup_id: UUID
    status: SignupStatus
    steps: list[Step]


class BillingStatus(BaseModel):
    """Billing → Provisioning (seed, "Data Contracts"), and what a customer sees of their plan."""

    customer_id: int
    plan: Literal["trial", "payg", "teams"]
    stripe_customer_id: str | None
    subscription_status: str
    can_use_service: bool
    current_usage: int
    included: int
    remaining: int
    overage: int
    period_start: datetime | None
    period_end: datetime | None


class JobView(BaseModel):
    """A job as the customer whose it is sees it."""

    id: UUID
    name: str
    state: str
    attempts: int
    result: dict[str, Any] | None
    error: dict[str, Any] | None


class NewApiKey(BaseModel):
    """A new key. `api_key` is shown this once."""

    id: int
    api_key: str


class Problem(BaseModel):
    """RFC 9457. `errors` says which part of a body to change, and why."""

    class Item(BaseModel):
        """One part of the body."""

        loc: list[str | int]
        msg: str

    type: str
    title: str
    status: int
    detail: str
    errors: list[Item] | None = None
