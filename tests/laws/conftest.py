"""Every test here has the tables in which the tests' jobs leave their traces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.processes import processes

if TYPE_CHECKING:
    from app.sandbox.stripe import StripeSandbox

__all__ = ["processes"]


@pytest.fixture(autouse=True)
def traces(clean_slate: None) -> None:
    """The tables of `tests.ledger.commands`."""
    from tests.ledger.scene import make_tables  # not above: the environment is prepared after this module is read

    make_tables()


@pytest.fixture
def stripe(monkeypatch: pytest.MonkeyPatch) -> Iterator[StripeSandbox]:
    """The Stripe that the application talks to, empty."""
    from app.sandbox.stripe import StripeSandbox
    from app.settings import get_settings
    from app.stripe import client as gateway

    with StripeSandbox() as sandbox:
        monkeypatch.setattr(get_settings(), "stripe_api_base", sandbox.url)
        gateway.client.cache_clear()
        yield sandbox
    gateway.client.cache_clear()
