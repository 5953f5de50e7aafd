"""`shoplens catalogue …`: products, their import and export, the tree of categories, and runs.

What is slow to import is imported by the command that needs it, so that `shoplens --help` is quick.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from shoplens.catalogue.bulk.commands import accept_suggestions, stop_with
from shoplens.catalogue.tree.commands import tree_app
from shoplens.cli.command import AsJson, DataDir, RequestedBy, handle_errors, settings_for
from shoplens.cli.groups import Commands

if TYPE_CHECKING:
    from shoplens.catalogue.entities import CatalogueRun, ImportJob
    from shoplens.catalogue.runs.runner import RunEngine
    from shoplens.catalogue.suggest.service import Suggestion, SuggestRequest

_STATUS_OF_SIGNAL: Final = 128
_UNNAMED_SHOWN: Final = 20

catalogue_app = Commands(help="Categorise the products of a shop.")
catalogue_app.add_typer(tree_app, name="tree")
catalogue_app.command(
    "accept",
    examples=["shoplens catalogue accept --above 0.95 --dry-run", "shoplens catalogue accept --undo 01J8ZK3V5QW7"],
)(accept_suggestions)

ChannelName = Annotated[
    str | None, typer.Option("--channel", help="Optional if only one channel has a catalogue side.")
]
ColumnChoice = Annotated[
    list[str] | None,
    typer.Option("--column", help="FIELD=COLUMN for a column that is not guessed (may be repeated); fields: reference, "
                 "designation, description, category, photos."),
]  # fmt: skip


@catalogue_app.command(
    "import",
    examples=[
        "shoplens catalogue import products.csv",
        "shoplens catalogue import products.csv --column reference=SKU",
    ],
)
@handle_errors
def import_products(
    file: Annotated[Path, typer.Argument(help="A CSV file; also `X` in the format of the Rakuten challenge.")],
    categories: Annotated[
        Path | None, typer.Option("--categories", help="A second file with categories: `Y` of that format.")
    ] = None,
    photos: Annotated[
        str | None,
        typer.Option(
            "--photos", help="Folder, `s3://bucket/prefix` or ZIP file of the photos; unset: beside the file."
        ),
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

    from shoplens.catalogue.imports.importer import ImportSource
    from shoplens.catalogue.imports.photo_archives import ArchivedPhotos
    from shoplens.catalogue.imports.service import NewImport
    from shoplens.platform.catalogue import open_photos, open_stored

    settings = settings_for(data_dir)
    chosen = _chosen(column)
    with open_stored(settings) as catalogue, ExitStack() as files:
        name = catalogue.channel(channel).name
        table = files.enter_context(file.open("rb"))
        codes = None if categories is None else files.enter_context(categories.open("rb"))
        wanted = settings.channels[name].catalogue
        beside = None if wanted is None or wanted.photos else str(file.absolute().parent)
        archived = photos is not None and photos.lower().endswith(".zip")
        named = open_photos(settings, name, beside if archived else photos or beside)
        packed = [files.enter_context(Path(photos).open("rb"))] if archived and photos is not None else []
        reader = ArchivedPhotos(packed, others=named, max_bytes=named.max_bytes) if packed else named
        source = ImportSource(table=table, codes=codes, photos=reader, chosen=chosen)
        marks = [_mark(each) for each in (file, categories) if each is not None]
        stamp = hashlib.sha256(repr((marks, photos, sorted(chosen.items()))).encode()).hexdigest()
        stop_with(lambda _: catalogue.imports.stop())
        new = NewImport(channel=name, source=file.name, by="command line", stamp=stamp, chosen=chosen)
        job = catalogue.imports.run(new, source, on_progress=_show_progress)
        listed = catalogue.imports.faults(job.id, limit=faults) if faults else []
    if as_json:
        fields = ("id", "rows", "added", "changed", "unchanged", "faults", "unnamed_photos", "finished_at")
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
        if job.unnamed_photos:
            typer.echo(f"No row names {job.unnamed_photos:,} of the photos in the ZIP file:", err=True)
            for name in job.first_unnamed[:_UNNAMED_SHOWN]:
                typer.echo(f"  {name}", err=True)
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


def _show_progress(job: ImportJob) -> None:
    if job.finished_at is None and sys.stderr.isatty():
        typer.echo(f"\r{job.rows:,} rows, {job.faults:,} faults ", nl=False, err=True)


def _show_import(job: ImportJob) -> None:
    ended = "Imported" if job.finished_at else "Interrupted; the same command goes on. So far:"
    typer.echo(
        f"{ended} {job.rows:,} rows: {job.added:,} added, {job.changed:,} changed, {job.unchanged:,} unchanged, "
        f"{job.faults:,} faults."
    )


@catalogue_app.command(
    "suggest",
    examples=[
        'shoplens catalogue suggest "Red cotton shirt"',
        'shoplens catalogue suggest "Red cotton shirt" shirt.jpg --json',
    ],
)
@handle_errors
def suggest_categories(
    title: Annotated[str, typer.Argument(help='The title of a product; "" for photos alone.')],
    photos: Annotated[list[Path] | None, typer.Argument(help="Its photos.")] = None,
    description: Annotated[str, typer.Option(help="Its description.")] = "",
    channel: ChannelName = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Suggest categories for a title, photos or both. Nothing is stored."""
    import orjson

    from shoplens.catalogue.suggest.service import SuggestRequest
    from shoplens.cli.process import run_on_loop
    from shoplens.platform.catalogue_runs import open_suggest

    request = SuggestRequest(
        designation=title, description=description, photos=tuple(each.read_bytes() for each in photos or ())
    )
    with open_suggest(settings_for(data_dir), channel) as (opened, paths):
        found = run_on_loop(_suggest_once(opened, request))
        named = [(each.category, paths(each.category), each.score) for each in found.suggestions]
        answer = None if found.answer is None else paths(found.answer.category)
    if as_json:
        suggestions = [dict(zip(("category", "path", "score"), each, strict=True)) for each in named]
        shown = {"suggestions": suggestions, "answer": answer, "kind": found.kind, "ignored": found.ignored}
        typer.echo(orjson.dumps({**shown, "model": found.model, "tree": found.tree, "cold_start": found.cold_start}))
        return
    for _, path, score in named:
        typer.echo(f"{score:7.2%}  {path}")
    ignored = f"; the model takes no {found.ignored}" if found.ignored else ""
    typer.echo(f"Answer: {answer or 'none is sure enough'} ({found.kind}{ignored}, {found.model}).")


async def _suggest_once(opened: RunEngine, request: SuggestRequest) -> Suggestion:
    try:
        return await opened.suggest.suggest(request)
    finally:
        await opened.engine.close()


@catalogue_app.command(
    "export",
    examples=["shoplens catalogue export products.csv", "shoplens catalogue export done.parquet --state accepted"],
)
@handle_errors
def export_products(
    file: Annotated[Path, typer.Argument(help="Where to write: .csv or .parquet.")],
    kind: Annotated[
        Literal["csv", "parquet", "x", "y"] | None,
        typer.Option("--format", help="Unset: by the file's ending. x and y: the files of the Rakuten challenge."),
    ] = None,
    state: Annotated[
        Literal["new", "suggested", "accepted", "corrected"] | None, typer.Option(help="Only products in this state.")
    ] = None,
    channel: ChannelName = None,
    data_dir: DataDir = None,
) -> None:
    """Write all products into a file, with what was suggested and decided."""
    from shoplens.catalogue.entities import ProductState
    from shoplens.catalogue.export import ProductFormat
    from shoplens.catalogue.repository import ProductFilter
    from shoplens.platform.catalogue import open_stored

    ending = "parquet" if file.suffix.lower() == ".parquet" else "csv"
    with open_stored(settings_for(data_dir)) as catalogue:
        wanted = ProductFilter(
            channel=catalogue.channel(channel).name, state=None if state is None else ProductState(state)
        )
        draft = file.with_name(f".{file.name}.part")
        with draft.open("wb") as sink:
            for chunk in catalogue.export(wanted, ProductFormat(kind or ending)):
                sink.write(chunk)
        draft.replace(file)
        count = catalogue.products.count(wanted)
    typer.echo(f"{count:,} products in {file}.")


@catalogue_app.command("run", examples=["shoplens catalogue run", "shoplens catalogue run --again --engine workers"])
@handle_errors
def run_catalogue(  # noqa: PLR0913 - the options of the command
    again: Annotated[
        bool, typer.Option("--again", help="Also products that have a suggestion and that nobody decided.")
    ] = False,
    new: Annotated[bool, typer.Option("--new", help="Give up a run that was interrupted, and begin another.")] = False,
    engine: Annotated[
        Literal["local", "workers", "ray"] | None,
        typer.Option(
            help="Where the model runs: in this process, in workers behind Redis, or on a Ray cluster. "
            "Default: as batch.engine says."
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="The Ray cluster: host:6379, ray://host:10001 or auto. Default: batch.ray_address, else one here."
        ),
    ] = None,
    run_id: Annotated[
        str | None, typer.Option("--run", help="Only go on with the unfinished run that has this id.")
    ] = None,
    requested_by: RequestedBy = "command line",
    channel: ChannelName = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Suggest a category for every product that has none. Resumes an interrupted run, with the model that it had.

    Exits with 143 or 130 after SIGTERM or SIGINT.
    """
    from shoplens.cli.process import keep_freed_memory, logged_job, run_on_loop
    from shoplens.errors import NothingWaiting
    from shoplens.platform.catalogue_runs import build_catalogue_runner, channel_of_run

    settings = settings_for(data_dir)
    if run_id is not None and channel is None:
        channel = channel_of_run(settings, run_id)
    arguments = {"channel": channel, "again": again, "new": new}
    with logged_job(settings, command="catalogue run", job="run", by=requested_by, arguments=arguments) as trigger:
        keep_freed_memory()
        received: list[int] = []
        with build_catalogue_runner(settings, channel, engine=engine, address=address) as runner:

            def stop(number: int) -> None:
                received.append(number)
                runner.stop()

            def on_progress(run: CatalogueRun) -> None:
                trigger.run_id = run.id
                trigger.counts.update({"planned": run.planned, "suggested": run.suggested, "failed": run.failed})
                if sys.stderr.isatty():
                    done = run.suggested + run.failed
                    typer.echo(f"\r{done:,} of {run.planned:,} ", nl=False, err=True)

            stop_with(stop)
            try:
                ended = run_on_loop(
                    runner.run(
                        requested_by=requested_by, again=again, start_over=new, run_id=run_id, on_progress=on_progress
                    )
                )
            except NothingWaiting as nothing:  # `trigger.log` shows that the schedule works
                trigger.counts["planned"] = 0
                typer.echo('{"run":null}' if as_json else str(nothing))
                return
        _show_run(ended, as_json=as_json)
        if received:
            typer.echo("Stopped. Run again to resume.", err=True)
            raise typer.Exit(_STATUS_OF_SIGNAL + received[0])


@catalogue_app.command("status", examples=["shoplens catalogue status"])
@handle_errors
def show_status(channel: ChannelName = None, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show how many products are in each state, and the latest run and import."""
    import orjson

    from shoplens.catalogue.entities import ProductState
    from shoplens.platform.catalogue import open_stored

    with open_stored(settings_for(data_dir)) as catalogue:
        name = catalogue.channel(channel).name
        counts = dict(catalogue.products.tally(name))
        run = next(iter(catalogue.runs.newest(name, limit=1)), None)
        latest = next(iter(catalogue.imports.newest(name, limit=1)), None)
    if as_json:
        shown = {"channel": name, "products": counts, "run": run, "import": latest}
        typer.echo(orjson.dumps(shown))
        return
    typer.echo(", ".join(f"{counts.get(state, 0):,} {state}" for state in ProductState) + ".")
    if run is not None:
        _show_run(run, as_json=False)
    if latest is not None:
        _show_import(latest)


def _show_run(run: CatalogueRun, *, as_json: bool) -> None:
    import orjson

    if as_json:
        typer.echo(orjson.dumps(run))
        return
    state = "finished" if run.finished_at else "runs" if run.owner else "was interrupted"
    if run.cancelled_by:
        state = f"was cancelled by {run.cancelled_by}"
    typer.echo(
        f"Run {run.id} {state}: {run.suggested:,} of {run.planned:,} products have a suggestion by {run.model}, "
        f"{run.failed:,} could not get one."
    )
    if run.failure:
        typer.echo(run.failure)
