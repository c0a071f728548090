"""Webhooks: whoever signed them is known, what they say is committed as it came, and the worker finds out what it
means (laws 1, 9 and 10)."""

from collections.abc import Callable

import orjson
from flask import Blueprint, Response, request

from app.contracts.http import Problem as ProblemBody
from app.contracts.http import WebhookReceived
from app.intake.bodies import read_body, reply
from app.intake.commits import GroupCommit
from app.intake.limits import Budget, spend
from app.intake.openapi import describe
from app.intake.problems import Problem
from app.ledger.command import Command
from app.ledger.enqueue import insert, prepare
from app.settings import get_settings
from app.sources import SOURCES
from app.sources.source import Source

blueprint = Blueprint("webhooks", __name__, url_prefix="/webhooks")
_keep = GroupCommit(insert)

_RETRY_S = 60


@blueprint.before_request
def _within_limit() -> None:
    """Spend of WEBHOOK_RATE_LIMIT, where there is one."""
    limit = get_settings().webhook_rate_limit
    if limit is not None:
        spend(Budget(limit, "webhook", request.remote_addr or ""))


def _take(command: Command, status: int) -> Response:
    """Commit what was sent as a job, and answer with `status`.

    Raises:
        Problem: 400 it is nested more deeply than the database takes.
    """
    try:
        job = prepare(command)
        orjson.dumps([job.row])  # as `insert` will write it
    except (ValueError, TypeError):
        raise Problem(400, "The body is nested too deeply.") from None
    return reply(WebhookReceived(duplicate=_keep.commit(job).duplicate), status)


def _view(source: Source) -> Callable[[], Response]:
    """What answers a source. Without a secret that could verify a webhook its sender is told to try again."""
    read = source.part("verifier").read

    @describe(
        source.summary,
        answers={source.status: WebhookReceived, **dict.fromkeys((*source.refusals, 429), ProblemBody)},
        headers=dict(source.headers),
        headers_required=True,
    )
    def view() -> Response:
        secrets = getattr(get_settings(), source.setting)
        if not secrets:
            raise Problem(503, f"{source.setting.upper()} is not set here.", headers={"Retry-After": str(_RETRY_S)})
        return _take(read(read_body(), secrets), source.status)

    return view


for _source in SOURCES.values():
    blueprint.post(f"/{_source.name}", endpoint=f"from_{_source.name}")(_view(_source))
