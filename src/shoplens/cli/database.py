"""`shoplens db …`."""

from __future__ import annotations

from pathlib import Path

import typer

from shoplens.cli.options import settings_for
from shoplens.db import current_revision, upgrade


def upgrade_database(*, data_dir: Path | None) -> None:
    """Run the migrations. Raises DatabaseUnavailable."""
    settings = settings_for(data_dir)
    url = settings.effective_database_url
    if settings.database_url is None:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    upgrade(url)
    typer.echo(f"The database is at revision {current_revision(url)}.")
