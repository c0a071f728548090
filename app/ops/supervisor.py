"""Keep a handful of processes running on one machine: what `tallyhook up` is made of.

A process that ends is started again, because workers are killed in real life; that is the one thing which
keeps us from using honcho here (it stops all when one ends).
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from app.logs import log

_GRACE_S = 25.0
"""Seconds between asking everything to stop and ending it."""
_MAX_PAUSE_S = 15.0


@dataclass
class _Child:
    name: str
    argv: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause_s: float = field(default=0.5)
    due: float = 0.0


class Supervisor:
    """Starts what it is given, restarts what ends, and stops all of it in the reverse order."""

    def __init__(self, environment: Mapping[str, str], output: Path | None = None) -> None:
        """`environment` is added to this process's own; `output` takes what the children print, in place of
        this process's own standard output and error."""
        self._environment = dict(environment)
        self._output = output
        self._children: list[_Child] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def start(self, name: str, argv: Sequence[str]) -> None:
        """Start a process and keep it running. `argv[0]` is a Python module's or script's full command."""
        child = _Child(name, argv)
        with self._lock:
            self._children.append(child)
            self._spawn(child)
        if not self._thread.is_alive():
            self._thread.start()

    def pids(self, name: str) -> list[int]:
        """The ids of the running processes of that name."""
        with self._lock:
            return [c.process.pid for c in self._children if c.name == name and c.process and c.process.poll() is None]

    def stop(self) -> None:
        """Ask all to end, the last started first; end whoever has not after the grace time."""
        self._stopping.set()
        with self._lock:
            running = [c.process for c in reversed(self._children) if c.process and c.process.poll() is None]
            for process in running:
                process.terminate()
        until = time.monotonic() + _GRACE_S
        for process in running:
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal_group(process, signal.SIGKILL)
                process.wait()

    def _spawn(self, child: _Child) -> None:
        # A session of its own: Ctrl-C reaches this process alone, which then stops the others in order.
        with ExitStack() as files:
            out = files.enter_context(self._output.open("ab")) if self._output else None
            child.process = subprocess.Popen(  # noqa: S603  (argv is ours)
                child.argv,
                env={**os.environ, **self._environment},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        child.started = time.monotonic()

    def _watch(self) -> None:
        while not self._stopping.wait(0.2):
            now = time.monotonic()
            with self._lock:
                if self._stopping.is_set():
                    return
                for child in self._children:
                    if child.process is not None and child.process.poll() is not None:
                        code = child.process.returncode
                        _signal_group(child.process, signal.SIGKILL)  # what it left behind
                        quick = now - child.started < 10
                        child.pause_s = min(_MAX_PAUSE_S, child.pause_s * 2) if quick else 0.5
                        child.due, child.process = now + child.pause_s, None
                        log.warning("process.ended", process=child.name, code=code, again_in_s=child.pause_s)
                    elif child.process is None and now >= child.due:
                        self._spawn(child)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def python(*arguments: str) -> list[str]:
    """The command that runs this interpreter with `arguments`."""
    return [sys.executable, *arguments]
