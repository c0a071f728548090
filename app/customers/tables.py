"""The tables of this domain. Constraints and indexes stand in the migrations."""

from sqlalchemy import BigInteger, Boolean, Column, DateTime, LargeBinary, Table, Text
from sqlalchemy.dialects.postgresql import UUID

from app.db import metadata

_time = DateTime(timezone=True)

customers = Table(
    "customers",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("email", Text),
    Column("name", Text),
    Column("plan", Text),
    Column("wanted_plan", Text),
    Column("source", Text),
    Column("subscription_status", Text),
    Column("stripe_customer_id", Text),
    Column("created_at", _time),
    Column("welcomed_at", _time),
    Column("default_payment_method", Text),
    Column("bonus_at", _time),
    Column("stripe_deleted_at", _time),
    Column("default_elsewhere", Text),
)
"""`plan` is what they have, `wanted_plan` what they asked for: it begins when a payment method arrives.
`default_elsewhere`: the default in Stripe where that is no card; ours is one for all that."""

customer_addresses = Table(
    "customer_addresses",
    metadata,
    Column("address", Text, primary_key=True),
    Column("customer_id", BigInteger),
    Column("created_at", _time),
)

signups = Table(
    "signups",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("email", Text),
    Column("name", Text),
    Column("plan", Text),
    Column("source", Text),
    Column("status", Text),
    Column("idempotency_key", Text),
    Column("customer_id", BigInteger),
    Column("approved_at", _time),
    Column("created_at", _time),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("customer_id", BigInteger),
    Column("hash", Text),
    Column("first", Boolean),
    Column("sealed", LargeBinary),
    Column("created_at", _time),
    Column("revoked_at", _time),
)
"""`hash`: SHA-256 in hex. `first`: the one that provisioning issues. `sealed`: the key itself, encrypted,
only until the welcome mail that carries it has been handed over."""
