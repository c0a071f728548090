"""HTTP/1.1 with keep-alive on a socket whose connections can be dropped at will, a thread for each.

The standard library's server, because a test of a lost answer needs the socket itself, and the servers that
WSGI comes with either close every connection or cannot be started inside a test.
"""

import socket
import sys
import threading
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from app.sandbox.stripe.api import Dropped
from app.sandbox.stripe.messages import Request, Response, json_response

_LARGEST_BODY = 1 << 20

Answer = Callable[[Request], Response]


class Server(ThreadingHTTPServer):
    """Serves until `stop`, which also closes the connections that clients keep open."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, host: str, port: int) -> None:
        super().__init__((host, port), _Handler)
        self.answer: Answer = _not_ready
        self.stopped = False
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"

    def serve(self) -> None:
        """Answers until `stop`, which it notices within 20 ms."""
        self.serve_forever(poll_interval=0.02)

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self.stopped = True
        with self._open_lock:
            for connection in self._open:
                _cut(connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error; anything else is told on stderr."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "stripe-sandbox"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Server

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > _LARGEST_BODY:
            self.close_connection = True
            self.send_error(413)
            return
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        sent = self.rfile.read(length)
        if len(sent) < length:  # who sent it has died over it: a request that is not whole is none
            self.close_connection = True
            return
        body = sent.decode("utf-8", "replace")
        try:
            response = self.server.answer(Request(self.command, path, query, headers, body))
        except Dropped:
            self.close_connection = True
            _cut(self.connection)
            return
        except Exception as bug:
            if self.server.stopped:
                self.close_connection = True
                return
            # Said aloud, and answered unlike any fault: a bug of the sandbox must not pass for the network's.
            traceback.print_exc()
            response = json_response(500, {"error": {"type": "api_error", "message": f"bug in the sandbox: {bug!r}"}})
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(response.body)
        self.wfile.flush()

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815 - the names that http.server looks for

    def log_message(self, *args: Any) -> None:
        """Nothing: the log is under `/_sandbox/requests`."""


def _not_ready(_: Request) -> Response:
    return Response(503, b"")


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # It is closed already, which is all that was wanted.
        return
