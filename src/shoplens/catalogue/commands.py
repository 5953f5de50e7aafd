"""`shoplens catalogue …`: products, their import and export, the tree of categories, and runs.

What is slow to import is imported by the command that needs it, so that `shoplens --help` is quick.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoplens.catalogue.tree_commands import tree_app
from shoplens.cli.command import AsJson, DataDir, handle_errors, settings_for

if TYPE_CHECKING:
    from shoplens.catalogue.entities import ImportJob

catalogue_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Categorise the products of a shop.")
catalogue_app.add_typer(tree_app, name="tree")

ChannelName = Annotated[
    str | None, typer.Option("--channel", help="Optional if only one channel has a catalogue side.")
]
ColumnChoice = Annotated[
    list[str] | None,
    typer.Option("--column", help="FIELD=COLUMN for a column that is not guessed (may be repeated); fields: reference, "
                 "designation, description, category, photos."),
]  # fmt: skip


@catalogue_app.command("import")
@handle_errors
def import_products(
    file: Annotated[Path, typer.Argument(help="A CSV file; also `X` in the format of the Rakuten challenge.")],
    categories: Annotated[
        Path | None, typer.Option("--categories", help="A second file with categories: `Y` of that format.")
    ] = None,
    photos: Annotated[
        str | None,
        typer.Option("--photos", help="Folder or `s3://bucket/prefix` of the photos; unset: beside the file."),
    ] = None,
    column: ColumnChoice = None,
    channel: ChannelName = None,
    faults: Annotated[int, typer.Option("--faults", help="How many faults are listed.", min=0, max=1000)] = 20,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Import products. A row that cannot be used is listed and stops nothing; the same file again changes nothing.

    An import that was interrupted goes on where it was when the same command is given again.
    """
    import hashlib

    import orjson

    from shoplens.catalogue.importer import ImportSource
    from shoplens.catalogue.imports import NewImport
    from shoplens.platform.catalogue import open_photos, open_stored

    settings = settings_for(data_dir)
    chosen = _chosen(column)
    with open_stored(settings) as catalogue, ExitStack() as files:
        name = catalogue.channel(channel).name
        table = files.enter_context(file.open("rb"))
        codes = None if categories is None else files.enter_context(categories.open("rb"))
        wanted = settings.channels[name].catalogue
        beside = None if wanted is None or wanted.photos else str(file.absolute().parent)
        source = ImportSource(
            table=table, codes=codes, photos=open_photos(settings, name, photos or beside), chosen=chosen
        )
        marks = [_mark(each) for each in (file, categories) if each is not None]
        stamp = hashlib.sha256(repr((marks, photos, sorted(chosen.items()))).encode()).hexdigest()
        _stop_with(catalogue.imports.stop)
        new = NewImport(channel=name, source=file.name, by="command line", stamp=stamp, chosen=chosen)
        job = catalogue.imports.run(new, source, on_progress=_show_progress)
        listed = catalogue.imports.faults(job.id, limit=faults) if faults else []
    if as_json:
        fields = ("id", "rows", "added", "changed", "unchanged", "faults", "finished_at")
        shown = [
            {"line": each.line, "code": each.code, "reason": each.reason, "reference": each.reference}
            for each in listed
        ]
        typer.echo(orjson.dumps({**{name: getattr(job, name) for name in fields}, "listed": shown}))
    else:
        _show_import(job)
        for each in listed:
            typer.echo(f"line {each.line} ({each.code}): {each.reason}", err=True)
        if job.faults > len(listed):
            typer.echo(f"… and {job.faults - len(listed):,} more: --faults lists them.", err=True)
    if job.finished_at is None:
        raise typer.Exit(1)


def _chosen(column: list[str] | None) -> dict[str, str]:
    from shoplens.catalogue.errors import ImportInvalid

    chosen = {}
    for each in column or ():
        field, equals, name = each.partition("=")
        if not (field and equals and name):
            raise ImportInvalid(f"Write --column as FIELD=COLUMN, such as reference=SKU; {each!r} is not that.")
        chosen[field] = name
    return chosen


def _mark(file: Path) -> tuple[str, int, int]:
    found = file.stat()
    return str(file.absolute()), found.st_size, found.st_mtime_ns


def _stop_with(stop: Callable[[], None]) -> None:
    """The first SIGTERM or interrupt lets the work in hand be committed; the next one ends the process as usual."""

    def ended(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ended)


def _show_progress(job: ImportJob) -> None:
    if job.finished_at is None:
        typer.echo(f"\r{job.rows:,} rows, {job.faults:,} faults ", nl=False, err=True)


def _show_import(job: ImportJob) -> None:
    ended = "Imported" if job.finished_at else "Interrupted; the same command goes on. So far:"
    typer.echo(
        f"{ended} {job.rows:,} rows: {job.added:,} added, {job.changed:,} changed, {job.unchanged:,} unchanged, "
        f"{job.faults:,} faults."
    )
