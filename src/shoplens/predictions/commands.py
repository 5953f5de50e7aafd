"""`shoplens classify`: photos and folders in, labels out, in the order given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from shoplens.cli.allocator import keep_freed_memory
from shoplens.cli.errors import EXIT_FAILED
from shoplens.cli.options import settings_for
from shoplens.errors import ChannelNotFound, ShoplensError
from shoplens.platform.parts import build_channels, load_bundle
from shoplens.predictions.entities import Channel
from shoplens.predictions.policy import decide
from shoplens.serving.cores import usable_cores
from shoplens.serving.prediction import Prediction
from shoplens.settings import Settings


def classify_photos(
    photos: list[Path], *, channel: str | None, model: str | None, top_k: int, as_json: bool, data_dir: Path | None
) -> None:
    """Print one result per photo. Exits with status 1 when at least one photo could not be used."""
    settings = settings_for(data_dir)
    chosen = _channel(settings, channel)
    keep_freed_memory()
    console = Console(stderr=True)
    with console.status("Loading the model"):
        classifier = load_bundle(model or chosen.model, settings=settings)
    paths = list(_files(photos))
    outcomes = classifier.classify_many(paths, threads=settings.threads or usable_cores(), top_k=top_k)
    failures = 0
    present = _print_json if as_json else _print_text
    policy = None if model else chosen
    for path, outcome in zip(paths, _tracked(outcomes, len(paths), console), strict=True):
        failures += isinstance(outcome, ShoplensError)
        present(path, outcome, policy, top_k)
    if failures:
        console.print(f"{failures} of {len(paths)} could not be classified.", style="red")
        raise typer.Exit(EXIT_FAILED)


def _tracked(
    outcomes: Iterator[Prediction | ShoplensError], total: int, console: Console
) -> Iterator[Prediction | ShoplensError]:
    """With a progress bar on a terminal, when there is more than one photo."""
    if total == 1 or not console.is_terminal:
        return outcomes
    return iter(track(outcomes, description="Classifying", total=total, console=console, transient=True))


def _channel(settings: Settings, name: str | None) -> Channel:
    channels = build_channels(settings)
    wanted = name or settings.default_channel
    if wanted not in channels:
        raise ChannelNotFound(f"There is no channel {wanted!r}; the channels are: {', '.join(sorted(channels))}.")
    return channels[wanted]


def _files(photos: list[Path]) -> Iterator[Path]:
    """The files named, and those below the folders named, hidden ones left out."""
    for path in photos:
        if not path.is_dir():
            yield path
            continue
        below = sorted(path.rglob("*"))
        yield from (each for each in below if each.is_file() and not each.name.startswith("."))


def _print_json(path: Path, outcome: Prediction | ShoplensError, channel: Channel | None, top_k: int) -> None:
    """One JSON object per line."""
    typer.echo(orjson.dumps({"path": str(path), **_facts(outcome, channel, top_k)}))


def _facts(outcome: Prediction | ShoplensError, channel: Channel | None, top_k: int) -> dict[str, Any]:
    if isinstance(outcome, ShoplensError):
        return {"error": {"code": outcome.code, "detail": str(outcome)}}
    facts: dict[str, Any] = {
        "model": {"name": outcome.model.name, "version": outcome.model.version},
        "labels": [{"label": each.label, "score": each.score} for each in outcome.labels[:top_k]],
    }
    if channel is not None:
        decision = decide(outcome, channel.policy)
        facts["channel"] = channel.name
        facts["decision"] = {
            "outcome": decision.outcome.value,
            "label": decision.label,
            "threshold": decision.threshold,
            "policy_version": decision.policy_version,
        }
    return facts


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
