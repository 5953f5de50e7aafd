"""`shoplens classify`: classify photos and folders on this machine; results in the order given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from shoplens.cli.command import EXIT_FAILED, settings_for
from shoplens.cli.process import keep_freed_memory
from shoplens.errors import ChannelNotFound, ImageMissing, ShoplensError
from shoplens.platform.parts import build_channels, load_bundle
from shoplens.predictions.entities import Channel
from shoplens.predictions.policy import decide
from shoplens.serving.cores import usable_cores
from shoplens.serving.engine import Prediction


def classify_photos(
    photos: list[Path], *, channel: str | None, model: str | None, top_k: int, as_json: bool, data_dir: Path | None
) -> None:
    """Print one result per photo. Exits with status 1 when at least one photo could not be classified."""
    settings = settings_for(data_dir)
    channels = build_channels(settings)
    name = channel or settings.default_channel
    if name not in channels:
        raise ChannelNotFound(f'There is no channel "{name}". Channels: {", ".join(sorted(channels))}.')
    chosen = channels[name]
    paths = list(_files(photos))
    if not paths:
        raise ImageMissing(f"There are no files in {', '.join(map(str, photos))}.")
    keep_freed_memory()
    console = Console(stderr=True)
    with console.status("Loading the model"):
        classifier = load_bundle(model or chosen.model, settings=settings)
    outcomes = classifier.classify_many(paths, threads=settings.threads or usable_cores(), top_k=top_k)
    if len(paths) > 1 and console.is_terminal:
        outcomes = iter(track(outcomes, description="Classifying", total=len(paths), console=console, transient=True))
    applied = None if model else chosen  # a model named on the command line has no policy
    failures = 0
    for path, outcome in zip(paths, outcomes, strict=True):
        failures += isinstance(outcome, ShoplensError)
        if as_json:
            typer.echo(orjson.dumps(_json_row(path, outcome, applied, top_k)))
        else:
            _print_text(path, outcome, applied, top_k)
    if failures:
        console.print(f"{failures} of {len(paths)} photos could not be classified.", style="red")
        raise typer.Exit(EXIT_FAILED)


def _files(photos: list[Path]) -> Iterator[Path]:
    """The files in `photos`, and all files below its folders except hidden ones."""
    for path in photos:
        if path.is_dir():
            yield from (each for each in sorted(path.rglob("*")) if each.is_file() and not each.name.startswith("."))
        else:
            yield path


def _json_row(path: Path, outcome: Prediction | ShoplensError, channel: Channel | None, top_k: int) -> dict[str, Any]:
    if isinstance(outcome, ShoplensError):
        return {"path": str(path), "error": {"code": outcome.code, "detail": str(outcome)}}
    row: dict[str, Any] = {
        "path": str(path),
        "model": {"name": outcome.model.name, "version": outcome.model.version},
        "labels": [{"label": each.label, "score": each.score} for each in outcome.labels[:top_k]],
    }
    if channel is not None:
        row["channel"] = channel.name
        row["decision"] = asdict(decide(outcome, channel.policy))
    return row


def _print_text(path: Path, outcome: Prediction | ShoplensError, channel: Channel | None, top_k: int) -> None:
    console = Console()
    if isinstance(outcome, ShoplensError):
        console.print(f"{path}: [red]{outcome.code}[/red] {outcome}", highlight=False, soft_wrap=True)
        return
    table = Table.grid(padding=(0, 2))
    for each in outcome.labels[:top_k]:
        table.add_row(f"{each.score:7.1%}", "█" * round(20 * each.score) or "▏", each.label)
    decided = f"  [dim]{decide(outcome, channel.policy).outcome}[/dim]" if channel else ""
    console.print(f"[bold]{path}[/bold]{decided}", highlight=False, soft_wrap=True)
    console.print(table)
