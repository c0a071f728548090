"""What the platform asks: alive, ready, and the numbers."""

from collections.abc import Iterable

import redis
from flask import Blueprint, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from app.db import transaction
from app.intake.openapi import describe
from app.intake.problems import Problem
from app.ledger import ops
from app.ledger.bell import get_redis
from app.logs import log
from app.migrations import current, newest

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
@describe("The process is alive", answers={200: "text"}, database=False)
def alive() -> Response:
    return Response("ok\n", mimetype="text/plain")


@blueprint.get("/readyz")
@describe("PostgreSQL and Redis can be reached, and the schema is this release's", answers={200: "text"})
def ready() -> Response:
    lacking = []
    try:
        with transaction() as db:
            revision = current(db)
        # A newer schema is fine: a migration leaves the release before it able to work.
        if revision is None or revision < newest():
            lacking.append(f"the database is at revision {revision}, not {newest()}: run `tallyhook db migrate`")
    except SQLAlchemyError:
        lacking.append("PostgreSQL cannot be reached")
    try:
        get_redis().ping()
    except redis.RedisError:
        lacking.append("Redis cannot be reached")
    if lacking:
        raise Problem(503, "; ".join(lacking), headers={"Retry-After": "5"})
    return Response("ready\n", mimetype="text/plain")


class _LedgerCollector(Collector):
    """What the ledger itself knows, read from the database at the scrape: the same whichever process answers.

    While the database is away it says that, and the counters of the processes are served all the same:
    an outage is when they are looked at.
    """

    def collect(self) -> Iterable[GaugeMetricFamily]:
        up = GaugeMetricFamily("tallyhook_database_up", "1 while PostgreSQL answers this scrape")
        try:
            ledger = self._ledger()
        except SQLAlchemyError as error:
            log.warning("metrics.database_away", error=type(error).__name__)
            ledger = []
        up.add_metric([], bool(ledger))
        return [up, *ledger]

    def _ledger(self) -> list[GaugeMetricFamily]:
        jobs = GaugeMetricFamily("tallyhook_jobs", "Jobs by state", labels=["queue", "state"])
        oldest = GaugeMetricFamily(
            "tallyhook_queue_oldest_waiting_seconds", "Age of the oldest job that is due", labels=["queue"]
        )
        paused = GaugeMetricFamily("tallyhook_queue_paused", "1 while the queue is paused", labels=["queue"])
        lag = GaugeMetricFamily("tallyhook_relay_lag_seconds", "Since the relay's last sweep")
        with transaction() as db:
            for queue in ops.overview(db):
                for state in ("waiting", "scheduled", "running", "held", "dead"):
                    jobs.add_metric([queue["name"], state], queue[state])
                oldest.add_metric([queue["name"]], queue["oldest_age_s"])
                paused.add_metric([queue["name"]], queue["state"] == "paused")
            swept = db.exec_driver_sql(
                "SELECT extract(epoch FROM clock_timestamp() - swept_at)::float8 FROM relay_status"
            ).scalar_one_or_none()
        if swept is not None:
            lag.add_metric([], swept)
        return [jobs, oldest, paused, lag]


@blueprint.get("/metrics")
@describe("Prometheus metrics of this machine's processes, and of the ledger", answers={200: "text"}, database=False)
def metrics() -> Response:
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(_LedgerCollector())
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
