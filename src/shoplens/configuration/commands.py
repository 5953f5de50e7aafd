"""`shoplens config …`: every setting with its value and where it comes from."""

from __future__ import annotations

from typing import Annotated

import typer

from shoplens.cli.command import AsJson, DataDir, handle_errors, settings_for
from shoplens.cli.groups import Commands
from shoplens.cli.output import show_json, show_table, warn

config_app = Commands(help="Show the settings and where each comes from.")


@config_app.callback()
def config() -> None:
    """Show the settings and where each comes from."""


@config_app.command(examples=["shoplens config show", "shoplens config show channels.returns port"])
@handle_errors
def show(
    names: Annotated[
        list[str] | None, typer.Argument(help="Settings or tables (`port`, `channels.returns`); all if unset.")
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show each setting with its value and its source. Passwords are masked.

    Thresholds that were edited on the page Settings are read from the database, if it answers.
    """
    from shoplens.platform.configuration import chosen_values, current_values

    values, doubt = current_values(settings_for(data_dir))
    if doubt is not None:
        warn(doubt)
    chosen = chosen_values(values, names or [])
    if as_json:
        show_json(
            [
                {"name": each.name, "value": each.value, "source": each.source.kind, "where": each.source.where}
                for each in chosen
            ]
        )
        return
    rows = [(each.name, each.text, each.source.words) for each in chosen]
    show_table(("SETTING", "VALUE", "SOURCE"), rows, nothing="There is no such setting.")


@config_app.command(examples=["shoplens config path"])
@handle_errors
def path() -> None:
    """Show which file is read, and whether it is there."""
    from shoplens.setting_sources import settings_file

    file = settings_file().absolute()
    typer.echo(f"{file}{'' if file.is_file() else ' (not there)'}")
