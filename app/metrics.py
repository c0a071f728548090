"""What Prometheus scrapes. Counters live in files that all processes of a machine share, so that
`/metrics` is right whichever web process answers; what stands in the database is read at the scrape
(app/intake/health.py).
"""

import os
from pathlib import Path

from app.settings import home_folder


def _share_between_processes() -> None:
    """Must run before prometheus_client is imported: it chooses its storage at import."""
    folder = Path(os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", str(home_folder() / "metrics")))
    folder.mkdir(parents=True, exist_ok=True)


_share_between_processes()

from prometheus_client import Counter, Histogram  # noqa: E402

ATTEMPTS = Counter("tallyhook_job_attempts_total", "Attempts ended", ["queue", "job", "outcome", "error_kind"])
DURATION = Histogram(
    "tallyhook_job_duration_seconds",
    "An attempt, from claim to outcome",
    ["queue", "job"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
WAITED = Histogram(
    "tallyhook_job_wait_seconds",
    "From due to claimed",
    ["queue"],
    buckets=(0.005, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
)
REQUESTS = Counter("tallyhook_http_requests_total", "HTTP requests", ["method", "route", "status"])
REQUEST_DURATION = Histogram(
    "tallyhook_http_request_duration_seconds",
    "HTTP requests, from the first byte to the answer",
    ["route"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
WEBHOOKS = Counter("tallyhook_webhooks_total", "Webhooks that were seen to", ["source", "type", "outcome"])
REFUSED = Counter("tallyhook_commits_refused_total", "Commits refused because the lease was lost", ["queue"])
