"""`shoplens batch run` and `shoplens batch status`: a night in this process, and how the present one stands."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from shoplens.batch.entities import BatchRun, ItemState
from shoplens.batch.runner import BatchRunner, OnProgress
from shoplens.batch.status import OwnerState, ReadStatus, RunProgress, RunStatus, as_json
from shoplens.cli.allocator import keep_freed_memory
from shoplens.cli.options import settings_for
from shoplens.cli.process import logged_job
from shoplens.errors import Misconfigured
from shoplens.platform.batch import ExecutorName, build_runner, build_status, channel_of_run
from shoplens.platform.parts import build_database
from shoplens.settings import Settings
from shoplens.telemetry.logs import bind_process_fields
from shoplens.telemetry.trigger_log import Trigger

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_STATUS_OF_SIGNAL = 128
_SHOWN = tuple(state for state in ItemState if state is not ItemState.DUPLICATE)


def run_night(
    *,
    run_id: str | None,
    requested_by: str,
    engine: ExecutorName,
    address: str | None,
    json_output: bool,
    channel: str | None,
    data_dir: Path | None,
) -> None:
    """Work until nothing waits. Exits with 143 or 130 after SIGTERM or SIGINT. Raises ShoplensError."""
    settings = settings_for(data_dir)
    name = channel_of_run(settings, run_id) if run_id and channel is None else settings.batch_channel(channel)
    if address is not None and engine != "ray":
        raise Misconfigured("--address is that of a Ray cluster: say --engine ray as well.")
    arguments = {"channel": name, "run": run_id}
    with logged_job(settings, command="batch run", job="run", by=requested_by, arguments=arguments) as trigger:
        keep_freed_memory()
        console = Console(stderr=True)
        told: list[signal.Signals] = []
        try:
            with _shown(console) as show, build_runner(settings, name, executor=engine, address=address) as runner:
                noted = _noted(trigger, show)
                ended = asyncio.run(_run(runner, noted, told, run_id=run_id, requested_by=requested_by))
                standing = build_status(settings, runner.database)(name)
        finally:
            if told:
                console.print("Stopped. The next start continues where this one ended.", style="yellow")
                raise typer.Exit(_STATUS_OF_SIGNAL + told[0])
        _tell(ended, standing, json_output=json_output)


def show_status(*, json_output: bool, channel: str | None, data_dir: Path | None) -> None:
    """Print how the active run stands, or the last one. Raises DatabaseUnavailable."""
    settings = settings_for(data_dir)
    standing = _standing(settings, settings.batch_channel(channel))
    if json_output:
        _print_json(standing)
        return
    console = Console()
    for line in sentences(standing):
        console.print(line, highlight=False, soft_wrap=True)


def sentences(standing: RunStatus) -> Iterator[str]:
    """What a person wants to know, the most important first."""
    run = standing.run
    if run is None:
        yield f"No night was run yet. {_items(standing.waiting)} waiting."
        return
    yield f"Run {run.id}: {_state(standing, run)}."
    yield f"{standing.counts.settled} of {run.planned} items settled: {_counts(standing)}."
    if standing.last_item_ago_s is not None:
        yield f"The last item was finished {_duration(standing.last_item_ago_s)} ago."
    if run.active and standing.per_second and standing.seconds_left is not None:
        yield f"{standing.per_second:.1f} items/s, about {_duration(standing.seconds_left)} to go."
    if run.failure:
        yield f"The last attempt ended early: {run.failure}"
    if not run.active and standing.waiting:
        yield f"{_items(standing.waiting)} waiting for the next run."


async def _run(
    runner: BatchRunner, show: OnProgress, told: list[signal.Signals], *, run_id: str | None, requested_by: str
) -> BatchRun:
    """A first signal ends it in good order; a second one ends the process as it always does."""
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        told.append(number)
        runner.stop()
        for each in _SIGNALS:
            loop.remove_signal_handler(each)

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop, number)
    return await runner.run(requested_by=requested_by, run_id=run_id, on_progress=show)


def _noted(trigger: Trigger, show: OnProgress) -> OnProgress:
    """The log of starts shall know the run and how far it came, also where this process ends early."""

    def note(progress: RunProgress) -> None:
        trigger.run_id = progress.run_id
        bind_process_fields(run=progress.run_id)
        trigger.counts.update({state.value: count for state, count in progress.counts.items()})
        show(progress)

    return note


@contextmanager
def _shown(console: Console) -> Iterator[OnProgress]:
    """A bar on a terminal; elsewhere the lines of the log say the same."""
    if not console.is_terminal:
        yield lambda _: None
        return
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
            pace = "" if left_s is None else f"{progress.per_second:.1f}/s, {_duration(left_s)} left"
            bar.update(task, description="Returns", completed=progress.settled, total=progress.planned, pace=pace)

        yield show


def _tell(ended: BatchRun, standing: RunStatus, *, json_output: bool) -> None:
    """The final counts; those of a newer run are not told as this one's."""
    console = Console(soft_wrap=True)
    if standing.run is None or standing.run.id != ended.id:
        console.print(f"Run {ended.id}: {ended.state.value}.", highlight=False)
    elif json_output:
        _print_json(standing)
    else:
        console.print(f"Run {ended.id}: {ended.state.value}. {_counts(standing)}.", highlight=False)


def _standing(settings: Settings, channel: str) -> RunStatus:
    database = build_database(settings)
    try:
        show: ReadStatus = build_status(settings, database)
        return show(channel)
    finally:
        database.close()


def _print_json(standing: RunStatus) -> None:
    typer.echo(orjson.dumps(as_json(standing), option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z))


def _state(standing: RunStatus, run: BatchRun) -> str:
    if not run.active:
        return run.state.value
    who = f"process {run.pid} on {run.host}"
    match standing.owner:
        case OwnerState.NOBODY:
            return "nobody works on it; the next `shoplens batch run` goes on"
        case OwnerState.GONE:
            return f"{who} died; the next `shoplens batch run` goes on"
        case OwnerState.SILENT:
            ago = _duration(standing.last_sign_ago_s or 0.0)
            return f"{who} gave no sign of life for {ago}; the next `shoplens batch run` takes it over"
        case OwnerState.ALIVE:
            return f"{who} works on it" + (
                ", but STALLED: it lives, and no item comes to an end" if run.stalled else ""
            )


def _counts(standing: RunStatus) -> str:
    return ", ".join(f"{standing.counts[state]} {state.value}" for state in _SHOWN if standing.counts[state]) or "none"


def _items(count: int) -> str:
    return "1 item is" if count == 1 else f"{count} items are"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
