"""The tables of this domain. Constraints and indexes stand in the migrations."""

from sqlalchemy import BigInteger, Column, DateTime, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, UUID

from app.db import metadata

phase_results = Table(
    "phase_results",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("customer_id", BigInteger),
    Column("phase", Text),
    Column("status", Text),
    Column("repo", Text),
    Column("issue_number", BigInteger),
    Column("commit_sha", Text),
    Column("fix_id", Text),
    Column("data", JSONB),
    Column("digest", Text),
    Column("received_at", DateTime(timezone=True)),
    Column("last_received_at", DateTime(timezone=True)),
)
"""Every distinct result of a customer, as it came. `digest`: SHA-256 of its content, in hex. `last_received_at`: when
it came again; billing goes by when it came first."""
