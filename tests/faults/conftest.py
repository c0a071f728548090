"""The scene of a fault run. The application is imported inside the fixture: this module may be read before the
environment is prepared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.faults.storm import Scene


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """The whole system, started. Teams includes so few fixes that a short run has overage, too."""
    from app.db import get_engine
    from tests.faults.storm import Scene, forget_settings

    made = Scene(tmp_path, monkeypatch, TEAMS_INCLUDED_FIXES="5")
    yield made
    made.stop()
    get_engine().dispose()
    monkeypatch.undo()
    forget_settings()
