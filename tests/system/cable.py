"""A cable between the application and a server that it depends on: cut, frozen and mended at will."""

import select
import socket
import threading
from urllib.parse import urlsplit

import psycopg


def postgres_address(url: str) -> tuple[socket.AddressFamily, object]:
    """Where the PostgreSQL of a DATABASE_URL listens."""
    parts = psycopg.conninfo.conninfo_to_dict(url)
    host, port = str(parts.get("host", "127.0.0.1")), int(str(parts.get("port", 5432)))
    if host.startswith("/"):
        return socket.AF_UNIX, f"{host}/.s.PGSQL.{port}"
    return socket.AF_INET, (host, port)


def redis_address(url: str) -> tuple[socket.AddressFamily, object]:
    """Where the Redis of a REDIS_URL listens."""
    parts = urlsplit(url)
    return socket.AF_INET, (parts.hostname, parts.port or 6379)


class Cable:
    """Listens on a port of its own and carries every byte to `address` and back.

    After `cut` connections are refused and open ones are reset; after `freeze` connections are accepted
    and nothing is carried, as with a machine that hangs; `mend` ends either.
    """

    def __init__(self, address: tuple[socket.AddressFamily, object]) -> None:
        self._family, self._address = address
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._flows = threading.Event()
        self._flows.set()
        self._listener: socket.socket | None = None
        self._kept = socket.socket()  # bound, and never listening: while the cable is cut nobody else takes the port
        self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._kept.bind(("127.0.0.1", 0))
        self.port: int = self._kept.getsockname()[1]
        self.mend()

    def cut(self) -> None:
        """Refuse new connections and reset open ones."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                _shut(end)

    def freeze(self) -> None:
        """Carry nothing any more, in either direction, and say nothing."""
        self._flows.clear()

    def mend(self) -> None:
        """Carry again."""
        self._flows.set()
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), reuse_port=True)
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return  # cut
            far = socket.socket(self._family)
            far.connect(self._address)
            with self._lock:
                if self._listener is not listener:
                    _shut(near)
                    _shut(far)
                    return
                self._pairs.append((near, far))
            threading.Thread(target=self._carry, args=(near, far), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        try:
            while True:
                ready, _, _ = select.select([near, far], [], [])
                self._flows.wait()
                for end in ready:
                    data = end.recv(65536)
                    if not data:
                        return
                    (far if end is near else near).sendall(data)
        except (OSError, ValueError):
            return  # one of the two ends is gone
        finally:
            _shut(near)
            _shut(far)


def _shut(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is closed already
    finally:
        end.close()
