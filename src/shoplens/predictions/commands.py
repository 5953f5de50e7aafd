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
from shoplens.errors import ImageMissing, ShoplensError
from shoplens.platform.parts import load_bundle, load_channel
from shoplens.predictions.entities import ChannelPrediction
from shoplens.serving.engine import Prediction
from shoplens.serving.photos import PhotoClassifier


def classify_photos(
    photos: list[Path], *, channel: str | None, model: str | None, top_k: int, as_json: bool, data_dir: Path | None
) -> None:
    """Print one result per photo. Exits with status 1 when at least one photo could not be classified."""
    settings = settings_for(data_dir)
    paths = list(_files(photos))
    if not paths:
        raise ImageMissing(f"There are no files in {', '.join(map(str, photos))}.")
    keep_freed_memory()
    console = Console(stderr=True)
    with console.status("Loading the model"):
        classifier: PhotoClassifier[Any] = (  # a model named on the command line has no policy
            load_bundle(model, settings=settings) if model else load_channel(channel, settings=settings)
        )
    outcomes = classifier.classify_many(paths, top_k=top_k)
    if len(paths) > 1 and console.is_terminal:
        outcomes = iter(track(outcomes, description="Classifying", total=len(paths), console=console, transient=True))
    failures = 0
    for path, outcome in zip(paths, outcomes, strict=True):
        failures += isinstance(outcome, ShoplensError)
        if as_json:
            typer.echo(orjson.dumps(_json_row(path, outcome)))
        else:
            _print_text(path, outcome)
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


def _json_row(path: Path, outcome: Prediction | ShoplensError) -> dict[str, Any]:
    if isinstance(outcome, ShoplensError):
        return {"path": str(path), "error": {"code": outcome.code, "detail": str(outcome)}}
    row: dict[str, Any] = {
        "path": str(path),
        "model": {"name": outcome.model.name, "version": outcome.model.version},
        "labels": [{"label": each.label, "score": each.score} for each in outcome.labels],
    }
    if isinstance(outcome, ChannelPrediction):
        row["channel"] = outcome.channel
        row["decision"] = asdict(outcome.decision)
    return row


def _print_text(path: Path, outcome: Prediction | ShoplensError) -> None:
    console = Console()
    if isinstance(outcome, ShoplensError):
        console.print(f"{path}: [red]{outcome.code}[/red] {outcome}", highlight=False, soft_wrap=True)
        return
    table = Table.grid(padding=(0, 2))
    for each in outcome.labels:
        table.add_row(f"{each.score:7.1%}", "█" * round(20 * each.score) or "▏", each.label)
    decided = f"  [dim]{outcome.decision.outcome}[/dim]" if isinstance(outcome, ChannelPrediction) else ""
    console.print(f"[bold]{path}[/bold]{decided}", highlight=False, soft_wrap=True)
    console.print(table)
