"""Calls that can be repeated: the key, the frozen parameters and the first time, kept before sending (law 6)."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import Connection

LOOK_FIRST_S = 23 * 3600
"""Stripe forgets an idempotency key after 24 hours: from here on, look before sending again."""


@dataclass(frozen=True)
class Call:
    """One logical call. Every attempt at it sends the same key with the same parameters."""

    operation: str
    number: int
    parameters: dict[str, Any]
    first_sent_at: datetime
    age_s: float

    @property
    def idempotency_key(self) -> str:
        """`{operation}:{number}`, such as `customer:7:1`."""
        return f"{self.operation}:{self.number}"


_FREEZE = """
INSERT INTO external_calls (operation, number, parameters, first_sent_at)
VALUES (%(operation)s, %(number)s, %(parameters)s, coalesce(%(sent_at)s, clock_timestamp()))
ON CONFLICT DO NOTHING
"""
_LATEST = """
SELECT operation, number, parameters, first_sent_at,
       extract(epoch FROM clock_timestamp() - first_sent_at)::float8
FROM external_calls WHERE operation = %(operation)s ORDER BY number DESC LIMIT 1
"""


def freeze(
    db: Connection,
    operation: str,
    parameters: dict[str, Any],
    number: int = 1,
    *,
    sent_at: datetime | None = None,
) -> Call:
    """The call of that name: as it was first frozen, or with these parameters if this is its first time.

    Commit before sending: what was sent must never be forgotten.

    Args:
        sent_at: when it was first sent, where its effect is seen in Stripe and a restored database has forgotten it.
    """
    frozen = {"operation": operation, "number": number, "parameters": Jsonb(parameters), "sent_at": sent_at}
    db.exec_driver_sql(_FREEZE, frozen)
    return Call(*db.exec_driver_sql(_LATEST, {"operation": operation}).one())


def latest(db: Connection, operation: str) -> Call | None:
    """The newest number of a call, if it was ever frozen."""
    row = db.exec_driver_sql(_LATEST, {"operation": operation}).one_or_none()
    return None if row is None else Call(*row)


def aged(call: Call, since: datetime) -> Call:
    """The call as one that may have been sent since then: a restored database has forgotten what it sent after its
    backup, and must look before it sends again (failures.md 40). A later number comes of such a look, and was sent
    when it says: aged as well, each attempt would have a key of its own."""
    if call.number > 1 or since >= call.first_sent_at:
        return call
    age_s = call.age_s + (call.first_sent_at - since).total_seconds()
    return replace(call, first_sent_at=since, age_s=age_s)


def renew(db: Connection, call: Call) -> Call:
    """The next number of a call whose key Stripe has forgotten, or answers with a stored failure.

    Only after a look in Stripe has shown that the earlier numbers had no effect.
    """
    return freeze(db, call.operation, call.parameters, call.number + 1)
