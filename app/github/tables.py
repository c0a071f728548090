"""The tables of this source. Constraints and indexes stand in the migrations."""

from sqlalchemy import BigInteger, Column, DateTime, Table, Text
from sqlalchemy.dialects.postgresql import UUID

from app.db import metadata

_time = DateTime(timezone=True)

marketplace_accounts = Table(
    "marketplace_accounts",
    metadata,
    Column("github_id", BigInteger, primary_key=True),
    Column("login", Text),
    Column("type", Text),
    Column("signup_id", UUID(as_uuid=True)),
    Column("customer_id", BigInteger),
    Column("created_at", _time),
)
"""Who has bought something. `signup_id`: the signup that makes the customer, where there was none with the address."""

marketplace_purchases = Table(
    "marketplace_purchases",
    metadata,
    Column("delivery", Text, primary_key=True),
    Column("github_id", BigInteger),
    Column("action", Text),
    Column("effective_at", _time),
    Column("plan", Text),
    Column("plan_before", Text),
    Column("made_at", _time),
    Column("received_at", _time),
    Column("months_from", _time),
)
"""Every delivery about a purchase, in our own words (app/github/history.py)."""

github_installations = Table(
    "github_installations",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("github_id", BigInteger),
    Column("login", Text),
    Column("state", Text),
    Column("changed_at", _time),
)
"""Installations of the GitHub App, as GitHub last showed them."""
