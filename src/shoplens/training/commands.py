"""`shoplens train` and `shoplens datasets`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoplens.cli.command import EXIT_FAILED, EXIT_INTERRUPTED, AsJson, DataDir, handle_errors, settings_for
from shoplens.cli.groups import Commands
from shoplens.cli.output import progress_console

if TYPE_CHECKING:
    from shoplens.training.train import Sources, TrainConfig, TrainResult

train_app = Commands(help="Train a model on labelled photos, calibrate and measure it, and install it.")
datasets_app = Commands(
    no_args_is_help=False, help="The public datasets of the shipped models, and how to verify a copy."
)


@train_app.command(
    examples=[
        "shoplens train photos/ --name shoes",
        "shoplens train products.csv --name products --recipe fusion --seed 7",
    ]
)
@handle_errors
def train(  # noqa: PLR0913 - each is an option that a person may need
    source: Annotated[Path, typer.Argument(help="A folder per class, a CSV (path,label), or a NumPy archive (.npz).")],
    name: Annotated[str, typer.Option(help="Name of the model.")],
    version: Annotated[str, typer.Option(help="Version of the model.")] = "1.0.0",
    recipe: Annotated[
        str,
        typer.Option(
            help="transfer (photos), head (photos, fast, without torch), scratch (small pictures) or fusion "
            "(products of a CSV with label, designation, description and path)."
        ),
    ] = "transfer",
    validation: Annotated[
        Path | None, typer.Option(help="Photos to validate with, in one of the same formats. Unset: a held-out share.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="Photos to measure with at the end, in one of the same formats.")
    ] = None,
    held_out: Annotated[float, typer.Option(help="Share of every class that is held out for validation.")] = 0.15,
    labels: Annotated[Path | None, typer.Option(help="File with the class names of a NumPy archive.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same split and the same training.", min=0)] = 0,
    epochs: Annotated[int | None, typer.Option(help="Number of epochs. Unset: the recipe's own.")] = None,
    title: Annotated[str | None, typer.Option(help="Title for the model card. Unset: the name.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the model, for its card.")] = None,
    data_name: Annotated[str | None, typer.Option(help="What the data is and whose, for the model card.")] = None,
    into: Annotated[Path | None, typer.Option(help="Write the bundle here instead of the models directory.")] = None,
    work_dir: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints. Unset: data_dir/training/NAME.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the checkpoints and start over.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Check labelled photos, train a model on them, calibrate and measure it, and install it with its card."""
    from shoplens.bundles.builtin import builtin_names
    from shoplens.errors import RequestInvalid
    from shoplens.training.recipes import RECIPES, require_extras

    if recipe in RECIPES:
        require_extras(recipe)

    from shoplens.platform.parts import build_limits
    from shoplens.serving.cores import usable_cores
    from shoplens.training.card import CardTexts
    from shoplens.training.train import Sources, TrainConfig

    if into is None and name in builtin_names():
        # Installed and built-in models are found by the same name.
        raise RequestInvalid(f"{name!r} is the name of a built-in model. Choose another name.")
    settings = settings_for(data_dir)
    config = TrainConfig(
        name=name,
        version=version,
        recipe=recipe,
        texts=CardTexts(
            title=title or name,
            licence=licence or "Not stated.",
            data_name=data_name or f"The photos of {source.resolve().name}.",
            date=datetime.now(UTC).date().isoformat(),
        ),
        into=(into or settings.make_models_dir()).absolute(),
        work_dir=(work_dir or settings.data_dir / "training" / name).absolute(),
        fraction=held_out,
        seed=seed,
        epochs=epochs,
        fresh=fresh,
        threads=settings.threads or usable_cores(),
        limits=build_limits(settings),
    )
    sources = Sources(source=source, validation=validation, test=test, labels=labels)
    _run(sources, config, installed=into is None, as_json=as_json)


def _run(sources: Sources, config: TrainConfig, *, installed: bool, as_json: bool) -> None:
    """Train with progress on standard error. Interrupted, say how to resume and exit with status 130."""
    import orjson

    from shoplens.cli.process import keep_freed_memory
    from shoplens.training.progress import ProgressBars, ProgressLog
    from shoplens.training.train import train as train_photos

    if config.recipe == "fusion":
        from shoplens.training.train_products import train_csv as train_bundle
    else:
        train_bundle = train_photos
    keep_freed_memory()
    console = progress_console()
    try:
        with ProgressBars(console) if console.is_terminal else ProgressLog(console) as callback:
            result = train_bundle(sources, config, callback=callback)
    except KeyboardInterrupt as error:
        console.print(
            "Interrupted. Run the same command again to resume after the last finished epoch. "
            f"The checkpoints are in {config.work_dir}.",
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(EXIT_INTERRUPTED) from error
    if not as_json:
        _present(result, installed=installed)
        return
    bundle = result.bundle
    facts = {
        "name": bundle.ref.name,
        "version": bundle.ref.version,
        "path": str(bundle.root),
        "digest": bundle.digest,
        "data": result.report,
        "evaluation": result.evaluation,
    }
    typer.echo(orjson.dumps(facts, option=orjson.OPT_INDENT_2))


_SHOWN = {None: "pictures", "photo": "photos", "text": "texts", "both": "texts with photos"}


def _present(result: TrainResult, *, installed: bool) -> None:
    from shoplens.registry.commands import show_thresholds

    bundle, evaluation = result.bundle, result.evaluation
    typer.echo(
        f"{'Installed' if installed else 'Wrote'} {bundle.ref} ({bundle.size_bytes / 1e6:.1f} MB, "
        f"digest {bundle.digest[:12]}) at {bundle.root}"
    )
    for part in evaluation.parts:
        typer.echo(
            f"On {part.samples:,} {_SHOWN[part.kind]} of the {part.name} part: accuracy {part.accuracy:.1%} "
            f"({part.accuracy_low:.1%} to {part.accuracy_high:.1%} with 95 % confidence), "
            f"macro-F1 {part.macro_f1:.1%}, calibration error {part.ece_uncalibrated:.1%} before "
            f"and {part.ece:.1%} after calibration."
        )
    show_thresholds(evaluation.headline)
    typer.echo(f"Try it: shoplens classify PHOTO --model {bundle.ref if installed else bundle.root}")


@datasets_app.callback(invoke_without_command=True)
@handle_errors
def datasets(context: typer.Context, as_json: AsJson = False) -> None:
    """List the public datasets of the shipped models with their authors, licences and checksums."""
    import orjson

    from shoplens.training.public_datasets import PUBLIC_DATASETS

    if context.invoked_subcommand is not None:
        return
    if as_json:
        typer.echo(orjson.dumps(PUBLIC_DATASETS, option=orjson.OPT_INDENT_2))
        return
    for dataset in PUBLIC_DATASETS:
        typer.echo(f"{dataset.name}: {dataset.title}")
        for key in ("author", "licence", "address", "layout"):
            typer.echo(f"  {key:8} {getattr(dataset, key)}")
        for part in dataset.parts:
            typer.echo(f"  {part.name:8} {part.files:,} files, {part.size_bytes:,} bytes, SHA-256 {part.sha256}")
        typer.echo(f"  {dataset.note}\n")


@datasets_app.command("verify", examples=["shoplens datasets verify clothing ~/data/clothing"])
@handle_errors
def datasets_verify(
    name: Annotated[str, typer.Argument(help="Name of the dataset, as `shoplens datasets` lists it.")],
    path: Annotated[Path, typer.Argument(help="The local copy: the folder that holds its parts, or its file.")],
    as_json: AsJson = False,
) -> None:
    """Compare a local copy with the recorded checksums. Exits with status 1 if a part is missing or differs."""
    import orjson

    from shoplens.training.public_datasets import public_dataset, verify_copy

    dataset = public_dataset(name)
    with progress_console().status(f"Reading {path}"):
        checks = list(verify_copy(dataset, path))
    if as_json:
        rows = [{"part": check.part, "ok": check.fault is None, "detail": check.fault} for check in checks]
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
    else:
        for check in checks:
            typer.echo(f"{check.part}: {check.fault or 'identical'}")
    if any(check.fault for check in checks):
        raise typer.Exit(EXIT_FAILED)
