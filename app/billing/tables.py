"""The tables of this domain. Constraints and indexes stand in the migrations."""

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Integer, Table, Text
from sqlalchemy.dialects.postgresql import UUID

from app.db import metadata

_time = DateTime(timezone=True)

plan_changes = Table(
    "plan_changes",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("customer_id", BigInteger),
    Column("plan", Text),
    Column("effective_at", _time),
    Column("reason", Text),
    Column("created_at", _time),
    Column("marketplace_from", _time),
)
"""`marketplace_from`: of a plan that is paid on the GitHub Marketplace, a moment at which a month of it begins."""

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("customer_id", BigInteger),
    Column("status", Text),
    Column("cancel_at_period_end", Boolean),
    Column("plan_after", Text),
    Column("past_due_since", _time),
    Column("created_at", _time),
    Column("ended_at", _time),
)
"""Teams subscriptions, as Stripe last showed them. `plan_after`: the plan that begins when it ends."""

billing_periods = Table(
    "billing_periods",
    metadata,
    Column("subscription_id", Text, primary_key=True),
    Column("customer_id", BigInteger),
    Column("starts_at", _time, primary_key=True),
    Column("ends_at", _time),
)

fixes = Table(
    "fixes",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("customer_id", BigInteger),
    Column("phase_result_id", UUID(as_uuid=True)),
    Column("ref", Text),
    Column("plan", Text),
    Column("period_start", _time),
    Column("outcome", Text),
    Column("amount_cents", BigInteger),
    Column("accepted_at", _time),
    Column("created_at", _time),
)
"""A fix that was counted, for ever, under the plan and in the period of the moment that it was accepted in. `ref` is
what it is called in Stripe: derived from what makes it that fix, it is the same in a database that was restored."""

fix_identities = Table(
    "fix_identities",
    metadata,
    Column("customer_id", BigInteger, primary_key=True),
    Column("identity", Text, primary_key=True),
    Column("fix_id", BigInteger),
)

usage_entries = Table(
    "usage_entries",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("customer_id", BigInteger),
    Column("plan", Text),
    Column("period_start", _time),
    Column("fixes", Integer),
    Column("fix_id", BigInteger),
    Column("reason", Text),
    Column("created_at", _time),
)
"""Append-only. A correction is a new entry."""

charges = Table(
    "charges",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("fix_id", BigInteger),
    Column("customer_id", BigInteger),
    Column("amount_cents", BigInteger),
    Column("currency", Text),
    Column("state", Text),
    Column("payment_intent", Text),
    Column("confirms", Integer),
    Column("decline_code", Text),
    Column("failed_at", _time),
    Column("created_at", _time),
    Column("succeeded_at", _time),
)
"""One a fix of payg. `confirms`: outcomes known so far; the next confirmation has the number after it.
`failed_at`: the first failure."""

charge_entries = Table(
    "charge_entries",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("charge_id", BigInteger),
    Column("kind", Text),
    Column("amount_cents", BigInteger),
    Column("refund_number", Integer),
    Column("asked_cents", BigInteger),
    Column("stripe_id", Text),
    Column("dispute_id", Text),
    Column("reason", Text),
    Column("ruled_out", Text),
    Column("at", _time),
)
"""Append-only: what happened to a charge. The sum of their amounts is what was taken and is with us still.
`refund_number`, `asked_cents`: which refund an operator asked for, and how much. `ruled_out`: the payment method that a
hard decline rules out for it."""

disputes = Table(
    "disputes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("charge_id", BigInteger),
    Column("invoice_id", Text),
    Column("status", Text),
    Column("amount_cents", BigInteger),
    Column("reason", Text),
    Column("opened_at", _time),
    Column("closed_at", _time),
)
"""As Stripe last showed them, each of a charge or of an invoice. `closed_at`: when we first saw that the bank had
decided."""

overage_entries = Table(
    "overage_entries",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("customer_id", BigInteger),
    Column("period_start", _time),
    Column("invoice_item", Text),
    Column("fixes", BigInteger),
    Column("amount_cents", BigInteger),
    Column("at", _time),
)

payment_methods = Table(
    "payment_methods",
    metadata,
    Column("id", Text, primary_key=True),
    Column("customer_id", BigInteger),
    Column("brand", Text),
    Column("last4", Text),
    Column("exp_month", Integer),
    Column("exp_year", Integer),
    Column("attached_at", _time),
    Column("detached_at", _time),
    Column("adopted", Boolean),
)
"""`adopted`: what follows from a card's arrival is done; not so for one that Stripe has shown us beside the default."""

invoices = Table(
    "invoices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("customer_id", BigInteger),
    Column("number", Text),
    Column("status", Text),
    Column("currency", Text),
    Column("total_cents", BigInteger),
    Column("paid_cents", BigInteger),
    Column("hosted_url", Text),
    Column("created_at", _time),
)
"""Stripe's invoices, as last fetched."""

invoice_payments = Table(
    "invoice_payments",
    metadata,
    Column("payment_intent", Text, primary_key=True),
    Column("invoice_id", Text),
)
"""Which payment intents paid an invoice."""

invoice_entries = Table(
    "invoice_entries",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("invoice_id", Text),
    Column("kind", Text),
    Column("amount_cents", BigInteger),
    Column("stripe_id", Text),
    Column("dispute_id", Text),
    Column("at", _time),
)
"""Append-only: what was given back of a paid invoice, or disputed. What it was paid stands with the invoice."""
