"""gunicorn's settings: `gunicorn -c python:app.intake.server web:app`."""

import socket
import struct
from typing import Any

from app.logs import json_formatter
from app.settings import settings_or_exit

bind = f"0.0.0.0:{settings_or_exit().port}"
worker_class = "gthread"
workers = 2
threads = 16
keepalive = 75
graceful_timeout = 15
max_requests = 0
limit_request_field_size = 16_384
control_socket_disable = True
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": json_formatter}},
    "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"}},
    "root": {"level": "WARNING", "handlers": ["out"]},
    "loggers": {"gunicorn.error": {"level": "INFO", "handlers": ["out"], "propagate": False}},
}

_READ_S = 15
"""A sender that says nothing for so long is cut off, so that slow ones cannot hold every thread."""


def when_ready(server: Any) -> None:
    """Connections inherit the time-out of the socket that they came in by."""
    for listener in server.LISTENERS:
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _READ_S, 0))
