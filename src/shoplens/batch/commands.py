"""`shoplens batch …`: import photos, classify them in runs, and export the results.

What is slow to import is imported by the command that needs it, so that `shoplens --help` is quick.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from shoplens.accounts.commands import note_command
from shoplens.cli.command import (
    EXIT_FAILED,
    AsJson,
    DataDir,
    RequestedBy,
    complete_photo_runs,
    handle_errors,
    settings_for,
)
from shoplens.cli.groups import Commands
from shoplens.cli.output import progress_console
from shoplens.errors import NothingWaiting, RequestInvalid, RunNotFound, ShoplensError

if TYPE_CHECKING:
    from rich.console import Console

    from shoplens.batch.browse import BrowseService
    from shoplens.batch.entities import BatchRun
    from shoplens.batch.export import ExportFormat
    from shoplens.batch.import_stats import ImportSummary
    from shoplens.batch.import_stats import OnProgress as OnImportProgress
    from shoplens.batch.runner import BatchRunner, OnProgress
    from shoplens.batch.status import RunProgress, RunStatus

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_STATUS_OF_SIGNAL = 128
_STANDARD_OUTPUT = Path("-")

batch_app = Commands(help="Import the photos of a channel and classify them in runs.")

ChannelName = Annotated[str | None, typer.Option("--channel", help="Optional if only one channel has a batch side.")]


@batch_app.command(
    "ingest", examples=["shoplens batch ingest", "shoplens batch ingest /mnt/returns --keep-source --channel returns"]
)
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

    from shoplens.cli.process import logged_job
    from shoplens.platform.batch import open_importer

    settings = settings_for(data_dir)
    name = settings.batch_channel(channel)
    place = source or settings.batch_source(name)
    arguments = {"channel": name, "source": place, "keep_source": keep_source}
    console = progress_console()
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
        (summary.not_removed, f"{summary.not_removed:,} imported but not removed"),
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


@batch_app.command("run", examples=["shoplens batch run", "shoplens batch run --channel returns --engine workers"])
@handle_errors
def run(
    run_id: Annotated[
        str | None,
        typer.Option(
            "--run",
            help="The id of a requested run. Default: the active run, else a new one.",
            autocompletion=complete_photo_runs,
        ),
    ] = None,
    requested_by: RequestedBy = "command line",
    engine: Annotated[
        Literal["local", "workers", "ray"] | None,
        typer.Option(
            help="Where models run: in this process, in workers behind Redis, or on a Ray cluster. "
            "Default: as batch.engine says."
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="The Ray cluster: host:6379, ray://host:10001 or auto. Default: batch.ray_address, else one here."
        ),
    ] = None,
    as_json: AsJson = False,
    channel: ChannelName = None,
    data_dir: DataDir = None,
) -> None:
    """Classify waiting photos, if there are any. Resumes an interrupted run.

    Exits with 143 or 130 after SIGTERM or SIGINT.
    """
    from shoplens.batch.presenting import count_words
    from shoplens.cli.process import keep_freed_memory, logged_job, run_on_loop
    from shoplens.platform.batch import build_runner, build_status, channel_of_run
    from shoplens.telemetry.logs import bind_process_fields

    settings = settings_for(data_dir)
    name = channel_of_run(settings, run_id) if run_id and channel is None else settings.batch_channel(channel)
    arguments = {"channel": name, "run": run_id}
    with logged_job(settings, command="batch run", job="run", by=requested_by, arguments=arguments) as trigger:
        keep_freed_memory()
        console = progress_console()
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

                try:
                    ended = run_on_loop(_run_until_signal(runner, on_progress, received, requested_by, run_id))
                except NothingWaiting as nothing:  # `trigger.log` shows that the schedule works
                    trigger.counts["planned"] = 0
                    typer.echo('{"waiting":0,"run":null}' if as_json else str(nothing))
                    return
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
            typer.echo(f"Run {ended.id} {ended.state.value}. {count_words(status)}.")


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

    from shoplens.batch.presenting import duration

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


@batch_app.command("status", examples=["shoplens batch status --channel returns"])
@handle_errors
def status(as_json: AsJson = False, channel: ChannelName = None, data_dir: DataDir = None) -> None:
    """Show the active or latest run."""
    from shoplens.batch.presenting import status_sentences
    from shoplens.platform.batch import build_status
    from shoplens.platform.parts import build_database

    settings = settings_for(data_dir)
    with closing(build_database(settings)) as database:
        found = build_status(settings, database)(settings.batch_channel(channel))
    if as_json:
        _print_json(found)
    else:
        typer.echo("\n".join(status_sentences(found)))


def _print_json(status: RunStatus) -> None:
    import orjson

    from shoplens.batch.status import as_json

    typer.echo(orjson.dumps(as_json(status), option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z))


RunArgument = Annotated[
    str | None,
    typer.Argument(metavar="RUN", help="The id of a run. Default: the latest one.", autocompletion=complete_photo_runs),
]


@batch_app.command(
    "export", examples=["shoplens batch export --output results.csv", "shoplens batch export --all --format jsonl"]
)
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
        note_command(settings, "run.exported", target=wanted.run_id or name, format=chosen.value)
        _write(results.export.stream(wanted, chosen), output)


@batch_app.command("report", examples=["shoplens batch report --output report.html"])
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


@batch_app.command("retry", examples=["shoplens batch retry --all"])
@handle_errors
def retry(
    items: Annotated[list[str] | None, typer.Argument(help="The ids of quarantined items.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All quarantined items.")] = False,
    run_id: Annotated[
        str | None,
        typer.Option("--run", help="With --all: only the items of this run.", autocompletion=complete_photo_runs),
    ] = None,
    channel: ChannelName = None,
    data_dir: DataDir = None,
) -> None:
    """Requeue quarantined items that another attempt can help. Exits with status 1 if one cannot be requeued."""
    from shoplens.batch.presenting import items_wait
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
        queued += _for_each(items or [], results.review.retry)
    typer.echo(f"{items_wait(queued)} for the next run.")
    if items and queued < len(items):
        raise typer.Exit(EXIT_FAILED)


ItemArguments = Annotated[list[str], typer.Argument(help="The ids of items.")]


@batch_app.command(
    "label", examples=["shoplens batch label 01J8ZK3V5QW7 --label coat", "shoplens batch label 01J8ZK3V5QW7 --confirm"]
)
@handle_errors
def label(
    items: ItemArguments,
    label: Annotated[str | None, typer.Option("--label", help="The category that it really is.")] = None,
    confirm: Annotated[bool, typer.Option("--confirm", help="The prediction is correct.")] = False,
    none: Annotated[bool, typer.Option("--none", help="None of the categories. Not used for training.")] = False,
    proposed: Annotated[str | None, typer.Option(help="With --none: the category that is missing.")] = None,
    not_usable: Annotated[bool, typer.Option("--not-usable", help="Dismiss it, also out of quarantine.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Answer for items that a run completed. Exits with status 1 if one of them cannot get the answer."""
    from shoplens.batch.review import ItemAnswer
    from shoplens.platform.batch import open_results
    from shoplens.predictions.entities import Answer

    answers = {
        Answer.CORRECTED: label is not None,
        Answer.CONFIRMED: confirm,
        Answer.NONE_OF_THESE: none,
        Answer.NOT_USABLE: not_usable,
    }
    given = [answer for answer, said in answers.items() if said]
    if len(given) != 1 or (proposed is not None and not none):
        raise RequestInvalid("Pass one of --label, --confirm, --none and --not-usable; --proposed only with --none.")
    answer = ItemAnswer(answer=given[0], label=label, proposed=proposed)
    with open_results(settings_for(data_dir), labels=label is not None) as results:
        _report(items, _for_each(items, lambda item_id: results.review.answer(item_id, answer)), "labelled")


@batch_app.command("reopen", examples=["shoplens batch reopen 01J8ZK3V5QW7"])
@handle_errors
def reopen(items: ItemArguments, data_dir: DataDir = None) -> None:
    """Withdraw what people said of items: they are again as their run left them, and nothing trains on it."""
    from shoplens.platform.batch import open_results

    settings = settings_for(data_dir)
    with open_results(settings) as results:
        succeeded = _for_each(items, results.review.reopen)
    note_command(settings, "feedback.withdrawn", target=f"{succeeded} items", items=items)
    _report(items, succeeded, "reopened")


@batch_app.command("delete", examples=["shoplens batch delete 01J8ZK3V5QW7"])
@handle_errors
def delete(items: ItemArguments, data_dir: DataDir = None) -> None:
    """Delete the files of quarantined items permanently. The items stay, as dismissed."""
    from shoplens.platform.batch import open_results

    settings = settings_for(data_dir)
    with open_results(settings) as results:
        succeeded = _for_each(items, results.review.delete)
    note_command(settings, "photo.deleted", target=f"{succeeded} items", items=items)
    _report(items, succeeded, "deleted")


def _for_each(items: Iterable[str], act: Callable[[str], object]) -> int:
    """How many succeed. One that is refused is named, and does not hold up the others."""
    succeeded = 0
    for item_id in items:
        try:
            act(item_id)
            succeeded += 1
        except ShoplensError as error:
            typer.echo(f"{item_id}: {error.code}: {error}", err=True)
    return succeeded


def _report(items: Sequence[str], succeeded: int, word: str) -> None:
    typer.echo(f"{succeeded} item{'' if succeeded == 1 else 's'} {word}.")
    if succeeded < len(items):
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
