"""How commands print: a table for people, JSON for programs."""

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.contracts.http import CONTROLS

console = Console(highlight=False, soft_wrap=True)
"""Reads markup, so it is for texts of our own; what may hold anybody else's is printed by the functions below."""
errors = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WhyOption = Annotated[str | None, typer.Option("--why", help="The reason, kept on record.")]


_WHOLE = {"id", "signup_id", "name", "state", "created_at", "run_at", "at", "started_at", "ended_at"}
"""Columns that are never broken over two lines."""


def print_json(value: Any) -> None:
    """One JSON document on standard output. What is not of JSON's types raises: a guess would make an amount a text."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_rows(rows: Sequence[dict[str, Any]], columns: Sequence[str], empty: str) -> None:
    """`rows` as a table of `columns`; `empty` where there are none."""
    if not rows:
        say(empty, "dim")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold", no_wrap=column in _WHOLE)
    for row in rows:
        table.add_row(*(_inert(_cell(row[column])) for column in columns))
    # Piped into a file or another program there is no width to keep to.
    Console(highlight=False, width=None if console.is_terminal else 250).print(table, soft_wrap=False)


def say(text: str, style: str = "") -> None:
    """Print `text` as it is, whoever wrote it."""
    console.print(_inert(text), style=style)


def warn(text: str) -> None:
    """Print `text` on standard error, where the command goes on."""
    errors.print(_inert(text), style="yellow")


def fail(message: str, status: int = 2) -> typer.Exit:
    """Print `message` as an error; raise what is returned to end with `status`."""
    errors.print(_inert(message), style="red")
    return typer.Exit(status)


def _inert(text: str) -> Text:
    """`text` for the terminal: no markup is read in it, and what a terminal would obey is spelled out."""
    return Text(CONTROLS.sub(lambda found: found[0] if found[0] in "\n\t" else ascii(found[0])[1:-1], text))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return ": ".join(str(part) for part in value.values() if part)
    if isinstance(value, float):
        return f"{value:.1f}"
    text = str(value)
    if len(text) > 19 and text[10:11] == "T" and text[:4].isdigit():
        return text[:19].replace("T", " ")  # a time, without its fraction
    return text
