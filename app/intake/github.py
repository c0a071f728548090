"""What GitHub posts: whoever signed it is known, and what it says is committed as it came (laws 1 and 9)."""

from flask import Blueprint, Response, request

from app.contracts.http import GithubDelivery, WebhookReceived
from app.contracts.http import Problem as ProblemBody
from app.contracts.webhooks import GithubEvent
from app.github.signatures import is_signed
from app.intake.bodies import parse_json, read_body
from app.intake.openapi import describe
from app.intake.problems import Problem
from app.intake.webhooks import not_configured, take, within_limit
from app.settings import get_settings

blueprint = Blueprint("github", __name__, url_prefix="/webhooks")
blueprint.before_request(within_limit)

_MAX_NAME = 100


def _name(header: str) -> str:
    """The value of a header that has to be there, and is kept."""
    value = request.headers.get(header, "")
    if not (1 <= len(value) <= _MAX_NAME and value.isprintable()):
        raise Problem(400, f"{header} must have 1 to {_MAX_NAME} printable characters.")
    return value


def _json(body: bytes) -> bytes:
    """The JSON in `body`; a webhook of GitHub's can be set to wrap it in a form."""
    if request.mimetype == "application/json":
        return body
    if request.mimetype == "application/x-www-form-urlencoded":
        return request.form.get("payload", "").encode("utf-8", "surrogatepass")
    raise Problem(415, "Send the body as Content-Type: application/json.")


@blueprint.post("/github")
@describe(
    "A delivery of GitHub's, signed",
    answers={202: WebhookReceived, **dict.fromkeys((400, 401, 408, 413, 415, 422), ProblemBody)},
    headers={
        "X-Hub-Signature-256": "sha256=…: the HMAC of the body by a secret of GITHUB_WEBHOOK_SECRETS.",
        "X-GitHub-Delivery": "The id of the delivery: the same one again changes nothing.",
        "X-GitHub-Event": "Such as marketplace_purchase.",
    },
)
def from_github() -> Response:
    secrets = get_settings().github_webhook_secrets
    if not secrets:
        raise not_configured("GITHUB_WEBHOOK_SECRETS")
    body = read_body()
    if not is_signed(body, request.headers.get("X-Hub-Signature-256"), secrets):
        raise Problem(401, "X-Hub-Signature-256 is not of this body by a secret of ours.")
    delivery, event = _name("X-GitHub-Delivery"), _name("X-GitHub-Event")
    said = parse_json(GithubDelivery, _json(body))
    return take(GithubEvent(delivery=delivery, event=event, body=said.root), 202)
