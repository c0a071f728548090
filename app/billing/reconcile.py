"""Finding what never arrived (stripe.md, "Catching up"; failures.md 17, 40).

The sweep of events goes over all that Stripe has made since a cursor: one whose key no job ever had was not delivered,
or was lost before it was kept. The comparison of objects finds what no event tells of: some are never made, and a
restored backup has forgotten what it knew.

Repairs are jobs that read what Stripe has now, the same that webhooks lead to; no money is moved by any of them. What
follows from what they read is as it would have been in time: a card that has arrived pays what failed.
Nothing is held in memory but a page, and no transaction is open while Stripe is asked.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select

from app.billing import events
from app.billing.comparisons import COMPARISONS, Comparison, Difference
from app.contracts.webhooks import StripeEvent
from app.ledger.command import Command
from app.ledger.enqueue import insert, prepare
from app.ledger.tables import job_keys
from app.stripe import history

EVENTS = "events"

Found = dict[tuple[str, str, str], Difference]
"""Differences by what they say: Stripe may list an object twice while others come and go."""

KEPT = timedelta(days=30)
"""How long Stripe keeps events. The ledger's keys are kept for longer: one that is not there never was."""

RECENT = timedelta(days=60)
"""How far back objects that are over are compared: a refund can fail for a month. Open ones are, however old."""

_OVERLAP = timedelta(hours=1)
"""Stripe may list an event later than those that it made after it; our clocks differ as well."""
_WINDOW = timedelta(days=5)
_DAILY = timedelta(hours=23)
_BATCH = 500

_CURSORS = "SELECT name, at FROM reconcile_cursors"
_MOVE = """
INSERT INTO reconcile_cursors (name, at) VALUES (%(name)s, %(at)s)
ON CONFLICT (name) DO UPDATE SET at =
    CASE WHEN reconcile_cursors.at > %(latest)s THEN excluded.at ELSE greatest(reconcile_cursors.at, excluded.at) END
"""


class Sweep:
    """One run over what Stripe has.

    Args:
        transaction: opens a short transaction.
        occasion: what the repairs are made for, such as `reconcile:` and an id. With the same one, a run that was
            stopped in the middle enqueues nothing a second time.
        fix: enqueue the repairs; else only say what they would be.
        progress: hears what is looked at, and how many there were so far.
    """

    def __init__(
        self,
        transaction: Callable[[], AbstractContextManager[Connection]],
        occasion: str,
        *,
        fix: bool,
        progress: Callable[[str, int], object] = lambda _what, _count: None,
    ) -> None:
        self._transaction = transaction
        self._occasion = occasion
        self._fix = fix
        self._progress = progress
        self.checked: Counter[str] = Counter()
        self.drift: list[dict[str, Any]] = []
        """`{rule, subject, ours, stripe, repair, repaired}`; `repair` is the command, or what an operator must do."""

    @property
    def left(self) -> int:
        """Differences that no repair is on its way for."""
        return sum(not row["repaired"] for row in self.drift)

    def everything(self, since: datetime | None = None) -> None:
        """The events since the cursor and every kind of object; with `since`, what was made since then instead."""
        self.events(since)
        for kind in COMPARISONS:
            self.objects(kind, since)

    def catch_up(self) -> None:
        """What is due: the events since the cursor, and once a day each kind of object. The very first time there is
        nothing to catch up with: only the cursors are set."""
        now = datetime.now(UTC)
        with self._transaction() as db:
            last = _cursors(db, now)
            begun = db.exec_driver_sql(_CURSORS).first() is not None
            for name in () if begun else (EVENTS, *COMPARISONS):
                _move(db, name, now)
        if not begun:
            return
        self.events()
        for kind in COMPARISONS:
            if kind not in last or last[kind] < now - _DAILY:
                self.objects(kind)

    def events(self, since: datetime | None = None) -> None:
        """Events that never arrived. The cursor follows each few days of them that are done: after a crash, those in
        hand are gone over again, which the keys make harmless."""
        began = datetime.now(UTC)
        with self._transaction() as db:
            cursor = _cursors(db, began).get(EVENTS)
        start = max(began - KEPT, since or (cursor or began) - (_OVERLAP if cursor else KEPT))
        for first, end in _windows(start, began):
            for page in history.events(first, end):
                self._events_of(page)
            if self._fix and since is None:
                with self._transaction() as db:
                    _move(db, EVENTS, end or began)

    def _events_of(self, page: history.Page) -> None:
        """Of types that nothing follows from, nobody may have asked Stripe for a delivery."""
        jobs = [StripeEvent(event=event) for event in page if _followed(event["type"])]
        with self._transaction() as db:
            keys = select(job_keys.c.key).where(job_keys.c.key.in_([job.dedup_key for job in jobs]))
            arrived = set(db.execute(keys).scalars())
            missing = [job for job in jobs if job.dedup_key not in arrived]
            if self._fix:
                insert(db, [prepare(job) for job in missing])
        self._count(EVENTS, len(page))
        for job in missing:
            made = datetime.fromtimestamp(job.event["created"], UTC)
            self._note(
                Difference(
                    "event_arrived",
                    f"event:{job.event['id']}",
                    "never arrived",
                    f"{job.event['type']} of {made:%Y-%m-%d %H:%M:%S}",
                ),
                job.name,
            )

    def objects(self, kind: str, since: datetime | None = None) -> None:
        """Compare one kind of object with Stripe's: all that are open, and those created since `since`, or of late."""
        began, as_due = datetime.now(UTC), since is None
        since = since or began - RECENT
        comparison = COMPARISONS[kind]
        with self._transaction() as db:
            expected = comparison.expected(db, since)
        found: Found = {}
        for page in comparison.pages(since):
            for seen in page:
                expected.pop(seen["id"], None)
            found |= self._differing(comparison, page)
            self._count(kind, len(page))
        found = self._look_again(comparison, expected, found)
        with self._transaction() as db:
            still = comparison.expected(db, since) if expected else {}
        expected = {stripe_id: still[stripe_id] for stripe_id in expected if stripe_id in still}
        # The oldest first, as they happened: Teams that was had again begins after the one before has ended.
        differences = [*expected.values(), *reversed(found.values())]
        for one in differences:
            self._note(one, None if one.repair is None else one.repair.command.name)
        if self._fix:
            self._enqueue([one.repair.on(self._occasion) for one in differences if one.repair is not None])
            if as_due:
                with self._transaction() as db:
                    _move(db, kind, began)

    def _differing(self, comparison: Comparison, page: history.Page) -> Found:
        with self._transaction() as db:
            return {(one.rule, one.subject, one.stripe): one for one in comparison.differences(db, page)}

    def _look_again(self, comparison: Comparison, expected: dict[str, Difference], found: Found) -> Found:
        """What differs once every object that an operator would have to see to has been read again, by itself: between
        a page and our rows much can happen, and what a person is told to do is not undone by the next job. Of
        `expected`, those go that Stripe has after all: its lists show only what is new."""
        again = [stripe_id for stripe_id, one in expected.items() if one.repair is None]
        again += [one.stripe_id for one in found.values() if one.repair is None]
        found = {key: one for key, one in found.items() if one.repair is not None}
        for stripe_id in dict.fromkeys(again):
            seen = history.one(comparison.collection, stripe_id)
            if seen is not None:
                expected.pop(stripe_id, None)
                found |= self._differing(comparison, [seen])
        return found

    def _enqueue(self, repairs: list[Command]) -> None:
        once = list({repair.dedup_key: repair for repair in repairs}.values())
        for start in range(0, len(once), _BATCH):
            with self._transaction() as db:
                insert(db, [prepare(repair) for repair in once[start : start + _BATCH]])

    def _note(self, one: Difference, repair: str | None) -> None:
        what_to_do = f"{repair or 'needs an operator'}: {one.advice}" if one.advice else repair
        self.drift.append(
            {
                "rule": one.rule,
                "subject": one.subject,
                "ours": one.ours,
                "stripe": one.stripe,
                "repair": what_to_do,
                "repaired": self._fix and repair is not None,
            }
        )

    def _count(self, what: str, more: int) -> None:
        self.checked[what] += more
        self._progress(what, self.checked[what])


def _move(db: Connection, name: str, at: datetime) -> None:
    db.exec_driver_sql(_MOVE, {"name": name, "at": at, "latest": datetime.now(UTC) + _OVERLAP})


def _cursors(db: Connection, now: datetime) -> dict[str, datetime]:
    """How far each sweep has come. A cursor that is well ahead of now was set by a clock that was wrong: believed, it
    would end all catching up, so it counts for nothing."""
    return {row.name: row.at for row in db.exec_driver_sql(_CURSORS) if row.at <= now + _OVERLAP}


def _windows(start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime | None]]:
    """The time from `start`, some days each, the oldest first; the last has no end: Stripe's clock may be ahead."""
    while start + _WINDOW < end:
        yield start, start + _WINDOW
        start += _WINDOW
    yield start, None


def _followed(event_type: str) -> bool:
    try:
        events.finder(event_type)
    except events.Ignored:
        return False
    return True
