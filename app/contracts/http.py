"""The JSON bodies of the HTTP interface (interface.md)."""

import re
from datetime import UTC, date, datetime, timedelta
from functools import partial
from math import isfinite
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)

from app.customers.addresses import normalise


def _no_nul(value: str) -> str:
    if "\x00" in value:
        raise ValueError("must not contain the NUL character")
    return value


CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""What a terminal or a page obeys instead of showing it: control characters, breaks of lines, turns of direction. What
else `isprintable` refuses belongs in names: a Persian one is joined by U+200C, a Japanese one parted by U+3000."""


def _no_controls(value: str) -> str:
    if found := CONTROLS.search(value):
        raise ValueError(f"must not contain control characters, such as U+{ord(found[0]):04X}")
    return value


# Constraints stand before validators: after one, Pydantic checks the length of the string and strips it then.
Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_no_controls)
]
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
JobState = Literal["queued", "held", "running", "retrying", "succeeded", "dead", "cancelled"]
StepState = Literal["waiting", JobState]


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
    """A job as the customer whose it is sees it. `error` is that of the last attempt."""

    class Error(BaseModel):
        """What went wrong, or why it waits."""

        kind: str | None
        message: str | None

    id: UUID
    name: str
    state: JobState
    attempts: int
    result: dict[str, Any] | None
    error: Error | None


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
    `customerId` need not be there; an event that names another customer than the API key's is refused.
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
    customer_id: Annotated[int, Field(strict=True)] | None = Field(
        None, validation_alias=AliasChoices("customerId", "customer_id")
    )

    @field_validator("issue_number")
    @classmethod
    def _needed(cls, value: int | None, others: ValidationInfo) -> int | None:
        phase = others.data.get("phase", "scan")
        if value is None and phase != "scan":
            raise ValueError(f"is required for {phase}")
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


_EARLIEST, _LATEST = 2000, 2100
_DEFAULT_DAYS, _MAX_DAYS = 30, 366


def _instant(value: object, *, last: bool) -> datetime:
    """A day or a time as the instant where it begins; a day that is the `last` one, as where it ends."""
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError("must be a day (2026-11-22) or a time (2026-11-22T10:00:00Z)") from None
    if not _EARLIEST <= at.year < _LATEST:
        raise ValueError(f"must be from {_EARLIEST} on and before {_LATEST}")
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    is_day = len(str(value)) <= len("2026-11-22")
    return at + timedelta(days=1) if last and is_day else at


def _tonight() -> datetime:
    """Where today ends."""
    return _instant(datetime.now(UTC).date(), last=True)


_INSTANT = WithJsonSchema({"type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}]})


class UsageQuery(BaseModel):
    """`GET /api/v1/usage`: days, which are UTC's, or times. Without `to` until today, without `from` 30 days."""

    end: Annotated[datetime, BeforeValidator(partial(_instant, last=True)), _INSTANT] = Field(
        default_factory=_tonight, alias="to"
    )
    start: Annotated[datetime, BeforeValidator(partial(_instant, last=False)), _INSTANT] = Field(
        default_factory=lambda given: given.get("end", _tonight()) - timedelta(days=_DEFAULT_DAYS), alias="from"
    )

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if not self.start < self.end:
            raise ValueError("`from` must be before `to`")
        if self.end - self.start > timedelta(days=_MAX_DAYS):
            raise ValueError(f"from `from` to `to` must be {_MAX_DAYS} days at most")
        return self


class UsageTotals(BaseModel):
    """Fixes, by what came of them, and what they cost. Refunds are not taken off."""

    fixes: int
    included: int
    over_limit: int
    charged: int
    overage: int
    amount_cents: int


class UsageDay(UsageTotals):
    """Those of one day (UTC)."""

    day: date


class Usage(BaseModel):
    """The fixes accepted from `from` on and before `to`; days without any are left out."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    start: datetime = Field(alias="from")
    end: datetime = Field(alias="to")
    days: list[UsageDay]
    totals: UsageTotals


class BillsQuery(BaseModel):
    """`GET /api/v1/invoices`. `before`: the id of the last one that is known, for those that are older."""

    limit: Annotated[int, Field(ge=1, le=100)] = 50
    before: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+$", max_length=255)] | None = None


class Bill(BaseModel):
    """An invoice of Teams, or the charge for one fix. `fix` is what a charge is for."""

    class Fix(BaseModel):
        """Where it was deployed."""

        repo: str
        issue_number: int
        commit_sha: str

    type: Literal["invoice", "charge"]
    id: str
    status: str
    amount_cents: int
    paid_cents: int
    refunded_cents: int
    currency: str
    description: str
    created_at: datetime
    hosted_url: str | None
    fix: Fix | None


class Bills(RootModel[list[Bill]]):
    """Invoices and charges, the newest first."""


class PaymentMethodBody(BaseModel):
    """`POST /api/v1/payment-methods`: a payment method of Stripe's, made in the browser. Cards never come here."""

    model_config = ConfigDict(extra="forbid")

    payment_method: Annotated[str, StringConstraints(pattern=r"^pm_[A-Za-z0-9_]{1,200}$")]


class CheckoutBody(BaseModel):
    """`POST /api/v1/checkout`"""

    model_config = ConfigDict(extra="forbid")

    purpose: Literal["payment_method", "teams"]


class SubscriptionBody(BaseModel):
    """`POST /api/v1/subscription`"""

    model_config = ConfigDict(extra="forbid")

    plan: Literal["payg", "teams"]


class EndQuery(BaseModel):
    """When Teams ends, where it does: with the period that was paid for, or at once."""

    at_period_end: bool = False


class JobAccepted(BaseModel):
    """The job that does what was asked for, and where to watch it."""

    job_id: UUID
    status_url: str


class CardView(BaseModel):
    """A card of yours; `default` is the one that is charged."""

    id: str
    brand: str
    last4: str
    exp_month: int
    exp_year: int
    default: bool


class PaymentMethods(BaseModel):
    """Your cards, the newest first."""

    payment_methods: list[CardView]


class WebhookReceived(BaseModel):
    """The answer to a webhook. `duplicate`: it had come before, and nothing is done again."""

    received: Literal[True] = True
    duplicate: bool


class GithubDelivery(RootModel[Annotated[dict[str, Any], AfterValidator(_storable)]]):
    """The JSON of `POST /webhooks/github`: whatever GitHub says, as long as it can be kept whole."""


class Problem(BaseModel):
    """RFC 9457. `errors` says which part of a body or a query to change, and why."""

    class Item(BaseModel):
        """One part of it, by its names from the outside in; none: the whole."""

        loc: list[str | int]
        msg: str

    type: str
    title: str
    status: int
    detail: str
    errors: list[Item] | None = None
