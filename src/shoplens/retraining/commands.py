"""`shoplens retrain CHANNEL`, and `shoplens retrain status|cancel|report|approve|reject`.

What is slow to import is imported by the command that needs it, so that `shoplens --help` is quick.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shoplens.accounts.commands import note_command, operator
from shoplens.cli.command import EXIT_INTERRUPTED, AsJson, DataDir, handle_errors, settings_for
from shoplens.cli.groups import Commands, Group
from shoplens.cli.output import Cell, progress_console, show_table

if TYPE_CHECKING:
    from shoplens.retraining.entities import RetrainingRun
    from shoplens.retraining.report import Report
    from shoplens.retraining.service import RunView

_NICE = 10
_MAX_CHANGES = 20


class _ChannelFirst(Group):
    """A first argument that is no command is the channel of `run`: `shoplens retrain returns`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


retrain_app = Commands(
    cls=_ChannelFirst,
    help="Train a channel's model again from what people said: shoplens retrain CHANNEL.",
)

RunId = Annotated[str, typer.Argument(help="The id of the retraining, or `last`.")]
Why = Annotated[str, typer.Option("--why", help="The reason, for the history.")]


@retrain_app.command(examples=["shoplens retrain returns", "shoplens retrain returns --dry-run"])
@handle_errors
def run(
    channel: Annotated[str | None, typer.Argument(help="The channel whose model is trained again.")] = None,
    base: Annotated[
        Path | None,
        typer.Option(help="More labelled photos: a folder per class, or a CSV; unset: the channel's own."),
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="Labelled photos that test and never train; unset: the channel's own.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="How it is trained; unset: as the channel says.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Train and judge, but publish nothing.")] = False,
    run_id: Annotated[
        str | None, typer.Option("--run", help="Only go on with the unfinished retraining that has this id.")
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Train, test and judge a new model, and publish it if it is better. Continues what was interrupted."""
    from dataclasses import replace

    from shoplens.cli.process import keep_freed_memory, process_logs
    from shoplens.errors import RequestInvalid
    from shoplens.platform.retraining import open_pipeline, open_retraining, retraining_rules
    from shoplens.training.progress import ProgressBars, ProgressLog
    from shoplens.training.recipes import RECIPES, require_extras

    if recipe is not None and recipe not in RECIPES:
        raise RequestInvalid(f"There is no recipe {recipe!r}. Choose one of {', '.join(RECIPES)}.")
    settings = settings_for(data_dir)
    by = operator()
    if run_id is not None:
        with open_retraining(settings) as retraining:
            wanted = retraining.get(run_id).run
        rules, dry_run = retraining_rules(settings, wanted.channel, run=wanted), wanted.dry_run
        by = replace(by, name=wanted.requested_by)
    elif channel is not None:
        rules = retraining_rules(settings, channel, recipe=recipe, base=base, test=test)
    else:
        raise RequestInvalid("Name the channel whose model is trained again: shoplens retrain CHANNEL")
    require_extras(rules.recipe)
    os.nice(_NICE)  # what serves people goes first
    keep_freed_memory()
    console = progress_console()
    try:
        with (
            process_logs(settings, command="retrain", quiet_terminal=True),
            open_pipeline(settings, rules) as pipeline,
            ProgressBars(console) if console.is_terminal and not as_json else ProgressLog(console) as callback,
        ):
            ended = pipeline.run(by=by, callback=callback, dry_run=dry_run, run_id=run_id)
    except KeyboardInterrupt as error:
        console.print("Interrupted. The same command continues it.", highlight=False)
        raise typer.Exit(EXIT_INTERRUPTED) from error
    _present(data_dir, ended.id, as_json=as_json)


@retrain_app.command(examples=["shoplens retrain cancel last"])
@handle_errors
def cancel(run_id: RunId, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """End a retraining that is at work: its process ends at its next step, and publishes nothing."""
    import orjson

    from shoplens.platform.retraining import open_retraining

    settings = settings_for(data_dir)
    with open_retraining(settings) as retraining:
        view = retraining.cancel(_id(retraining.all(limit=1), run_id), by=operator())
    note_command(settings, "retraining.cancelled", target=view.run.id)
    typer.echo(orjson.dumps(_facts(view)) if as_json else _line(view))


@retrain_app.command(examples=["shoplens retrain status returns"])
@handle_errors
def status(
    channel: Annotated[str | None, typer.Argument(help="One channel; all if unset.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """List the retrainings, newest first."""
    import orjson

    from shoplens.platform.retraining import open_retraining

    with open_retraining(settings_for(data_dir)) as retraining:
        views = retraining.all(channel)
    if as_json:
        typer.echo(orjson.dumps([_facts(view) for view in views], option=orjson.OPT_INDENT_2))
        return
    heads = ("RETRAINING", "CREATED", "CHANNEL", "MODEL", "RECIPE", "STATE", "ACCURACY", "BEFORE", "FAILURE")
    rows = [
        (view.run.id, view.run.created_at, view.run.channel, str(view.run.ref), view.run.recipe, _state(view),
         _percent(view.run.accuracy), _percent(view.run.accuracy_before), view.run.failure)
        for view in views
    ]  # fmt: skip
    show_table(heads, rows, nothing="No retraining yet. Begin: shoplens retrain CHANNEL")


@retrain_app.command(examples=["shoplens retrain report last"])
@handle_errors
def report(run_id: RunId = "last", as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show what a retraining found: the gate's checks, the classes, and the answers that changed."""
    _present(data_dir, run_id, as_json=as_json)


@retrain_app.command(examples=['shoplens retrain approve last --why "Better on coats"'])
@handle_errors
def approve(run_id: RunId, why: Why = "", as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Make the model of a retraining champion: it goes live."""
    _decide(run_id, why, approved=True, as_json=as_json, data_dir=data_dir)


@retrain_app.command(examples=['shoplens retrain reject last --why "Worse on shoes"'])
@handle_errors
def reject(run_id: RunId, why: Why = "", as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """The model of a retraining does not go live."""
    _decide(run_id, why, approved=False, as_json=as_json, data_dir=data_dir)


def _decide(run_id: str, why: str, *, approved: bool, as_json: bool, data_dir: Path | None) -> None:
    import orjson

    from shoplens.platform.retraining import open_retraining

    with open_retraining(settings_for(data_dir)) as retraining:
        known = _id(retraining.all(), run_id)
        decide = retraining.approve if approved else retraining.reject
        view = decide(known, by=operator(), why=why)
    typer.echo(orjson.dumps(_facts(view)) if as_json else _line(view))


def _id(views: list[RunView], run_id: str) -> str:
    """The id itself, or that of the newest run for `last`."""
    from shoplens.retraining.errors import RetrainingNotFound

    if run_id != "last":
        return run_id
    if not views:
        raise RetrainingNotFound("There is no retraining yet. Begin: shoplens retrain CHANNEL")
    return views[0].run.id


def _present(data_dir: Path | None, run_id: str, *, as_json: bool) -> None:
    import orjson

    from shoplens.platform.retraining import open_retraining

    with open_retraining(settings_for(data_dir)) as retraining:
        known = _id(retraining.all(limit=1), run_id)
        view, found = retraining.get(known), retraining.report(known)
    if as_json:
        typer.echo(orjson.dumps({**_facts(view), "report": found}, option=orjson.OPT_INDENT_2))
        return
    typer.echo(_line(view))
    if found is not None:
        _present_report(found)
    if view.run.state.value == "waiting":
        typer.echo(f"Decide: shoplens retrain approve {view.run.id}, or reject.")


def _present_report(found: Report) -> None:
    result = found.gate
    before = "" if result.before is None else f"{result.before:.1%} -> "
    typer.echo(f"Accuracy {before}{result.after:.1%} on {result.samples:,} test samples.")
    for check in result.checks:
        typer.echo(f"  {'ok ' if check.passed else 'NO '} {check.sentence}")
    for check in found.shadow:
        typer.echo(f"  {'ok ' if check.passed else 'NO '} {check.sentence}")
    for note in found.notes:
        typer.echo(f"  {note}")
    changed = sorted(result.classes, key=lambda each: each.gain)
    for each in changed[:_MAX_CHANGES] if result.before is not None else ():
        typer.echo(f"  {each.label}: F1 {each.before:.1%} -> {each.after:.1%} ({each.samples:,} samples)")
    for reason, count in found.left_out.items():
        typer.echo(f"  Left out: {count:,} ({reason}).")


def _state(view: RunView) -> str:
    return "interrupted" if view.interrupted else view.run.state.value


def _percent(share: float | None) -> Cell | None:
    return None if share is None else Cell(shown=f"{share:.1%}", plain=round(share, 4), right=True)


def _line(view: RunView) -> str:
    run: RetrainingRun = view.run
    state = _state(view)
    accuracy = "" if run.accuracy is None else f", accuracy {run.accuracy:.1%}"
    before = "" if run.accuracy_before is None else f" (present model {run.accuracy_before:.1%})"
    failure = f": {run.failure}" if run.failure else ""
    when = f"{run.created_at:%Y-%m-%d %H:%M} UTC"
    return f"{run.id} {when} {run.channel}: {run.ref} by {run.recipe}, {state}{accuracy}{before}{failure}"


def _facts(view: RunView) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(view.run), "interrupted": view.interrupted}
