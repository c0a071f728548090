"""The embedded Redis: fakeredis' TCP server, in a process of its own because its threads never end."""

import argparse

from fakeredis import TcpFakeServer


def main() -> None:
    """Serve until the process is told to end."""
    parser = argparse.ArgumentParser(prog="python -m app.sandbox.redis", description=main.__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    server = TcpFakeServer((options.host, options.port), server_type="redis")
    server.daemon_threads = True
    # It writes the answers of a pipeline one by one: without this, each waits for the one before to be acknowledged.
    server.RequestHandlerClass.disable_nagle_algorithm = True  # type: ignore[attr-defined]
    server.serve_forever()


if __name__ == "__main__":
    main()
