"""`python -m app.sandbox.stripe`: the sandbox as a process, until SIGINT or SIGTERM."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from app.sandbox.stripe.sandbox import SANDBOX_SECRET, StripeSandbox


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 12111,
    data: Annotated[Path | None, typer.Option(help="File that keeps the state; without it, memory.")] = None,
    webhook_url: Annotated[str | None, typer.Option(help="Endpoint that gets every event.")] = None,
    webhook_secret: Annotated[str, typer.Option(help="Secret that signs them.")] = SANDBOX_SECRET,
    rate_limit: Annotated[float | None, typer.Option(help="Requests a second; none without it.")] = None,
    search_lag: Annotated[float, typer.Option(help="Seconds before search finds a new object.")] = 60,
) -> None:
    """A sandbox that speaks Stripe's API. Prints `Stripe sandbox: URL` once it serves."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        sandbox = StripeSandbox(
            host=host,
            port=port,
            data=data,
            webhook_url=webhook_url,
            webhook_secret=webhook_secret,
            rate_limit=rate_limit,
            search_lag_s=search_lag,
        )
    except OSError as error:
        raise typer.BadParameter(f"cannot listen on {host}:{port}: {error.strerror}") from error
    with sandbox:
        typer.echo(f"Stripe sandbox: {sandbox.url}")
        stopped.wait()


typer.run(serve)
