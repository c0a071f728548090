"""What webhooks lead to: the handlers of each source, which stand in its folder."""

from app.sources import SOURCES

for _source in SOURCES.values():
    _source.part("handlers")
