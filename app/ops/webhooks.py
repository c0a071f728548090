"""What came by webhook: looked at, and done again. It is the ledger's own jobs that are listed here."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, and_, case, func, or_, select

from app.customers.tables import customers
from app.ledger import ops
from app.ledger.command import COMMANDS
from app.ledger.enqueue import enqueue
from app.ledger.states import State
from app.ledger.tables import jobs, operator_actions
from app.logs import redact
from app.ops import previews
from app.sources import SOURCES

_TYPE = case(
    *((jobs.c.name == source.command.name, jobs.c.payload[source.type_at].astext) for source in SOURCES.values())
)
_REPLAY = ":replay:"


class NoSuchWebhook(Exception):
    """Nothing with that id came by webhook, or it was pruned."""

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted
        super().__init__(f"no webhook {wanted} is kept")


class NotYet(Exception):
    """It has not been seen to for the first time."""

    def __init__(self, job_id: UUID, state: str) -> None:
        super().__init__(f"job {job_id} is {state}: there is nothing to do again yet")


@dataclass(frozen=True)
class WebhookFilter:
    """Which webhooks: every field that is given must match. `kind` is a type of event, or a family: `invoice.*`."""

    kind: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    customer_id: int | None = None
    source: str | None = None
    state: str | None = None

    def where(self) -> ColumnElement[bool]:
        """The condition on `jobs`."""
        commands = [source.command for name, source in SOURCES.items() if self.source in (None, name)]
        conditions: list[ColumnElement[bool]] = [
            jobs.c.queue.in_({command.queue for command in commands}),
            jobs.c.name.in_([command.name for command in commands]),
        ]
        if self.kind is not None:
            family = self.kind.removesuffix("*")
            exact = family == self.kind
            conditions.append(_TYPE.in_([family]) if exact else _TYPE.startswith(family, autoescape=True))
        if self.since is not None:
            conditions.append(jobs.c.created_at >= self.since)
        if self.until is not None:
            conditions.append(jobs.c.created_at < self.until)
        if self.state is not None:
            conditions.append(jobs.c.state == self.state)
        if self.customer_id is not None:
            conditions.append(self._of_customer(self.customer_id))
        return and_(*conditions)

    def _of_customer(self, customer_id: int) -> ColumnElement[bool]:
        """It was found to be theirs; or it names them, and nobody has looked yet."""
        there = select(customers.c.stripe_customer_id).where(customers.c.id == customer_id).scalar_subquery()
        thing = ("event", "data", "object")
        return or_(
            jobs.c.customer_id == customer_id,
            jobs.c.result["customer_id"].astext == str(customer_id),
            jobs.c.payload[(*thing, "customer")].astext == there,
            jobs.c.payload[(*thing, "id")].astext == there,
        )


def _as_listed(row: Row[Any]) -> dict[str, Any]:
    source, _, rest = row.key.partition(":")
    event_id, _, replay = rest.partition(_REPLAY)
    return {
        "id": event_id,
        "job_id": str(row.id),
        "source": source,
        "type": row.type,
        "replay": int(replay) if replay else None,
        "state": row.state,
        "customer_id": row.customer_id or (row.result or {}).get("customer_id"),
        "received_at": row.created_at.isoformat(),
        "finished_at": row.finished_at and row.finished_at.isoformat(),
        "result": redact(row.result),
        "error": None if row.error_kind is None else {"kind": row.error_kind, "message": row.error_message},
    }


def _rows(db: Connection, condition: ColumnElement[bool], *, oldest_first: bool, limit: int | None) -> list[Row[Any]]:
    order = jobs.c.id if oldest_first else jobs.c.id.desc()
    return list(db.execute(select(jobs, _TYPE.label("type")).where(condition).order_by(order).limit(limit)))


def list_webhooks(db: Connection, wanted: WebhookFilter, limit: int = 50) -> list[dict[str, Any]]:
    """The newest webhooks that match, and their replays, newest first."""
    return [_as_listed(row) for row in _rows(db, wanted.where(), oldest_first=False, limit=limit)]


def find(db: Connection, wanted: str) -> Row[Any]:
    """The webhook with that id: the sender's, or its job's.

    Raises:
        NoSuchWebhook
    """
    this: ColumnElement[bool] = jobs.c.key.in_([f"{source}:{wanted}" for source in SOURCES])
    with suppress(ValueError):
        this = or_(this, jobs.c.id == UUID(wanted))
    rows = _rows(db, and_(WebhookFilter().where(), this), oldest_first=True, limit=1)
    if not rows:
        raise NoSuchWebhook(wanted)
    return rows[0]


def matching(db: Connection, wanted: WebhookFilter) -> list[Row[Any]]:
    """All webhooks that match, the oldest first; no replays."""
    condition = and_(wanted.where(), jobs.c.key.not_like(f"%{_REPLAY}%"))
    return _rows(db, condition, oldest_first=True, limit=None)


def show_webhook(db: Connection, wanted: str) -> dict[str, Any]:
    """Everything about one: the body and its job, redacted; what followed from it; how often it was done again.

    Raises:
        NoSuchWebhook
    """
    row = find(db, wanted)
    followed = (row.result or {}).get("job_id")
    replays = _rows(db, jobs.c.key.startswith(f"{row.key}{_REPLAY}", autoescape=True), oldest_first=True, limit=None)
    shown = _as_listed(row)
    return {
        **shown,
        "followed_by": _followed(db, followed) if followed else None,
        "replays": [_as_listed(replay) for replay in replays],
        "job": ops.show_job(db, row.id),
    }


def _followed(db: Connection, job_id: str) -> dict[str, Any] | None:
    try:
        job = ops.show_job(db, UUID(job_id))
    except ops.NoSuchJob:
        return None
    return {name: job[name] for name in ("id", "name", "state", "result", "error")}


def replay(db: Connection, job_id: UUID, *, actor: str, reason: str | None = None, delay_s: float = 0) -> UUID:
    """Have a webhook seen to again, on record: by a new job with a number of its own; one that is dead or was
    cancelled is requeued. What follows reads what is so now: it does nothing twice.

    Raises:
        NotYet
        ops.NoSuchJob
    """
    row = db.execute(select(jobs).where(jobs.c.id == job_id).with_for_update()).one_or_none()
    if row is None:
        raise ops.NoSuchJob(job_id)
    if row.state in (State.DEAD, State.CANCELLED):
        ops.requeue(db, job_id, actor=actor, reason=reason, delay_s=delay_s)
        return job_id
    if row.state != State.SUCCEEDED:
        raise NotYet(job_id, row.state)
    key = row.key.partition(_REPLAY)[0]
    done = operator_actions.c.subject == f"webhook:{key}"
    number = db.execute(select(func.count()).select_from(operator_actions).where(done)).scalar_one() + 1
    ops.record(db, actor=actor, action="replay", subject=f"webhook:{key}", reason=reason)
    command = COMMANDS[row.name].model_validate(row.payload)
    run_at = datetime.now(UTC) + timedelta(seconds=delay_s) if delay_s else None
    return enqueue(db, command, key=f"{key}{_REPLAY}{number}", run_at=run_at).job_id


def preview(row: Row[Any]) -> dict[str, Any]:
    """What a replay would do, and what it would change; nothing is changed.

    Raises:
        as `app.ops.previews.preview`
    """
    shown = _as_listed(row)
    would, changes = previews.preview(row)
    listed = [{"subject": one.subject, "ours": one.ours, shown["source"]: one.theirs} for one in changes]
    return {name: shown[name] for name in ("id", "job_id", "source", "type")} | {"would": would, "changes": listed}
