"""`shoplens batch ingest`: import photos, with a running count on a terminal and a summary at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from shoplens.batch.importer import ImportSummary, OnProgress
from shoplens.cli.options import settings_for
from shoplens.cli.process import logged_job
from shoplens.platform.batch import open_importer


def ingest_photos(
    source: str | None,
    *,
    keep_source: bool,
    json_output: bool,
    requested_by: str,
    channel: str | None,
    data_dir: Path | None,
) -> None:
    """Import photos and print the summary. Raises SourceUnavailable, StorageUnavailable and DatabaseUnavailable."""
    settings = settings_for(data_dir)
    name = settings.batch_channel(channel)
    place = source or settings.batch_source(name)
    arguments = {"channel": name, "source": place, "keep_source": keep_source}
    console = Console(stderr=True)
    with logged_job(settings, command="batch ingest", job="ingest", by=requested_by, arguments=arguments) as trigger:
        with _progress(console) as show, open_importer(settings, name) as importer:

            def on_progress(summary: ImportSummary) -> None:
                trigger.counts.update(summary.counts)
                show(summary)

            summary = importer.run(place, keep_source=keep_source, on_progress=on_progress)
        trigger.counts.update(summary.counts)
        for note in summary.notes:
            console.print(f"Note: {note}", style="yellow", highlight=False, markup=False, soft_wrap=True)
        typer.echo(orjson.dumps(summary.as_json()) if json_output else sentence(summary))


def sentence(summary: ImportSummary) -> str:
    """The counts for people, without those that are 0."""
    phrases = (
        (summary.taken, f"imported {summary.taken:,}"),
        (summary.duplicates, f"skipped {summary.duplicates:,} duplicate{'' if summary.duplicates == 1 else 's'}"),
        (summary.quarantined, f"quarantined {summary.quarantined:,}"),
        (summary.known, f"{summary.known:,} already imported"),
        (summary.not_ready, f"{summary.not_ready:,} still being written (retry in a few seconds)"),
        (summary.unreadable, f"{summary.unreadable:,} not readable"),
        (summary.refused, f"{summary.refused:,} refused by the database"),
    )
    words = ", ".join(phrase for count, phrase in phrases if count) or "no new photos"
    return f"{summary.source}: {words}."


@contextmanager
def _progress(console: Console) -> Iterator[OnProgress]:
    """A running count on a terminal: the number of files is only known at the end."""
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as spinner:
        task = spinner.add_task("Looking for photos", total=None)

        def show(summary: ImportSummary) -> None:
            spinner.update(task, description=f"{summary.seen:,} files, {summary.byte_count / 1e6:,.0f} MB")

        yield show
