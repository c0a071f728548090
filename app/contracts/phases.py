"""What phases tell the rest of the system (seed, "Phase Completion → Usage Tracking")."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

Phase = Literal["scan", "validation", "mitigation"]


class PhaseCompleted(BaseModel):
    """A phase of the Action has ended. What follows from it is stored in one transaction with its result."""

    model_config = ConfigDict(frozen=True)

    phase_result_id: UUID
    customer_id: int
    phase: Phase
    status: str
    received_at: datetime
