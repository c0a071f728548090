"""A customer of the demo: the Action in their repository, and their browser, with their API key."""

import http.client
from typing import Any
from urllib.parse import urlencode, urlsplit

from app.ops.demo.stage import Stage

REPO = "octo/shop"


class Account:
    """Everything goes over HTTP, as it would from elsewhere."""

    def __init__(self, stage: Stage, key: str) -> None:
        self._stage = stage
        self._key = {"X-API-Key": key}

    def read(self, path: str) -> Any:
        """`GET /api/v1/…`"""
        return self._stage.get(f"/api/v1/{path}", self._key)

    def send(self, path: str, body: dict[str, Any], idempotency_key: str | None = None) -> Any:
        """`POST /api/v1/…`"""
        named = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return self._stage.post(f"/api/v1/{path}", body, self._key | named)

    def ask(self, path: str, body: dict[str, Any], idempotency_key: str | None = None) -> dict[str, Any]:
        """The result of the job that a request is answered with."""
        accepted = self.send(path, body, idempotency_key)
        job = self._stage.wait(f"the job of {path}", lambda: self._finished(accepted["status_url"]))
        self._stage.must(job["state"] == "succeeded", f"{job['name']} is {job['state']}: {job['error']}")
        return dict(job["result"] or {})

    def _finished(self, status_url: str) -> dict[str, Any] | None:
        job: dict[str, Any] = self._stage.get(status_url, self._key)
        return job if job["state"] in ("succeeded", "dead") else None

    # What the Action posts.

    def phase(self, phase: str, issue: int | None, data: dict[str, Any], path: str = "phase-data") -> dict[str, Any]:
        """Tell that a phase has ended."""
        event = {"phase": phase, "data": data, "repo": REPO, "issueNumber": issue, "commitSha": commit(issue)}
        answer: dict[str, Any] = self.send(path, event)
        return answer

    def deploy(self, issue: int, at: str = "2026-11-22T10:00:00Z", path: str = "phase-data") -> dict[str, Any]:
        """Tell of a fix for that issue, deployed."""
        pull = f"https://github.com/{REPO}/pull/{1000 + issue}"
        data = {"fixed": True, "prUrl": pull, "fixCommit": f"f{commit(issue)[1:]}", "timestamp": at}
        return self.phase("mitigation", issue, data, path)

    def deploy_until_counted(self, *issues: int) -> None:
        """Tell of these fixes; returns when each has been counted, or was over the limit."""
        before = self.fixes()
        for issue in issues:
            self.deploy(issue)
        wanted = before + len(issues)
        self._stage.wait(f"{len(issues)} fixes to be counted", lambda: self.fixes() >= wanted)

    # What they look at.

    def status(self) -> dict[str, Any]:
        """How they stand."""
        status: dict[str, Any] = self.read("billing/status")
        return status

    def fixes(self) -> int:
        """All their fixes, those over a limit too."""
        return int(self.read("usage")["totals"]["fixes"])

    def paid(self, kind: str, number: int) -> dict[str, Any]:
        """The newest of their invoices or charges that are paid, once there are that many."""
        status = {"invoice": "paid", "charge": "succeeded"}[kind]
        self._stage.wait(f"{kind} {number} to be paid", lambda: len(self.bills(kind, status)) >= number)
        return self.bills(kind, status)[0]

    def bills(self, kind: str, status: str) -> list[dict[str, Any]]:
        """Their invoices or charges of that status, the newest first."""
        return [bill for bill in self.read("invoices") if (bill["type"], bill["status"]) == (kind, status)]

    # What they do in their browser.

    def give_card_at(self, url: str, card: str) -> None:
        """Open a page of Checkout, choose that test card, and follow the way back to our own site."""
        page = _browse("GET", url)
        self._stage.must(page.status == 200, f"the page of Checkout answered {page.status}")
        done = _browse("POST", url, {"card": card})
        self._stage.must(done.status == 303, f"the page of Checkout answered {done.status}")
        back = _browse("GET", done.headers["Location"])
        self._stage.must(back.status == 200, f"the way back from Checkout answered {back.status}")


def commit(issue: int | None) -> str:
    """The commit that the fix of an issue was made for."""
    return f"{issue or 0:040x}"


def _browse(method: str, url: str, form: dict[str, str] | None = None) -> http.client.HTTPResponse:
    at = urlsplit(url)
    connection = http.client.HTTPConnection(at.netloc, timeout=30)
    try:
        body = None if form is None else urlencode(form)
        sent = {} if form is None else {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request(method, f"{at.path}?{at.query}" if at.query else at.path, body, sent)
        response = connection.getresponse()
        response.read()
    finally:
        connection.close()
    return response
