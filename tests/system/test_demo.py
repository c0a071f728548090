"""`tallyhook demo`: whoever sees it first sees it work."""

import sys

import pytest

from tests.processes import Processes


@pytest.mark.slow
def test_the_demo_tells_the_whole_journey_and_ends_clean(processes: Processes) -> None:
    demo = processes.start(sys.executable, "-m", "app.ops.cli", "demo")
    assert demo.wait(timeout_s=240) == 0, demo.output
    assert "$499.00 + $8.00 = $507.00 paid" in demo.output
    assert "clean: nothing lost, nothing doubled" in demo.output
