"""The migrations, as Alembic scripts inside the package."""
