"""What Alembic runs: the migrations, on the connection (and in the transaction) that `db.migrate` passes."""

from __future__ import annotations

from alembic import context

from shoplens.db.migrate import all_tables

context.configure(connection=context.config.attributes["connection"], target_metadata=all_tables())
context.run_migrations()
