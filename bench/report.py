"""What is measured, how it is shown, and what `bench/results.json` says of it."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table

RESULTS = Path(__file__).parent / "results.json"


@dataclass(frozen=True)
class Figure:
    """One measured value.

    Args:
        rounds: the value of each round, of which `value` is the median unless `how` says otherwise.
        target: what it is to reach; None for a figure that another one is compared with.
        at_most: the target is an upper bound.
        how: what was run, in a few words.
    """

    name: str
    value: float
    unit: str
    rounds: Sequence[float] = ()
    target: float | None = None
    at_most: bool = False
    how: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None where there is none."""
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target

    @property
    def goal(self) -> str:
        """The target as the table shows it."""
        if self.target is None:
            return ""
        return f"{'≤' if self.at_most else '≥'} {_number(self.target)} {self.unit}"

    def as_json(self) -> dict[str, Any]:
        """The shape of an entry of a group's `figures` in results.json."""
        return {
            "name": self.name,
            "value": round(self.value, 3),
            "unit": self.unit,
            "target": None if self.target is None else {"at_most" if self.at_most else "at_least": self.target},
            "reached": self.reached,
            "rounds": [round(value, 3) for value in self.rounds],
            "how": self.how,
        }


def of_rounds(name: str, rounds: Sequence[float], unit: str, **rest: Any) -> Figure:
    """A figure that is the median of its rounds."""
    return Figure(name, statistics.median(rounds), unit, rounds, **rest)


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest of `values` that at least `share` (0 to 1) of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


class Report:
    """The table on the terminal, which grows while the benchmark runs; lines where there is no terminal."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []
        self._written = 0
        self._console = Console(width=None if sys.stdout.isatty() else 120)
        self._began = time.monotonic()
        self._spinner = Spinner("dots", "starting")
        self._live = Live(self._spinner, console=self._console, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._console.is_terminal:
            self._live.update(self._table(), refresh=True)
            self._live.stop()
        else:
            self._console.print(self._table())

    def doing(self, what: str) -> None:
        """Say what is being measured now."""
        line = f"{time.monotonic() - self._began:4.0f} s  {what}"
        if self._console.is_terminal:
            self._spinner.update(text=line)
        else:
            self._console.print(line, highlight=False)

    def add(self, figure: Figure) -> None:
        """Show a figure that has been measured, and keep it for the results."""
        self.figures.append(figure)
        if self._console.is_terminal:
            self._live.update(Group(self._table(), self._spinner), refresh=True)
        else:
            self._console.print(f"        {figure.name}: {_number(figure.value)} {figure.unit}", highlight=False)

    def _table(self) -> Table:
        table = Table("figure", "measured", "rounds", "target", "")
        for figure in self.figures:
            spread = f"{_number(min(figure.rounds))} … {_number(max(figure.rounds))}" if figure.rounds else ""
            mark = {None: "", True: "[green]reached[/]", False: "[red]missed[/]"}[figure.reached]
            table.add_row(figure.name, f"{_number(figure.value)} {figure.unit}", spread, figure.goal, mark)
        return table

    def write(self, group: str, machine: dict[str, Any]) -> None:
        """Put what was measured since the last time into results.json, as that group; the other groups stay."""
        content = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        content[group] = {
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": _commit(),
            "machine": machine,
            "figures": [figure.as_json() for figure in self.figures[self._written :]],
        }
        self._written = len(self.figures)
        RESULTS.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def describe_machine(postgresql: str, redis: str) -> dict[str, Any]:
    """Where the figures come from."""
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": names[0] if names else platform.machine(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "postgresql": postgresql,
        "redis": redis,
        "load_before": round(os.getloadavg()[0], 2),
    }


def _commit() -> str | None:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=RESULTS.parent, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "HEAD")
    changed = git(
        "status", "--porcelain", "--untracked-files=no", "--", "../app", "../jobs", "../worker.py", "../web.py"
    )
    return (commit + ("+changes" if changed else "")) or None
