"""Notices: what a customer is told of fixes, charges and plans. A class a kind, which says what values it takes and
what is written from them.

The values stand in the job and in its listings: no address, no secret. Amounts are integer cents, times have a
zone. Repositories are whatever a sender called them.
"""

from typing import Any

from pydantic import ValidationError

from app.ledger.errors import Permanent
from app.mail.notices import cards, charges, invoices, plans, returns, usage  # noqa: F401  (each adds its kinds)
from app.mail.notices.base import KINDS, Notice

__all__ = ["KINDS", "Notice", "read"]


def read(kind: str, values: dict[str, Any]) -> Notice:
    """The notice of that kind with those values.

    Raises:
        Permanent: there is no such kind, or it takes other values. What they were is not repeated.
    """
    if kind not in KINDS:
        raise Permanent(f"there is no notice of the kind {kind!r}")
    try:
        return KINDS[kind].model_validate(values)
    except ValidationError as error:
        wrong = sorted({str(item["loc"][0]) for item in error.errors()})
        raise Permanent(f"not what a notice of the kind {kind} takes: {', '.join(wrong)}") from None
