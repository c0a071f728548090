"""What the operations on subscriptions take."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from app.sandbox.stripe.params import Clearable, DatedListParams, List, Metadata, Params, Strict

Behavior = Literal["allow_incomplete", "default_incomplete", "error_if_incomplete"]
Proration = Literal["always_invoice", "create_prorations", "none"]
Feedback = Literal[
    "customer_service",
    "low_quality",
    "missing_features",
    "other",
    "switched_service",
    "too_complex",
    "too_expensive",
    "unused",
]
Status = Literal[
    "active",
    "all",
    "canceled",
    "ended",
    "incomplete",
    "incomplete_expired",
    "past_due",
    "paused",
    "trialing",
    "unpaid",
]


def _now_is_zero(value: Any) -> Any:
    return 0 if value == "now" else value


Moment = Annotated[int, BeforeValidator(_now_is_zero)]


class ItemCreate(Strict):
    price: str
    quantity: int = Field(default=1, ge=0)
    metadata: Metadata


class ItemChange(Strict):
    id: str | None = None
    price: str | None = None
    quantity: int | None = Field(default=None, ge=0)
    deleted: bool = False
    metadata: Metadata


class PaymentSettings(Strict):
    save_default_payment_method: Literal["off", "on_subscription"] = "off"
    payment_method_types: Clearable[List[str]] = None


class EndBehavior(Strict):
    missing_payment_method: Literal["cancel", "create_invoice", "pause"]


class TrialSettings(Strict):
    end_behavior: EndBehavior


class BillingMode(Strict):
    type: Literal["classic", "flexible"]


class Pause(Strict):
    behavior: Literal["keep_as_draft"]


class CancellationDetails(Strict):
    comment: Clearable[str] = None
    feedback: Clearable[Feedback] = None


class SubscriptionFields(Params):
    cancel_at_period_end: bool = False
    cancel_at: Clearable[int] = None
    collection_method: Literal["charge_automatically", "send_invoice"] = "charge_automatically"
    days_until_due: int | None = Field(default=None, ge=0)
    default_payment_method: Clearable[str] = None
    description: Clearable[str] = None
    metadata: Metadata
    off_session: bool = False
    payment_behavior: Behavior = "allow_incomplete"
    payment_settings: PaymentSettings = PaymentSettings()
    proration_behavior: Proration = "create_prorations"
    trial_end: Moment | None = None
    trial_settings: TrialSettings = TrialSettings(end_behavior=EndBehavior(missing_payment_method="create_invoice"))


class SubscriptionCreate(SubscriptionFields):
    billing_mode: BillingMode = BillingMode(type="flexible")
    currency: str | None = None
    customer: str
    items: List[ItemCreate]
    trial_period_days: int | None = Field(default=None, ge=1)


class SubscriptionUpdate(SubscriptionFields):
    cancellation_details: CancellationDetails = CancellationDetails()
    items: List[ItemChange] = Field(default_factory=list)
    pause_collection: Clearable[Pause] = None
    proration_date: int | None = None


class SubscriptionCancel(Params):
    cancellation_details: CancellationDetails = CancellationDetails()
    invoice_now: bool = False
    prorate: bool = False


class SubscriptionResume(Params):
    billing_cycle_anchor: Literal["now"] = "now"


class SubscriptionList(DatedListParams):
    customer: str | None = None
    price: str | None = None
    status: Status | None = None
    test_clock: str | None = None
