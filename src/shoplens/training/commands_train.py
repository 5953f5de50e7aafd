"""`shoplens train`: labelled photos in, an installed model and what was measured of it out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson
import typer
from rich.console import Console

from shoplens.bundles.builtin import builtin_names
from shoplens.bundles.evaluation import PartResult
from shoplens.cli.allocator import keep_freed_memory
from shoplens.cli.options import settings_for
from shoplens.errors import RequestInvalid
from shoplens.images.picture import Limits
from shoplens.registry.commands import threshold_table
from shoplens.serving.cores import usable_cores
from shoplens.settings import Settings
from shoplens.training.card import Wording
from shoplens.training.commands_progress import BarWatch, LineWatch
from shoplens.training.plan import Plan, Sources
from shoplens.training.train import Trained, train

EXIT_INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """The options of the command as they were given; None where they were not."""

    name: str
    version: str
    recipe: str
    held_out: float
    seed: int
    epochs: int | None
    title: str | None
    licence: str | None
    data_name: str | None
    into: Path | None
    work_dir: Path | None
    fresh: bool


def run_training(sources: Sources, options: TrainingOptions, *, as_json: bool, data_dir: Path | None) -> None:
    """Raises what `train` raises. Interrupted, it says how to go on and exits with status 130."""
    _refuse_builtin(options)
    plan = _plan(sources, options, settings_for(data_dir))
    keep_freed_memory()
    console = Console(stderr=True)
    try:
        with BarWatch(console) if console.is_terminal else LineWatch(console) as watch:
            trained = train(sources, plan, watch=watch)
    except KeyboardInterrupt as error:
        console.print(
            f"Interrupted. The same command goes on after the last finished epoch, from {plan.work_dir}.",
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(EXIT_INTERRUPTED) from error
    if as_json:
        typer.echo(orjson.dumps(facts_of(trained), option=orjson.OPT_INDENT_2))
    else:
        _present(trained, installed=options.into is None)


def _refuse_builtin(options: TrainingOptions) -> None:
    """A name would otherwise mean two models: installed ones and built-in ones are found by the same name."""
    if options.into is None and options.name in builtin_names():
        raise RequestInvalid(f"{options.name!r} is the name of a built-in model; choose another one.")


def facts_of(trained: Trained) -> dict[str, Any]:
    """All of it, for programs."""
    bundle = trained.bundle
    return {
        "name": bundle.ref.name,
        "version": bundle.ref.version,
        "path": str(bundle.root),
        "digest": bundle.digest,
        "data": trained.report,
        "evaluation": trained.evaluation,
    }


def _plan(sources: Sources, options: TrainingOptions, settings: Settings) -> Plan:
    wording = Wording(
        title=options.title or options.name,
        licence=options.licence or "Not stated.",
        data_name=options.data_name or f"The photos of {sources.source.resolve().name}.",
        date=datetime.now(UTC).date().isoformat(),
    )
    return Plan(
        name=options.name,
        version=options.version,
        recipe=options.recipe,
        wording=wording,
        into=(options.into or settings.effective_models_dir).absolute(),
        work_dir=(options.work_dir or settings.data_dir / "training" / options.name).absolute(),
        fraction=options.held_out,
        seed=options.seed,
        epochs=options.epochs,
        fresh=options.fresh,
        threads=settings.threads or usable_cores(),
        limits=Limits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels),
    )


def _present(trained: Trained, *, installed: bool) -> None:
    console, bundle, evaluation = Console(), trained.bundle, trained.evaluation
    verb = "Installed" if installed else "Wrote"
    console.print(
        f"{verb} {bundle.ref} ({bundle.size_bytes / 1e6:.1f} MB, digest {bundle.digest[:12]}) at {bundle.root}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    for part in evaluation.parts:
        console.print(summary_of(part), highlight=False, markup=False, soft_wrap=True)
    console.print(threshold_table(evaluation.headline))
    model = str(bundle.ref) if installed else str(bundle.root)
    console.print(f"Try it: shoplens classify PHOTO --model {model}", highlight=False, markup=False, soft_wrap=True)


def summary_of(part: PartResult) -> str:
    """One line with the figures that matter most."""
    return (
        f"On {part.samples:,} pictures of the {part.name} part: accuracy {part.accuracy:.1%} "
        f"({part.accuracy_low:.1%} to {part.accuracy_high:.1%} with 95 % confidence), macro-F1 {part.macro_f1:.1%}, "
        f"calibration error {part.ece_uncalibrated:.1%} before and {part.ece:.1%} after calibration."
    )
