"""Law 9. The intake authenticates, validates, commits one job and answers; nobody outside is asked."""

import socket
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr

from app.intake import create_app
from app.settings import get_settings
from app.stripe import client as gateway
from tests.ledger.scene import sql


@pytest.fixture
def web() -> FlaskClient:
    return create_app().test_client()


@pytest.fixture
def a_listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Stands where Stripe and the mail server are, and would hear whoever calls them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        monkeypatch.setattr(get_settings(), "stripe_api_base", f"http://127.0.0.1:{port}")
        monkeypatch.setattr(get_settings(), "mail_url", SecretStr(f"smtp://127.0.0.1:{port}"))
        gateway.client.cache_clear()
        yield listener
    gateway.client.cache_clear()


def test_a_signup_commits_one_job_and_calls_nobody(web: FlaskClient, a_listener: socket.socket) -> None:
    answer = web.post("/api/v1/customers", json={"email": "ada@example.com", "name": "Ada"})
    assert answer.status_code == 202
    assert sql("SELECT name, state FROM jobs") == [("create_customer", "queued")]
    assert sql("SELECT count(*) FROM customers") == [(0,)]
    with pytest.raises(BlockingIOError):
        a_listener.accept()


def test_what_is_refused_leaves_no_job(web: FlaskClient) -> None:
    assert web.post("/api/v1/customers", json={"email": "nobody", "name": "Ada"}).status_code == 422
    assert sql("SELECT count(*) FROM jobs") == [(0,)]
    assert sql("SELECT count(*) FROM signups") == [(0,)]
