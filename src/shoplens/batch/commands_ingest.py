"""`shoplens batch ingest`: bring new photos in, with a running count on a terminal and a summary at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from shoplens.batch.tally import IngestSummary
from shoplens.batch.visit import OnProgress
from shoplens.cli.options import settings_for
from shoplens.cli.process import logged_job
from shoplens.platform.batch import open_ingest
from shoplens.telemetry.trigger_log import Trigger


def ingest_photos(
    source: str | None,
    *,
    keep_source: bool,
    json_output: bool,
    requested_by: str,
    channel: str | None,
    data_dir: Path | None,
) -> None:
    """Print what became of the files. Raises SourceUnavailable, StorageUnavailable and DatabaseUnavailable."""
    settings = settings_for(data_dir)
    name = settings.batch_channel(channel)
    place = source or settings.batch_source(name)
    arguments = {"channel": name, "source": place, "keep_source": keep_source}
    with logged_job(settings, command="batch ingest", job="ingest", by=requested_by, arguments=arguments) as trigger:
        console = Console(stderr=True)
        with _shown(console) as show, open_ingest(settings, name) as ingest:
            summary = ingest(place, keep_source=keep_source, on_progress=_noted(trigger, show))
        trigger.counts.update(summary.counts)
        _tell(console, summary, json_output=json_output)


def sentences(summary: IngestSummary) -> Iterator[str]:
    """What a person wants to know; what did not happen is left out."""
    parts = [f"{count:,} {words}" for count, words in _worded(summary) if count]
    yield f"{summary.source}: {', '.join(parts) or 'nothing new'}."


def _worded(summary: IngestSummary) -> Iterator[tuple[int, str]]:
    yield summary.taken, "taken"
    yield summary.duplicates, "duplicates of photos that came before"
    yield summary.quarantined, "set aside as empty or too large"
    yield summary.known, "taken before"
    yield summary.not_ready, "not ready yet"
    yield summary.unreadable, "could not be read"
    yield summary.refused, "refused by the database"


def _noted(trigger: Trigger, show: OnProgress) -> OnProgress:
    def note(summary: IngestSummary) -> None:
        trigger.counts.update(summary.counts)
        show(summary)

    return note


@contextmanager
def _shown(console: Console) -> Iterator[OnProgress]:
    """How many files there are is only known at the end, so a count runs; elsewhere the log has the summary."""
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as spinner:
        task = spinner.add_task("Looking for photos", total=None)

        def show(summary: IngestSummary) -> None:
            spinner.update(task, description=f"{summary.seen:,} files, {summary.byte_count / 1e6:,.0f} MB")

        yield show


def _tell(console: Console, summary: IngestSummary, *, json_output: bool) -> None:
    for note in summary.notes:
        console.print(f"Note: {note}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    if json_output:
        typer.echo(orjson.dumps(summary.as_json()))
        return
    for sentence in sentences(summary):
        typer.echo(sentence)
