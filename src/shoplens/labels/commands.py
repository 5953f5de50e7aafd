"""`shoplens labels …`: build a label set, list the sets, and export one."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from shoplens.cli.command import AsJson, DataDir, handle_errors, settings_for

labels_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What people said of photos, for training.")

ChannelName = Annotated[str, typer.Argument(help="The channel.")]


class SetFormat(StrEnum):
    """How a set is written."""

    CSV = "csv"
    PARQUET = "parquet"


@labels_app.command()
@handle_errors
def build(channel: ChannelName, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Freeze what people have said until now as a new version."""
    import orjson

    from shoplens.accounts.commands import operator
    from shoplens.platform.consequences import open_labels

    with open_labels(settings_for(data_dir)) as labels:
        built = labels.build(channel, by=operator())
    if as_json:
        typer.echo(orjson.dumps(built))
    else:
        typer.echo(f"Version {built.version} of {channel} has {built.labels:,} labels ({built.digest[:12]}).")


@labels_app.command("list")
@handle_errors
def list_sets(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """List the label sets of all channels, newest first."""
    import orjson

    from shoplens.platform.consequences import open_labels

    with open_labels(settings_for(data_dir)) as labels:
        sets = labels.all()
    if as_json:
        typer.echo(orjson.dumps(sets))
        return
    for each in sets:
        changed = f", samples were erased {each.changed_at:%Y-%m-%d}" if each.changed_at else ""
        typer.echo(
            f"{each.channel} {each.version}: {each.labels:,} labels of {each.created_at:%Y-%m-%d %H:%M} UTC "
            f"by {each.created_by} ({each.digest[:12]}){changed}"
        )
    if not sets:
        typer.echo("No label set yet. Build one with `shoplens labels build CHANNEL`.")


@labels_app.command()
@handle_errors
def export(
    channel: ChannelName,
    into: Annotated[Path, typer.Argument(help="The file to write.")],
    version: Annotated[int | None, typer.Option(help="Which version; the newest if unset.", min=1)] = None,
    kind: Annotated[
        SetFormat | None, typer.Option("--format", help="How it is written; by the end of the file's name if unset.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Write a label set into a file: CSV where its name ends in .csv, else Parquet."""
    from shoplens.platform.consequences import open_labels

    as_csv = kind is SetFormat.CSV or (kind is None and into.suffix.lower() == ".csv")
    with open_labels(settings_for(data_dir)) as labels:
        found = labels.get(channel, version)
        with into.open("wb") as file:
            for piece in map(str.encode, labels.csv(found)) if as_csv else labels.parquet(found):
                file.write(piece)
    typer.echo(f"Wrote {found.labels:,} labels of {channel} {found.version} to {into}.")
