"""The JSON bodies of the HTTP interface (interface.md)."""

from datetime import datetime
from math import isfinite
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_serializer,
)

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


_MAX_DEPTH = 100
_MAX_BIGINT = 2**63 - 1


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must have printable characters only")
    return value


def _storable(value: Any, depth: int = 0) -> Any:
    """Refuses what the JSON of PostgreSQL cannot hold, or does not give back as it came."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"must not be nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, dict):
        for name, item in value.items():
            _storable(name, depth)
            _storable(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _storable(item, depth + 1)
    elif isinstance(value, str):
        _no_nul(value)
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("must not contain half a surrogate pair")
    elif isinstance(value, float) and not isfinite(value):
        raise ValueError("must not contain a number that is too large")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("must not contain an integer of more than 64 bits")
    return value


Repo = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$", max_length=200)]
Commit = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_./-]+$", max_length=64)]
PhaseName = Literal["scan", "validate", "validation", "mitigate", "mitigation"]


class PhaseBody(BaseModel):
    """`POST /api/v1/phase-data`, in camelCase or snake_case. What else the Action sends is ignored.

    `issueNumber` is needed for every phase but a scan. Without a `status`, `data` tells it by `fixed` or `validated`.
    """

    phase: PhaseName
    status: (
        Annotated[
            str,
            StringConstraints(strip_whitespace=True, to_lower=True, min_length=1, max_length=50),
            AfterValidator(_printable),
        ]
        | None
    ) = None
    repo: Repo
    commit_sha: Commit = Field(validation_alias=AliasChoices("commitSha", "commit_sha"))
    issue_number: Annotated[int, Field(strict=True, gt=0, le=_MAX_BIGINT)] | None = Field(
        None, validation_alias=AliasChoices("issueNumber", "issue_number"), validate_default=True
    )
    data: Annotated[dict[str, Any], AfterValidator(_storable)] = {}
    fix_id: Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_printable)] | None = Field(
        None, validation_alias=AliasChoices("fix_id", "fixId")
    )

    @field_validator("issue_number")
    @classmethod
    def _needed(cls, value: int | None, others: ValidationInfo) -> int | None:
        phase = others.data.get("phase", "scan")
        if value is None and phase != "scan":
            raise ValueError(f"issueNumber is required for {phase}")
        return value


class PhaseAccepted(BaseModel):
    """The answer to a phase event. `duplicate`: the same had come before, and nothing was done again."""

    success: Literal[True] = True
    id: UUID
    phase: PhaseName
    duplicate: bool


class PhasesQuery(BaseModel):
    """`GET /api/v1/phases/retrieve`"""

    repo: Repo
    commit: Commit
    issue: Annotated[int, Field(gt=0, le=_MAX_BIGINT)] | None = None


class Phases(BaseModel):
    """The newest data of each phase at a commit, by issue number; phases without any are left out."""

    scan: dict[str, Any] | None = None
    validation: dict[str, dict[str, Any]] | None = None
    mitigation: dict[str, dict[str, Any]] | None = None

    @model_serializer(mode="wrap")
    def _found(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {phase: found for phase, found in dump(self).items() if found is not None}


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
