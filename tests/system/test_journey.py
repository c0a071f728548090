"""A customer's way from the trial to a plan that is paid, over HTTP as they and the Action go it (seed: "trial to paid
conversion", "payment method addition", "dashboard queries work", "provisioning creates billing customer")."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from app.ops.audit import audit
from app.sandbox.stripe import StripeSandbox
from app.stripe import catalog
from tests.system.scene import Mailbox, drain, sign_up


class Client:
    """A customer with their key, and their Action."""

    def __init__(self, web: FlaskClient, key: str) -> None:
        self._web, self._headers = web, {"X-API-Key": key}

    def get(self, path: str) -> Any:
        answer = self._web.get(path, headers=self._headers)
        assert answer.status_code == 200, answer.text
        return answer.json

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """What came of the job that the request became."""
        accepted = self._web.post(path, json=body, headers=self._headers)
        assert accepted.status_code == 202, accepted.text
        drain()
        return self.get(accepted.json["status_url"])

    def deploy(self, issue: int) -> None:
        body = {
            "phase": "mitigation",
            "data": {"fixed": True, "prUrl": "https://github.com/o/r/pull/9", "fixCommit": "f1f1"},
            "repo": "o/r",
            "issueNumber": issue,
            "commitSha": "c0ffee",
        }
        assert self._web.post("/api/v1/phase-data", json=body, headers=self._headers).status_code == 202
        drain()

    @property
    def status(self) -> Any:
        return self.get("/api/v1/billing/status")


@pytest.fixture
def jane(web: FlaskClient, mailbox: Mailbox) -> Client:
    sign_up(web)
    drain()
    return Client(web, mailbox.mail().key)


def test_payment_method_addition(jane: Client, stripe: StripeSandbox) -> None:
    for issue in range(1, 6):
        jane.deploy(issue)
    assert not jane.status["can_use_service"]
    done = jane.post("/api/v1/payment-methods", {"payment_method": "pm_card_visa"})
    assert (done["state"], done["result"]["last4"]) == ("succeeded", "4242")
    seen = jane.status
    assert (seen["subscription_status"], seen["plan"]) == ("active", "trial")
    assert (seen["can_use_service"], seen["included"], seen["remaining"]) == (True, 10, 5)
    jane.post("/api/v1/payment-methods", {"payment_method": "pm_card_mastercard"})
    assert jane.status["included"] == 10
    assert [card["default"] for card in jane.get("/api/v1/payment-methods")["payment_methods"]] == [True, False]


def test_trial_to_paid_conversion(jane: Client, stripe: StripeSandbox, mailbox: Mailbox) -> None:
    jane.post("/api/v1/payment-methods", {"payment_method": "pm_card_visa"})
    for issue in range(1, 12):
        jane.deploy(issue)
    assert jane.status["remaining"] == 0
    assert jane.get("/api/v1/invoices") == []  # a card is no choice of a plan
    assert jane.post("/api/v1/subscription", {"plan": "payg"})["result"] == {"plan": "payg"}
    assert jane.get("/api/v1/invoices") == []  # what was deployed on trial stays free
    jane.deploy(12)
    [charge] = jane.get("/api/v1/invoices")
    assert (charge["amount_cents"], charge["paid_cents"], charge["status"]) == (1500, 1500, "succeeded")
    assert audit(with_stripe=True)["findings"] == []


def test_dashboard_queries_work(jane: Client) -> None:
    catalog.sync()
    jane.post("/api/v1/payment-methods", {"payment_method": "pm_card_visa"})
    jane.deploy(1)
    jane.post("/api/v1/subscription", {"plan": "payg"})
    jane.deploy(2)
    jane.post("/api/v1/subscription", {"plan": "teams"})
    jane.deploy(3)
    seen = jane.status
    assert (seen["plan"], seen["current_usage"], seen["included"]) == ("teams", 1, 60)
    totals = jane.get("/api/v1/usage")["totals"]
    assert (totals["fixes"], totals["charged"], totals["amount_cents"]) == (3, 1, 1500)
    bills = {(bill["type"], bill["amount_cents"]) for bill in jane.get("/api/v1/invoices")}
    assert bills == {("invoice", 49900), ("charge", 1500)}
