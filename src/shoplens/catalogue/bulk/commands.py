"""`shoplens catalogue accept`: accept many suggestions above a confidence, or take that back."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from shoplens.cli.command import AsJson, DataDir, handle_errors, settings_for

if TYPE_CHECKING:
    from shoplens.catalogue.entities import BulkJob


@handle_errors
def accept_suggestions(
    above: Annotated[
        float | None, typer.Option("--above", help="The least confidence, from 0 to 1.", min=0, max=1)
    ] = None,
    category: Annotated[
        str | None, typer.Option(help="Only products whose answer is the category with this id, or below it.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only suggestions of this model: name@version.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    undo: Annotated[
        str | None, typer.Option("--undo", help="Take back the acceptance with this id, in place of a new one.")
    ] = None,
    channel: Annotated[
        str | None, typer.Option("--channel", help="Optional if only one channel has a catalogue side.")
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Accept the best suggestion of all products that nobody decided, above a confidence.

    What was interrupted goes on when the same command is given again. Exits with status 1 if it was.
    """
    import orjson

    from shoplens.accounts.entities import SYSTEM
    from shoplens.catalogue.repository import ProductFilter
    from shoplens.errors import RequestInvalid
    from shoplens.platform.catalogue import open_stored

    with open_stored(settings_for(data_dir)) as catalogue:
        stop_with(lambda _: catalogue.bulk.stop())
        if undo is not None:
            job = catalogue.bulk.take_back(undo, by=SYSTEM, on_progress=_show_progress)
        else:
            if above is None:
                raise RequestInvalid("Name the least confidence: --above 0.95.")
            name = catalogue.channel(channel).name
            below = None if category is None else catalogue.products.below(name, category)
            wanted = ProductFilter(channel=name, categories=below, model=model, min_score=above)
            if dry_run:
                count = catalogue.bulk.count(wanted)
                typer.echo(orjson.dumps({"planned": count}) if as_json else f"{count:,} products would be accepted.")
                return
            job = catalogue.bulk.run(wanted, by=SYSTEM, on_progress=_show_progress)
    _show(job, as_json=as_json)
    if job.finished_at is None:
        raise typer.Exit(1)


def stop_with(stop: Callable[[int], None]) -> None:
    """The first SIGTERM or interrupt lets the work in hand be committed; the next one ends the process as usual."""

    def ended(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ended)


def _show_progress(job: BulkJob) -> None:
    if sys.stderr.isatty():
        typer.echo(f"\r{job.done:,} of {job.planned:,} ", nl=False, err=True)


def _show(job: BulkJob, *, as_json: bool) -> None:
    import orjson

    if as_json:
        fields = ("id", "channel", "planned", "done", "undoes", "finished_at", "cancelled_by")
        typer.echo(orjson.dumps({name: getattr(job, name) for name in fields}))
        return
    what = "accepted" if job.undoes is None else "taken back"
    typer.echo(f"{job.done:,} of {job.planned:,} products {what} ({job.id}).")
    if job.finished_at is None:
        typer.echo("Interrupted; the same command goes on.", err=True)
