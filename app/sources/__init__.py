"""Who posts webhooks. A source is a folder here: what it is called and says of itself, `verifier.py`, whose `read` says
what is taken and as which job, and `handlers.py`, which the job leads to. Everything else (the route, the commands, the
metrics) is made of `SOURCES`, but for the setting that holds its secrets."""

from app.sources import github, stripe

SOURCES = {source.name: source for source in (stripe.SOURCE, github.SOURCE)}
"""By name."""
