"""Errors as `application/problem+json` (RFC 9457): what is wrong, and what to change."""

from collections.abc import Sequence
from typing import Any

import orjson
import psycopg
import sqlalchemy.exc
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, InternalServerError
from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.wrappers import Response as WsgiResponse

from app.logs import log, redact, redact_text

RETRY_S = 2
"""Seconds after which a sender may try again when a job could not be stored."""


class Problem(Exception):
    """An answer other than success.

    Args:
        status: the HTTP status.
        detail: a sentence for whoever sent the request.
        errors: for a body that does not validate, `[{loc, msg}]`.
        headers: to send along.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[dict[str, Any]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.status, self.detail, self.errors, self.headers = status, detail, errors, headers or {}
        super().__init__(f"{status}: {detail}")

    def response(self) -> Response:
        """The answer to send."""
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTP_STATUS_CODES.get(self.status, "Error"),
            "status": self.status,
            "detail": redact_text(self.detail),
        }
        if self.errors is not None:
            body["errors"] = redact(list(self.errors))  # a field that we do not know is named as the sender named it
        return Response(orjson.dumps(body), self.status, {"Content-Type": "application/problem+json", **self.headers})


def _from_http(error: HTTPException) -> WsgiResponse:
    """Whatever Flask and Werkzeug refuse themselves: no such route, wrong method, too large, and so on."""
    if error.response is not None and error.code is not None and error.code < 400:
        return error.get_response()  # a redirect
    headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
    return Problem(error.code or 500, error.description or "", headers=headers).response()


def _from_database(error: Exception) -> Response:
    """The job cannot be stored, or nobody knows whether it was: the sender keeps it and tries again (law 1)."""
    cause = getattr(error, "orig", None) or error
    log.warning("intake.unavailable", error=type(cause).__name__, route=str(request.url_rule))
    detail = "The database cannot do what the request asks for at the moment. Send the request again."
    return Problem(503, detail, headers={"Retry-After": str(RETRY_S)}).response()


def _from_schema(error: sqlalchemy.exc.ProgrammingError) -> Response:
    """A schema older than this release, in the seconds of a deployment, is a database that is not there yet."""
    behind = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn)
    return _from_database(error) if isinstance(error.orig, behind) else _from_anything(error)


def _from_anything(error: Exception) -> Response:
    log.error("intake.failed", exc_info=error, route=str(request.url_rule), request_id=g.get("request_id"))
    return Problem(500, InternalServerError.description).response()


def install(app: Flask) -> None:
    """Answer every error of `app` as a problem."""
    app.register_error_handler(Problem, Problem.response)
    app.register_error_handler(HTTPException, _from_http)
    for away in (
        sqlalchemy.exc.OperationalError,  # refused, cut, disk full, too many connections, lock time-outs
        sqlalchemy.exc.InterfaceError,
        sqlalchemy.exc.InternalError,  # an administrator ended the session
        sqlalchemy.exc.TimeoutError,  # no connection of the pool came free in time
        psycopg.OperationalError,
    ):
        app.register_error_handler(away, _from_database)
    app.register_error_handler(sqlalchemy.exc.ProgrammingError, _from_schema)
    app.register_error_handler(Exception, _from_anything)
