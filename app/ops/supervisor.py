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
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from app.logs import log

_GRACE_S = 25.0
"""Seconds between asking everything to stop and ending it."""
_MAX_PAUSE_S = 15.0


class Keeper:
    """Ends what supervisors have started, should this process be killed: nothing of it outlives its supervisor.

    It is a process that reads from a pipe which children come and which go; the end of this process closes the pipe.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, lock: int) -> None:
        """Watch over this process from now on. The keeper holds the lock of that file descriptor, too, until it has
        done its work."""
        self._process = subprocess.Popen(  # noqa: S603  (argv is ours)
            python("-m", "app.ops.supervisor"),
            bufsize=0,
            stdin=subprocess.PIPE,
            pass_fds=[lock],
            start_new_session=True,
        )

    def add(self, pid: int) -> None:
        """The process group `pid` is to be ended."""
        self._tell(pid)

    def forget(self, pid: int) -> None:
        """The process group `pid` has ended; its number may be another's soon."""
        self._tell(-pid)

    def _tell(self, number: int) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError):  # somebody has killed the keeper: no reason to stop
                self._process.stdin.write(b"%d\n" % number)

    def stop(self) -> None:
        """Leave alone what runs now."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _keep() -> None:
    groups: list[int] = []
    for line in sys.stdin:
        number = int(line)
        if number > 0:
            groups.append(number)
        else:
            groups.remove(-number)
    # Nobody would wait for them to end by themselves; whatever they were doing survives a kill.
    for group in reversed(groups):
        _signal_group(group, signal.SIGKILL)


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

    def __init__(
        self, environment: Mapping[str, str], output: Path | None = None, keeper: Keeper | None = None
    ) -> None:
        """`environment` is added to this process's own; `output` takes what the children print, in place of
        this process's own standard output and error; `keeper` is told of each child."""
        self._environment = dict(environment)
        self._output = output
        self._keeper = keeper or Keeper()
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
                _signal_group(process.pid, signal.SIGKILL)
                process.wait()
            self._keeper.forget(process.pid)

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
        self._keeper.add(child.process.pid)
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
                        _signal_group(child.process.pid, signal.SIGKILL)  # what it left behind
                        self._keeper.forget(child.process.pid)
                        quick = now - child.started < 10
                        child.pause_s = min(_MAX_PAUSE_S, child.pause_s * 2) if quick else 0.5
                        child.due, child.process = now + child.pause_s, None
                        log.warning("process.ended", process=child.name, code=code, again_in_s=child.pause_s)
                    elif child.process is None and now >= child.due:
                        self._spawn(child)


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def python(*arguments: str) -> list[str]:
    """The command that runs this interpreter with `arguments`."""
    return [sys.executable, *arguments]


if __name__ == "__main__":
    _keep()
