"""Every request has an id, one log line, and its place in the metrics."""

import re
import time
from uuid import uuid4

from flask import Flask, Response, g, request
from structlog.contextvars import bind_contextvars, clear_contextvars

from app.logs import log
from app.metrics import REQUEST_DURATION, REQUESTS

_SANE_ID = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


def _begin() -> None:
    given = request.headers.get("X-Request-Id", "")
    g.request_id = given if _SANE_ID.fullmatch(given) else uuid4().hex
    g.began = time.perf_counter()
    clear_contextvars()
    route = request.url_rule.rule if request.url_rule else "(none)"
    bind_contextvars(correlation_id=g.request_id, origin=f"{request.method} {route}")


def _end(response: Response) -> Response:
    route = request.url_rule.rule if request.url_rule else "(none)"
    took = time.perf_counter() - g.began
    response.headers["X-Request-Id"] = g.request_id
    method = request.method if request.method in _METHODS else "(other)"  # a sender's own would each be a new series
    REQUESTS.labels(method, route, str(response.status_code)).inc()
    REQUEST_DURATION.labels(route).observe(took)
    log.info("http.request", status=response.status_code, ms=round(took * 1000, 1))
    return response


def install(app: Flask) -> None:
    """Watch every request of `app`."""
    app.before_request(_begin)
    app.after_request(_end)
