"""`shoplens batch export`, `report` and `retry`: take the results of a night away, or let items be tried again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import typer

from shoplens.batch.browse import BrowseBatch
from shoplens.batch.correct import CorrectItems
from shoplens.batch.entities import ItemFilter
from shoplens.batch.export import ExportFormat
from shoplens.cli.errors import EXIT_FAILED
from shoplens.cli.options import settings_for
from shoplens.errors import RequestInvalid, RunNotFound, ShoplensError
from shoplens.platform.batch import open_results

_STANDARD_OUTPUT = Path("-")


def export_items(
    run_id: str | None,
    *,
    everything: bool,
    wanted_format: str | None,
    output: Path,
    channel: str | None,
    data_dir: Path | None,
) -> None:
    """Write the table of one run, or of all. Raises RunNotFound, RequestInvalid and DatabaseUnavailable."""
    if everything and run_id is not None:
        raise RequestInvalid("Name a run or say --all, not both.")
    chosen = _format(wanted_format, output)
    settings = settings_for(data_dir)
    name = settings.batch_channel(channel)
    with open_results(settings) as results:
        wanted = ItemFilter(channel=name, run_id=None if everything else run_id or _latest(results.browse, name))
        _write(results.export.stream(wanted, chosen), output)


def write_report(
    run_id: str | None, *, output: Path | None, console: str | None, channel: str | None, data_dir: Path | None
) -> None:
    """Write the report anew, into the store or into a file. Raises RunNotFound and RequestInvalid."""
    settings = settings_for(data_dir)
    with open_results(settings) as results:
        wanted = run_id or _latest(results.browse, settings.batch_channel(channel))
        if output is None:
            typer.echo(f"The report lies in the store under {results.report(wanted)}.")
        else:
            _write([results.report.render(wanted, console=console).encode()], output)


def retry_items(
    item_ids: list[str], *, everything: bool, run_id: str | None, channel: str | None, data_dir: Path | None
) -> None:
    """Let items be tried again, each by itself; exits with status 1 when one of them cannot be."""
    if everything == bool(item_ids):
        raise RequestInvalid("Name the items to be tried again, or say --all.")
    if run_id is not None and not everything:
        raise RequestInvalid("--run goes with --all.")
    settings = settings_for(data_dir)
    with open_results(settings) as results:
        if everything:
            typer.echo(
                f"{_items(results.correct.retry_all(settings.batch_channel(channel), run_id))} for the next run."
            )
        else:
            _retry_each(results.correct, item_ids)


def _retry_each(correct: CorrectItems, item_ids: list[str]) -> None:
    refused = 0
    for item_id in item_ids:
        try:
            correct.retry(item_id)
        except ShoplensError as error:
            refused += 1
            typer.echo(f"{item_id}: {error.code}: {error}", err=True)
    typer.echo(f"{_items(len(item_ids) - refused)} for the next run.")
    if refused:
        raise typer.Exit(EXIT_FAILED)


def _latest(browse: BrowseBatch, channel: str) -> str:
    run = browse.latest(channel)
    if run is None:
        raise RunNotFound(f"There is no run of {channel} yet.")
    return run.id


def _format(name: str | None, output: Path) -> ExportFormat:
    """As it is said, else as the file's name says, else CSV."""
    known = {each.value: each for each in ExportFormat}
    if name is None:
        return known.get(output.suffix.removeprefix(".").lower(), ExportFormat.CSV)
    if name.lower() not in known:
        raise RequestInvalid(f"There is no format {name!r}; choose one of {', '.join(known)}.")
    return known[name.lower()]


def _write(chunks: Iterable[bytes], output: Path) -> None:
    """To a file that is there wholly or not at all, or to standard output."""
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
