"""Deliveries of GitHub's."""

from app.contracts.webhooks import GithubEvent
from app.sources.source import Source

SOURCE = Source(
    name="github",
    command=GithubEvent,
    type_at=("event",),
    status=202,
    refusals=(400, 401, 408, 413, 415, 422),
    summary="A delivery of GitHub's, signed",
    headers={
        "X-Hub-Signature-256": "sha256=…: the HMAC of the body by a secret of GITHUB_WEBHOOK_SECRETS.",
        "X-GitHub-Delivery": "The id of the delivery: the same one again changes nothing.",
        "X-GitHub-Event": "Such as marketplace_purchase.",
    },
)
