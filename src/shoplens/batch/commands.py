"""`shoplens batch …`: import photos, classify them in runs, and export the results.

What is slow to import is imported by the command that needs it, so that `shoplens --help` is quick.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from shoplens.cli.command import EXIT_FAILED, AsJson, DataDir, RequestedBy, handle_errors, settings_for
from shoplens.errors import Misconfigured, RequestInvalid, RunNotFound, ShoplensError

if TYPE_CHECKING:
    from rich.console import Console

    from shoplens.batch.entities import BatchRun
    from shoplens.batch.export import ExportFormat
    from shoplens.batch.importer import ImportSummary
    from shoplens.batch.importer import OnProgress as OnImportProgress
    from shoplens.batch.review import BrowseService
    from shoplens.batch.runner import BatchRunner, OnProgress
    from shoplens.batch.status import RunProgress, RunStatus

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_STATUS_OF_SIGNAL = 128
_STANDARD_OUTPUT = Path("-")

batch_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Import the photos of a channel and classify them in runs."
)

ChannelName = Annotated[str | None, typer.Option("--channel", help="Optional if only one channel has a batch side.")]


@batch_app.command("ingest")
@handle_errors
def ingest(
    source: Annotated[
        str | None,
        typer.Argument(help="A folder, a CSV manifest or s3://bucket/prefix. Default: the source of the channel."),
    ] = None,
    keep_source: Annotated[
        bool, typer.Option("--keep-source", help="Do not remove the files. They are not imported twice.")
    ] = False,
    requested_by: RequestedBy = "command line",
    as_json: AsJson = False,
    channel: ChannelName = None,
    data_dir: DataDir = None,
) -> None:
    """Import new photos, and remove them from their source. Can be run at any time and more than once at a time."""
    import orjson
    from rich.console import Console

    from shoplens.cli.process import logged_job
    from shoplens.platform.batch import open_importer

    settings = settings_for(data_dir)
    name = settings.batch_channel(channel)
    place = source or settings.batch_source(name)
    arguments = {"channel": name, "source": place, "keep_source": keep_source}
    console = Console(stderr=True)
    with logged_job(settings, command="batch ingest", job="ingest", by=requested_by, arguments=arguments) as trigger:
        with _import_progress(console) as show, open_importer(settings, name) as importer:

            def on_progress(summary: ImportSummary) -> None:
                trigger.counts.update(summary.counts)
                show(summary)

            summary = importer.run(place, keep_source=keep_source, on_progress=on_progress)
        trigger.counts.update(summary.counts)
        for note in summary.notes:
            console.print(f"Note: {note}", style="yellow", highlight=False, markup=False, soft_wrap=True)
        typer.echo(orjson.dumps(summary.as_json()) if as_json else import_sentence(summary))


def import_sentence(summary: ImportSummary) -> str:
    """The counts of an import that are not 0."""
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
def _import_progress(console: Console) -> Iterator[OnImportProgress]:
    """A running count on a terminal: the number of files is only known at the end."""
    if not console.is_terminal:
        yield lambda _: None
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as spinner:
        task = spinner.add_task("Looking for photos", total=None)

        def show(summary: ImportSummary) -> None:
            spinner.update(task, description=f"{summary.seen:,} files, {summary.byte_count / 1e6:,.0f} MB")

        yield show


@batch_app.command("run")
@handle_errors
def run(
    run_id: Annotated[
        str | None, typer.Option("--run", help="The id of a requested run. Default: the active run, else a new one.")
    ] = None,
    requested_by: RequestedBy = "command line",
    engine: Annotated[
        Literal["local", "workers", "ray"],
        typer.Option(help="Where models run: in this process, in workers behind Redis, or on a Ray cluster."),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(help="The Ray cluster: host:6379, ray://host:10001 or auto. Default: start one on this machine."),
    ] = None,
    as_json: AsJson = False,
    channel: ChannelName = None,
    data_dir: DataDir = None,
) -> None:
    """Classify waiting photos. Resumes an interrupted run. Exits with 143 or 130 after SIGTERM or SIGINT."""
    from rich.console import Console

    from shoplens.cli.process import keep_freed_memory, logged_job, run_on_loop
    from shoplens.platform.batch import build_runner, build_status, channel_of_run
    from shoplens.telemetry.logs import bind_process_fields

    settings = settings_for(data_dir)
    name = channel_of_run(settings, run_id) if run_id and channel is None else settings.batch_channel(channel)
    if address is not None and engine != "ray":
        raise Misconfigured("--address is the address of a Ray cluster. Use it with --engine ray.")
    arguments = {"channel": name, "run": run_id}
    with logged_job(settings, command="batch run", job="run", by=requested_by, arguments=arguments) as trigger:
        keep_freed_memory()
        console = Console(stderr=True)
        received: list[signal.Signals] = []
        try:
            with (
                _run_progress(console, name) as show,
                build_runner(settings, name, executor=engine, address=address) as runner,
            ):

                def on_progress(progress: RunProgress) -> None:  # `trigger.log` has the counts of a killed run, too
                    trigger.run_id = progress.run_id
                    bind_process_fields(run=progress.run_id)
                    trigger.counts.update({state.value: count for state, count in progress.counts.items()})
                    show(progress)

                ended = run_on_loop(_run_until_signal(runner, on_progress, received, requested_by, run_id))
                status = build_status(settings, runner.database)(name)
        finally:
            if received:
                console.print("Stopped. Run again to resume.", style="yellow")
                raise typer.Exit(_STATUS_OF_SIGNAL + received[0])
        if status.run is None or status.run.id != ended.id:  # a newer run has started meanwhile
            typer.echo(f"Run {ended.id}: {ended.state.value}.")
        elif as_json:
            _print_json(status)
        else:
            typer.echo(f"Run {ended.id} {ended.state.value}: {count_words(status)}.")


async def _run_until_signal(
    runner: BatchRunner, show: OnProgress, received: list[signal.Signals], requested_by: str, run_id: str | None
) -> BatchRun:
    """The first signal stops the run in good order; the second one has its default effect."""
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        received.append(number)
        runner.stop()
        for each in _SIGNALS:
            loop.remove_signal_handler(each)

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop, number)
    return await runner.run(requested_by=requested_by, run_id=run_id, on_progress=show)


@contextmanager
def _run_progress(console: Console, channel: str) -> Iterator[OnProgress]:
    """A bar on a terminal; elsewhere the log has the progress."""
    if not console.is_terminal:
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as bar:
        task = bar.add_task("Loading the model", total=None, pace="")

        def show(progress: RunProgress) -> None:
            left_s = progress.seconds_left
            pace = "" if left_s is None else f"{progress.per_second:.1f}/s, {duration(left_s)} left"
            bar.update(task, description=channel, completed=progress.settled, total=progress.planned, pace=pace)

        yield show


@batch_app.command("status")
@handle_errors
def status(as_json: AsJson = False, channel: ChannelName = None, data_dir: DataDir = None) -> None:
    """Show the active or latest run."""
    from shoplens.platform.batch import build_status
    from shoplens.platform.parts import build_database

    settings = settings_for(data_dir)
    with closing(build_database(settings)) as database:
        found = build_status(settings, database)(settings.batch_channel(channel))
    if as_json:
        _print_json(found)
    else:
        typer.echo("\n".join(status_sentences(found)))


def status_sentences(status: RunStatus) -> Iterator[str]:
    """The status of a channel, the most important facts first."""
    run = status.run
    if run is None:
        yield f"No runs yet. {_items(status.waiting)}."
        return
    yield f"Run {run.id}: {_owner_words(status, run) if run.active else run.state.value}."
    yield f"{status.counts.settled}/{run.planned} processed: {count_words(status)}."
    if status.last_item_ago_s is not None:
        yield f"Last item finished {duration(status.last_item_ago_s)} ago."
    if run.active and status.per_second and status.seconds_left is not None:
        yield f"{status.per_second:.1f} items/s, about {duration(status.seconds_left)} left."
    if run.failure:
        yield f"The last attempt was interrupted: {run.failure}"
    if not run.active and status.waiting:
        yield f"{_items(status.waiting)} for the next run."


def _owner_words(status: RunStatus, run: BatchRun) -> str:
    from shoplens.batch.status import OwnerState

    process = f"process {run.pid} on {run.host}"
    match status.owner:
        case OwnerState.NOBODY:
            return "no process works on it; the next `shoplens batch run` resumes it"
        case OwnerState.GONE:
            return f"{process} has ended; the next `shoplens batch run` resumes it"
        case OwnerState.SILENT:
            ago = duration(status.last_sign_ago_s or 0.0)
            return f"no heartbeat from {process} for {ago}; the next `shoplens batch run` takes it over"
        case OwnerState.ALIVE:
            return f"{process} works on it" + (", but it is STALLED: no item finishes" if run.stalled else "")


def count_words(status: RunStatus) -> str:
    """The counts of a run that are not 0, like "53 done, 39 need review"."""
    from shoplens.batch.entities import ItemState

    counts = status.counts
    phrases = (
        (ItemState.WAITING, "waiting"),
        (ItemState.PROCESSING, "processing"),
        (ItemState.DONE, "done"),
        (ItemState.NEEDS_REVIEW, "needs review" if counts[ItemState.NEEDS_REVIEW] == 1 else "need review"),
        (ItemState.QUARANTINED, "quarantined"),
    )
    return ", ".join(f"{counts[state]} {words}" for state, words in phrases if counts[state]) or "no photos"


def _print_json(status: RunStatus) -> None:
    import orjson

    from shoplens.batch.status import as_json

    typer.echo(orjson.dumps(as_json(status), option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z))


def duration(seconds: float) -> str:
    """Like "40 s", "3 min 5 s" or "2 h 5 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


RunArgument = Annotated[str | None, typer.Argument(metavar="RUN", help="The id of a run. Default: the latest one.")]


@batch_app.command("export")
@handle_errors
def export(
    run_id: RunArgument = None,
    everything: Annotated[bool, typer.Option("--all", help="All items of the channel instead of one run.")] = False,
    wanted_format: Annotated[
        str | None, typer.Option("--format", help="csv, jsonl or parquet. Default: from the file extension.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write; - is standard output.")] = (
        _STANDARD_OUTPUT
    ),
    channel: ChannelName = None,
    data_dir: DataDir = None,
) -> None:
    """Export results as CSV, JSON Lines or Parquet."""
    from shoplens.batch.entities import ItemFilter
    from shoplens.platform.batch import open_results

    if everything and run_id is not None:
        raise RequestInvalid("Pass a run or --all, not both.")
    chosen = _format(wanted_format, output)
    settings = settings_for(data_dir)
    name = settings.batch_channel(channel)
    with open_results(settings) as results:
        wanted = ItemFilter(channel=name, run_id=None if everything else run_id or _latest(results.browse, name))
        _write(results.export.stream(wanted, chosen), output)


@batch_app.command("report")
@handle_errors
def report(
    run_id: RunArgument = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file to write instead of the store; - is standard output.")
    ] = None,
    console: Annotated[
        str | None, typer.Option("--console", help="The address of the channel's pages, for the links in a file.")
    ] = None,
    channel: ChannelName = None,
    data_dir: DataDir = None,
) -> None:
    """Rebuild the report with current corrections."""
    from shoplens.platform.batch import open_results

    if output is not None and output != _STANDARD_OUTPUT and output.suffix.lower() not in (".html", ".htm"):
        raise RequestInvalid(f"The report is a page: end the name of {output.name} with .html.")
    settings = settings_for(data_dir)
    with open_results(settings) as results:
        wanted = run_id or _latest(results.browse, settings.batch_channel(channel))
        if output is None:
            typer.echo(f"Report stored as {results.report(wanted)}.")
        else:
            _write([results.report.render(wanted, console=console).encode()], output)


@batch_app.command("retry")
@handle_errors
def retry(
    items: Annotated[list[str] | None, typer.Argument(help="The ids of quarantined items.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All quarantined items.")] = False,
    run_id: Annotated[str | None, typer.Option("--run", help="With --all: only the items of this run.")] = None,
    channel: ChannelName = None,
    data_dir: DataDir = None,
) -> None:
    """Requeue quarantined items. Exits with status 1 if one of them cannot be requeued."""
    from shoplens.platform.batch import open_results

    if everything == bool(items):
        raise RequestInvalid("Pass the ids of items, or --all.")
    if run_id is not None and not everything:
        raise RequestInvalid("Use --run with --all.")
    settings = settings_for(data_dir)
    queued = 0
    with open_results(settings) as results:
        if everything:
            queued = results.review.retry_all(settings.batch_channel(channel), run_id)
        for item_id in items or ():
            try:
                results.review.retry(item_id)
                queued += 1
            except ShoplensError as error:
                typer.echo(f"{item_id}: {error.code}: {error}", err=True)
    typer.echo(f"{_items(queued)} for the next run.")
    if items and queued < len(items):
        raise typer.Exit(EXIT_FAILED)


def _latest(browse: BrowseService, channel: str) -> str:
    run = browse.latest(channel)
    if run is None:
        raise RunNotFound(f"The channel {channel} has no runs yet.")
    return run.id


def _format(name: str | None, output: Path) -> ExportFormat:
    """The named format, else that of the file extension; CSV for standard output."""
    from shoplens.batch.export import ExportFormat

    known = {each.value: each for each in ExportFormat}
    if name is not None and name.lower() not in known:
        raise RequestInvalid(f"Unknown format {name!r}. Choose one of {', '.join(known)}.")
    if name is not None:
        return known[name.lower()]
    if output == _STANDARD_OUTPUT:
        return ExportFormat.CSV
    extension = output.suffix.removeprefix(".").lower()
    if extension not in known:
        endings = ", ".join(f".{each}" for each in known)
        raise RequestInvalid(f"{output.name} does not say its format. End its name with {endings}, or pass --format.")
    return known[extension]


def _write(chunks: Iterable[bytes], output: Path) -> None:
    """Write to standard output, or to a file that appears only when it is complete."""
    if output == _STANDARD_OUTPUT:
        stdout = typer.get_binary_stream("stdout")
        for chunk in chunks:
            stdout.write(chunk)
        return
    unfinished = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        with unfinished.open("wb") as file:
            file.writelines(chunks)
        unfinished.replace(output)
    except OSError as error:
        raise RequestInvalid(f"{output} cannot be written: {error.strerror}.") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _items(count: int) -> str:
    return "1 item waits" if count == 1 else f"{count} items wait"
