"""Alembic's entry: run the migrations on the connection that `migrate` holds its lock on."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transaction_per_migration=False)
context.run_migrations()
