"""What phases tell the rest of the system (seed, "Phase Completion → Usage Tracking")."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

Phase = Literal["scan", "validation", "mitigation"]


class PhaseCompleted(BaseModel):
    """A phase of the Action has ended, and its result is stored. Published in the transaction that stores it."""

    model_config = ConfigDict(frozen=True)

    phase_result_id: UUID
    customer_id: int
    phase: Phase
    status: str
    received_at: datetime
