"""`shoplens labels …`: build a label set, list the sets, and export one."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from shoplens.cli.command import AsJson, DataDir, handle_errors, settings_for
from shoplens.cli.groups import Commands
from shoplens.cli.output import show_table

labels_app = Commands(help="What people said of photos, for training.")

ChannelName = Annotated[str, typer.Argument(help="The channel.")]


class SetFormat(StrEnum):
    """How a set is written."""

    CSV = "csv"
    PARQUET = "parquet"


@labels_app.command(examples=["shoplens labels build returns"])
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


@labels_app.command("list", examples=["shoplens labels list"])
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
    heads = ("CHANNEL", "VERSION", "LABELS", "CREATED", "BY", "DIGEST", "ERASED FROM")
    rows = [
        (each.channel, str(each.version), each.labels, each.created_at, each.created_by, each.digest[:12],
         each.changed_at)
        for each in sets
    ]  # fmt: skip
    show_table(heads, rows, nothing="No label set yet. Build one with `shoplens labels build CHANNEL`.")


@labels_app.command(
    examples=["shoplens labels export returns labels.csv", "shoplens labels export returns labels.parquet --version 2"]
)
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
