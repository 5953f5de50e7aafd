"""`shoplens backup` and `shoplens restore`: everything into one folder, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoplens.cli.errors import handle_errors

Folder = Annotated[Path, typer.Argument(help="The folder of the backup; an earlier one is updated.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the database, the photos and the models are.")]


def add_backup(app: typer.Typer) -> None:
    """Add both commands."""
    app.command("backup")(_backup)
    app.command("restore")(_restore)


@handle_errors
def _backup(folder: Folder, data_dir: DataDir = None) -> None:
    """Copy photos, models and the SQLite database into a folder; the server may keep running."""
    from shoplens.cli.options import settings_for
    from shoplens.platform.backup import back_up

    outcome = back_up(settings_for(data_dir), folder)
    photos = outcome.photos
    typer.echo(
        f"Copied {photos.files:,} files of the store ({photos.byte_count / 1e6:,.1f} MB); "
        f"{photos.known:,} were there already. {outcome.models} models."
    )
    if outcome.row_bytes is None:
        typer.echo("The database is on a server: run pg_dump now, and then this command once more.")
    else:
        typer.echo(f"Copied the database ({outcome.row_bytes / 1e6:,.1f} MB).")


@handle_errors
def _restore(folder: Folder, data_dir: DataDir = None) -> None:
    """Put a backup's photos, models and SQLite database back. An existing database is never overwritten."""
    from shoplens.cli.options import settings_for
    from shoplens.platform.backup import restore

    outcome = restore(settings_for(data_dir), folder)
    typer.echo(f"Put {outcome.photos.files:,} files into the store; {outcome.photos.known:,} were there already.")
    typer.echo(f"{outcome.models} models are installed.")
    if outcome.row_bytes is None:
        typer.echo("The database is on a server: pg_restore puts its rows back.")
    else:
        typer.echo(f"Put the database back ({outcome.row_bytes / 1e6:,.1f} MB). Now start, or run `shoplens doctor`.")
