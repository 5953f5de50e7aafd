"""`shoplens runs list|show|watch|cancel`: runs over photos and over products, of all channels."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from shoplens.cli.command import (
    EXIT_FAILED,
    AsJson,
    DataDir,
    complete_channels,
    complete_runs,
    handle_errors,
    say_error,
    settings_for,
)
from shoplens.cli.groups import Commands
from shoplens.cli.output import Cell, Value, redraw, show_facts, show_json, show_table, shows_progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoplens.platform.runs import Run

_LOOK_EVERY_S: Final = 1.0
_MOODS: Final[dict[str, Any]] = {"finished": "good", "cancelled": "careful", "interrupted": "bad"}

runs_app = Commands(help="List, follow and cancel runs over photos and products.")

ChannelName = Annotated[
    str | None,
    typer.Option(
        "--channel", help="Only runs of this channel; all channels if unset.", autocompletion=complete_channels
    ),
]
RunId = Annotated[
    str | None,
    typer.Argument(metavar="RUN", help="The id of a run. Default: the newest one.", autocompletion=complete_runs),
]


@runs_app.command("list", examples=["shoplens runs list", "shoplens runs list --channel returns --active --json"])
@handle_errors
def list_runs(
    channel: ChannelName = None,
    active: Annotated[bool, typer.Option("--active", help="Only runs that are not over.")] = False,
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1, max=200)] = 20,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """List runs, newest first, with their state, progress and speed."""
    from shoplens.platform.runs import open_runs

    with open_runs(settings_for(data_dir)) as runs:
        found = runs.newest(channel, limit=limit, active=active)
    if as_json:
        show_json([_as_json(run) for run in found])
        return
    heads = ("RUN", "CHANNEL", "OF", "STATE", "STARTED", "TOOK", "DONE", "PLANNED", "PER SECOND")
    rows = [
        (run.id, run.channel, run.kind, _state(run), run.started_at, _seconds(run.took_s), run.done, run.planned,
         _rate(run.per_second))
        for run in found
    ]  # fmt: skip
    nothing = "No run is active." if active else "No runs yet. Start one with `shoplens batch run`."
    show_table(heads, rows, nothing=nothing)


@runs_app.command(
    "show", examples=["shoplens runs show", "shoplens runs show 01J8ZK3V5QW7", "shoplens runs show --channel returns"]
)
@handle_errors
def show_run(
    run_id: RunId = None, channel: ChannelName = None, as_json: AsJson = False, data_dir: DataDir = None
) -> None:
    """Show one run: its state, what became of its items, its speed, and who works on it."""
    run = _chosen(data_dir, run_id, channel)
    if as_json:
        show_json(_as_json(run))
        return
    facts: Mapping[str, Value | Cell] = {
        "run": run.id,
        "channel": run.channel,
        "of": run.kind,
        "state": _state(run),
        "requested by": run.requested_by,
        "created": run.created_at,
        "started": run.started_at,
        "finished": run.finished_at,
        "took": _seconds(run.took_s),
        "planned": run.planned,
        "done": run.done,
        **{name.replace("_", " "): count for name, count in run.counts.items() if name != "done"},
        "per second": _rate(run.per_second),
        "left": _seconds(run.seconds_left),
        "model": run.model,
        "process": f"{run.pid} on {run.host}" if run.pid else None,
        "failure": run.failure,
    }
    show_facts(facts)


@runs_app.command("watch", examples=["shoplens runs watch", "shoplens runs watch --channel returns"])
@handle_errors
def watch_run(
    run_id: RunId = None, channel: ChannelName = None, as_json: AsJson = False, data_dir: DataDir = None
) -> None:
    """Follow a run until it ends. A line is redrawn on a terminal; elsewhere each change is a line.

    Ends with status 0 if the run finished, and with 1 if it was cancelled or no process works on it any more.
    """
    from shoplens.platform.runs import open_runs

    first = _chosen(data_dir, run_id, channel)
    live = shows_progress() and not as_json
    said = ""
    with open_runs(settings_for(data_dir)) as runs:
        run = first
        while True:
            line = _progress(run)
            if live:
                redraw(line)
            elif line != said:
                typer.echo(_as_line(run) if as_json else line)
            said = line
            if run.state not in ("requested", "running"):
                break
            time.sleep(_LOOK_EVERY_S)
            run = runs.get(run.id)
    if live:
        redraw("")
        typer.echo(line)
    if run.state == "interrupted":
        how = f"`shoplens {'batch' if run.kind == 'photos' else 'catalogue'} run --run {run.id}` goes on with it."
        say_error(
            f"No process works on the run {run.id}. {run.failure or ''}".strip(), code="run_interrupted", hint=how
        )
    if run.state != "finished":
        raise typer.Exit(EXIT_FAILED)


@runs_app.command(
    "cancel", examples=["shoplens runs cancel 01J8ZK3V5QW7", "shoplens runs cancel --channel returns --yes"]
)
@handle_errors
def cancel(
    run_id: Annotated[str | None, typer.Argument(metavar="RUN", help="Its id. Default: the only active one.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    channel: ChannelName = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """End an active run. What it has done stays done; the rest waits for the next run."""
    from shoplens.accounts.commands import operator
    from shoplens.errors import RequestInvalid, RunNotFound
    from shoplens.platform.runs import open_runs

    with open_runs(settings_for(data_dir)) as runs:
        if run_id is None:
            active = runs.newest(channel, active=True)
            if not active:
                raise RunNotFound("No run is active, so there is nothing to cancel.")
            if len(active) > 1:
                names = ", ".join(f"{each.id} ({each.channel})" for each in active)
                raise RequestInvalid(f"Several runs are active; name one of them: {names}.")
            run_id = active[0].id
        before = runs.get(run_id)
        if before.active and not yes:
            typer.confirm(
                f"Cancel the run {run_id} of {before.channel} ({before.done:,} of {before.planned:,} done)?", abort=True
            )
        run = runs.cancel(run_id, by=operator()) if before.active else before
    if as_json:
        show_json(_as_json(run))
        return
    if not before.active:
        typer.echo(f"The run {run.id} was {run.state} already; nothing changed.")
        return
    rest = "wait for the next run" if run.kind == "photos" else "stay as they were"
    typer.echo(
        f"The run {run.id} of {run.channel} is cancelled. {run.done:,} {run.kind} are done and stay done; "
        f"{run.left:,} {rest}."
    )
    if before.state == "running" and before.pid is not None:
        typer.echo(f"Its process ({before.pid} on {before.host}) ends with its next commit.")


def _chosen(data_dir: Path | None, run_id: str | None, channel: str | None) -> Run:
    """The run that is named, else the newest one. Raises RunNotFound."""
    from shoplens.errors import RunNotFound
    from shoplens.platform.runs import open_runs

    with open_runs(settings_for(data_dir)) as runs:
        if run_id is not None:
            return runs.get(run_id)
        found = runs.newest(channel, limit=1)
    if not found:
        raise RunNotFound("There are no runs yet." if channel is None else f"The channel {channel} has no runs yet.")
    return found[0]


def _state(run: Run) -> Cell:
    stalled = run.stalled and run.state == "running"
    shown = "stalled" if stalled else run.state
    return Cell(shown=shown, plain=shown, mood="bad" if stalled else _MOODS.get(run.state, "plain"))


def _seconds(seconds: float | None) -> Cell | None:
    from shoplens.batch.presenting import duration

    return None if seconds is None else Cell(shown=duration(seconds), plain=round(seconds, 1), right=True)


def _rate(per_second: float | None) -> Cell | None:
    return None if per_second is None else Cell(shown=f"{per_second:.1f}", plain=round(per_second, 3), right=True)


def _progress(run: Run) -> str:
    """The state in one line, which changes when something happened."""
    from shoplens.batch.presenting import duration

    parts = [f"{run.id} {run.channel}: {run.state}", f"{run.done:,} of {run.planned:,} {run.kind}"]
    if run.state == "running" and run.per_second and run.seconds_left is not None and shows_progress():
        parts += [f"{run.per_second:.1f} per second", f"about {duration(run.seconds_left)} left"]
    parts += [f"{count:,} {name.replace('_', ' ')}" for name, count in run.counts.items() if name != "processing"]
    return ", ".join(parts)


def _as_json(run: Run) -> dict[str, object]:
    from dataclasses import asdict

    return {**asdict(run), "took_s": run.took_s, "left": run.left, "seconds_left": run.seconds_left}


def _as_line(run: Run) -> str:
    import orjson

    return orjson.dumps(_as_json(run), option=orjson.OPT_UTC_Z).decode()
