"""Sends signups, phase events or webhooks over keep-alive connections: a process of its own, cheap enough not to
become the figure.

    python -m bench.load --port 8000 --connections 32 --first 0 --seconds 5

Each connection sends its next request when its last one has been answered. Prints one JSON object.
"""

import argparse
import hmac
import json
import re
import selectors
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

_REQUEST = (
    b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: */*\r\n"
    b"Content-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
)
_SIGNUP = b'{"email":"bench-%012d@tallyhook.example.com","name":"Benchmark %d"}'
_FIX = (
    b'{"phase":"mitigation","data":{"fixed":true,"prUrl":"https://github.com/bench/fixes/pull/%d","fixCommit":"%040x",'
    b'"timestamp":"2026-01-02T03:04:05.678Z"},"repo":"bench/fixes","issueNumber":%d,"commitSha":"%040x"}'
)
_EVENT = (Path(__file__).parent / "event.json").read_bytes()
"""As Stripe posts it, of a usual size; its id is yet to come."""
_HEAD = re.compile(rb"HTTP/1\.1 (\d\d\d) .*?\r\ncontent-length: (\d+)\r\n(?:.*?\r\n)?\r\n", re.IGNORECASE | re.DOTALL)
_PATIENCE_S = 30.0


class BadAnswer(Exception):
    """The server answered with something other than success, or not at all."""


@dataclass
class Load:
    """Signups number `first`, `first` + 1, … until `requests` are sent or `seconds` are over; with `api_keys` deployed
    fixes, under each of these keys in turn; with `webhook_secret` events of Stripe's, signed by it.

    Answers to what was sent in the first `warmup` seconds are checked, but not counted.
    """

    port: int
    connections: int
    first: int
    warmup: float = 0.0
    seconds: float = 600.0
    requests: int = 2**62
    api_keys: Sequence[str] = ()
    webhook_secret: str = ""
    latencies: list[float] = field(default_factory=list)
    sent_at: list[float] = field(default_factory=list)
    """Unix time at which each request was sent; kept for runs of a given number of requests."""

    def run(self) -> None:
        """Send everything.

        Raises:
            BadAnswer
        """
        selector = selectors.EpollSelector()
        for _ in range(self.connections):
            sock = socket.create_connection(("127.0.0.1", self.port), timeout=10)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(sock, selectors.EVENT_READ, _Connection(sock))
        began = time.perf_counter()
        self._counts_from = began + self.warmup
        self._until = self._counts_from + self.seconds
        self._sent = 0
        open_ones = sum(self._send(key.data) for key in list(selector.get_map().values()))
        while open_ones:
            ready = selector.select(_PATIENCE_S)
            if not ready:
                raise BadAnswer(f"no answer for {_PATIENCE_S:.0f} s")
            for key, _ in ready:
                if self._receive(key.data) and not self._send(key.data):
                    open_ones -= 1
        for key in list(selector.get_map().values()):
            key.data.sock.close()
        selector.close()

    def _send(self, connection: "_Connection") -> bool:
        now = time.perf_counter()
        if now >= self._until or self._sent >= self.requests:
            return False
        number = self.first + self._sent
        self._sent += 1
        request = self._request(number)
        connection.sent = now
        if self.requests < 2**62:
            self.sent_at.append(time.time())
        connection.sock.sendall(request)
        return True

    def _request(self, number: int) -> bytes:
        if self.webhook_secret:
            body = _EVENT % number
            signature = signature_header(body, self.webhook_secret).encode()
            return _REQUEST % (b"/webhooks/stripe", b"Stripe-Signature: %b\r\n" % signature, len(body), body)
        if not self.api_keys:
            body = _SIGNUP % (number, number)
            return _REQUEST % (b"/api/v1/customers", b"", len(body), body)
        key = self.api_keys[number % len(self.api_keys)].encode()
        body = _FIX % (number, number, number + 1, number)
        return _REQUEST % (b"/api/v1/phase-data", b"X-API-Key: %b\r\n" % key, len(body), body)

    def _receive(self, connection: "_Connection") -> bool:
        got = connection.sock.recv(65536)
        if not got:
            raise BadAnswer("the server closed the connection")
        connection.buffer += got
        head = _HEAD.match(connection.buffer)
        if head is None or len(connection.buffer) < head.end() + int(head[2]):
            return False
        if head[1] not in (b"200", b"202"):
            raise BadAnswer(connection.buffer.decode(errors="replace"))
        connection.buffer = b""
        now = time.perf_counter()
        if self._counts_from <= connection.sent and now <= self._until:
            self.latencies.append(now - connection.sent)
        return True


def signature_header(body: bytes, secret: str) -> str:
    """The value of `Stripe-Signature` for a body that is sent now."""
    now = int(time.time())
    return f"t={now},v1={hmac.new(secret.encode(), b'%d.%b' % (now, body), sha256).hexdigest()}"


@dataclass
class _Connection:
    sock: socket.socket
    buffer: bytes = b""
    sent: float = 0.0


def main() -> None:
    """Run one load and print `{rate, latencies_ms, sent_at}`; exit status 1 at the first bad answer."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=main.__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--first", type=int, required=True, help="the number of the first request")
    parser.add_argument("--warmup", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--requests", type=int, default=2**62)
    parser.add_argument("--api-keys", nargs="*", default=(), help="send phase events under these, not signups")
    parser.add_argument("--webhook-secret", default="", help="send webhooks signed by this, not signups")
    load = Load(**vars(parser.parse_args()))
    try:
        load.run()
    except BadAnswer as error:
        sys.exit(f"bad answer: {error}")
    latencies = [round(1000 * latency, 2) for latency in load.latencies]
    print(json.dumps({"rate": len(latencies) / load.seconds, "latencies_ms": latencies, "sent_at": load.sent_at}))


if __name__ == "__main__":
    main()
