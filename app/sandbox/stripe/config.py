"""What can be set about the sandbox, at its start and while it runs."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

API_VERSION = "2026-10-28.endive"

_HOUR = 3600


class Settings(BaseModel):
    """Times are seconds of the sandbox's clock unless they say real."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    rate_limit: float | None = Field(default=None, gt=0, description="requests a real second; None is no limit")
    search_lag_s: float = Field(default=60, ge=0, description="how long a new object stays out of search")
    webhook_retries_s: list[float] = Field(
        default=[60, 5 * 60, 30 * 60, 2 * _HOUR, 5 * _HOUR, 10 * _HOUR, *[12 * _HOUR] * 4],
        description="the waits between attempts at one delivery; after the last it has failed",
    )
    webhook_timeout_s: float = Field(default=10, gt=0, description="real time an endpoint has to answer in")
    finalize_after_s: int = Field(default=_HOUR, ge=0, description="how long a renewal's invoice is a draft")
    invoice_retries_s: list[int] = Field(
        default=[3 * 24 * _HOUR, 5 * 24 * _HOUR, 7 * 24 * _HOUR],
        description="the waits between attempts at an invoice that was declined",
    )
    after_last_retry: Literal["cancel", "unpaid", "past_due"] = Field(
        default="cancel",
        description="what becomes of a subscription whose invoice was declined for the last time",
    )
