"""`shoplens classify`: classify photos and folders, or a text with its photos, on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import orjson
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from shoplens.cli.command import EXIT_FAILED, settings_for
from shoplens.cli.process import keep_freed_memory
from shoplens.errors import ImageMissing, RequestInvalid, ShoplensError
from shoplens.platform.parts import load_bundle, load_channel
from shoplens.predictions.entities import ChannelPrediction
from shoplens.serving.engine import Prediction
from shoplens.serving.photos import PhotoClassifier
from shoplens.texts.cleaning import DESCRIPTION_CHARACTERS, TITLE_CHARACTERS, clean

_NOTHING: Final = 'Name photos or folders, or a text: --text "Red cotton shirt".'


def classify_photos(
    photos: list[Path], *, channel: str | None, model: str | None, top_k: int, as_json: bool, data_dir: Path | None
) -> None:
    """Print one result per photo. Exits with status 1 when at least one photo could not be classified."""
    paths = list(_files(photos))
    if not paths:
        raise ImageMissing(f"There are no files in {', '.join(map(str, photos))}." if photos else _NOTHING)
    console = Console(stderr=True)
    classifier = _opened(console, channel, model, data_dir)
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


def classify_text(
    text: str,
    photos: list[Path],
    *,
    channel: str | None,
    model: str | None,
    top_k: int,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """Print the result of one sample: a text, and photos of the same thing. Raises as `PhotoClassifier.classify`."""
    title, _, description = text.strip().partition("\n")
    cleaned = f"{clean(title, TITLE_CHARACTERS)}\n{clean(description, DESCRIPTION_CHARACTERS)}".strip()
    paths = list(_files(photos))
    if not cleaned and not paths:
        raise RequestInvalid(_NOTHING)
    outcome = _opened(Console(stderr=True), channel, model, data_dir).classify(paths, text=cleaned, top_k=top_k)
    if as_json:
        row = _json_row(None, outcome)
        typer.echo(orjson.dumps({"text": cleaned, "paths": [str(each) for each in paths], **row}))
    else:
        _print_text(", ".join([cleaned.partition("\n")[0], *map(str, paths)]), outcome)


def _opened(console: Console, channel: str | None, model: str | None, data_dir: Path | None) -> PhotoClassifier[Any]:
    """The model of a channel; a model that was named has no policy."""
    keep_freed_memory()
    settings = settings_for(data_dir)
    with console.status("Loading the model"):
        return load_bundle(model, settings=settings) if model else load_channel(channel, settings=settings)


def _files(photos: list[Path]) -> Iterator[Path]:
    """The files in `photos`, and all files below its folders except hidden ones."""
    for path in photos:
        if path.is_dir():
            yield from (each for each in sorted(path.rglob("*")) if each.is_file() and not each.name.startswith("."))
        else:
            yield path


def _json_row(path: Path | None, outcome: Prediction | ShoplensError) -> dict[str, Any]:
    """`path` is None for a sample that has none of its own."""
    named = {} if path is None else {"path": str(path)}
    if isinstance(outcome, ShoplensError):
        return {**named, "error": {"code": outcome.code, "detail": str(outcome)}}
    row: dict[str, Any] = {
        **named,
        "model": {"name": outcome.model.name, "version": outcome.model.version},
        "labels": [{"label": each.label, "score": each.score} for each in outcome.labels],
    }
    if isinstance(outcome, ChannelPrediction):
        row["channel"] = outcome.channel
        row["decision"] = asdict(outcome.decision)
    return row


def _print_text(name: Path | str, outcome: Prediction | ShoplensError) -> None:
    console = Console()
    if isinstance(outcome, ShoplensError):
        console.print(f"{name}: [red]{outcome.code}[/red] {outcome}", highlight=False, soft_wrap=True)
        return
    table = Table.grid(padding=(0, 2))
    for each in outcome.labels:
        table.add_row(f"{each.score:7.1%}", "█" * round(20 * each.score) or "▏", each.label)
    decided = f"  [dim]{outcome.decision.outcome}[/dim]" if isinstance(outcome, ChannelPrediction) else ""
    console.print(f"[bold]{name}[/bold]{decided}", highlight=False, soft_wrap=True)
    console.print(table)
