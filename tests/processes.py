"""Real processes for the tests: started, paused, killed, and gone when the test is over."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, wait_until


class Process:
    """A process in a group of its own, so that a signal reaches what it has started, too."""

    def __init__(self, command: list[str], log: Path, env: dict[str, str]) -> None:
        self._log = log
        with log.open("wb") as out:
            self._popen = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether it runs, or is paused."""
        return self._popen.poll() is None

    @property
    def output(self) -> str:
        """All that it and its children have written so far."""
        return self._log.read_text(errors="replace")

    def wait_for_output(self, text: str, timeout_s: float = 30.0) -> None:
        """Wait until it has written `text`; fails the test when it ends without."""

        def written() -> bool:
            if text in self.output:
                return True
            if not self.alive:
                pytest.fail(f"the process ended without {text!r}:\n{self.output[-4000:]}")
            return False

        wait_until(written, timeout_s, f"{text!r} in the process's output")

    def wait(self, timeout_s: float = 30.0) -> int:
        """Its exit code, once it has ended by itself."""
        wait_until(lambda: not self.alive, timeout_s, "the end of the process")
        return self._popen.wait()

    def kill(self) -> None:
        """SIGKILL for the whole group: what an OOM killer or a power cut leaves."""
        self._signal_group(signal.SIGKILL)
        self._popen.wait()

    def pause(self) -> None:
        """SIGSTOP for the whole group: a frozen machine, as others see it."""
        self._signal_group(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT for the whole group."""
        self._signal_group(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM for the leader of the group, as a supervisor sends it; returns at once."""
        self._popen.terminate()

    def _signal_group(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return  # every process of the group has ended


class Processes:
    """What one test has started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._all: list[Process] = []

    def start(self, *command: str, **env: str) -> Process:
        """Start `command` in the project's folder, with `env` added to this process's environment."""
        process = Process(list(command), self._folder / f"process-{len(self._all)}.log", env)
        self._all.append(process)
        return process

    def start_python(self, code: str, **env: str) -> Process:
        """Start an interpreter that runs `code`."""
        return self.start(sys.executable, "-c", code, **env)

    def start_worker(
        self,
        module: str = "worker",
        *,
        processes: int = 1,
        threads: int = 4,
        shutdown_timeout_s: float = 30,
        ready: bool = True,
        **env: str,
    ) -> Process:
        """Start Dramatiq's workers on `module`; returns when all of them are ready for action, or with `ready=False`
        at once (what they take first may kill them before they can say that they are)."""
        worker = self.start(
            *(sys.executable, "-m", "dramatiq", module),
            *("--processes", str(processes), "--threads", str(threads)),
            *("--worker-shutdown-timeout", str(int(shutdown_timeout_s * 1000))),
            **env,
        )
        if ready:
            worker.wait_for_output("is booting up")  # Dramatiq's parent says so when its workers have booted
        return worker

    def kill_all(self) -> None:
        """End whatever still runs."""
        for process in self._all:
            process.kill()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Start processes that do not outlive the test."""
    started = Processes(tmp_path)
    try:
        yield started
    finally:
        started.kill_all()
