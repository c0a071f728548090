"""What billing makes of events. The intake registers it by its import."""

from app.contracts.billing import TrackFix
from app.contracts.phases import PhaseCompleted
from app.events import listens


@listens(PhaseCompleted)
def bill_deployed_fixes(event: PhaseCompleted) -> list[TrackFix]:
    """A mitigation that succeeded is a billable event, and nothing else is (architecture.md, "The business rules")."""
    if (event.phase, event.status) != ("mitigation", "success"):
        return []
    return [TrackFix(customer_id=event.customer_id, phase_result_id=event.phase_result_id)]
