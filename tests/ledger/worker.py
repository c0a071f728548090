"""The real worker, with the tests' kinds of job: `dramatiq tests.ledger.worker`."""

import tests.ledger.commands

__all__ = ["tests"]

import worker  # noqa: F401  (last: it makes an actor of every handler known by then)
