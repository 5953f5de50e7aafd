"""`shoplens train` and `shoplens datasets`: the options; the work is in `cli.training` and in `shoplens.training`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoplens.cli.errors import handle_errors

datasets_app = typer.Typer(
    rich_markup_mode=None, help="The public data that trained models are made from, and how to check a copy."
)

AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs instead of text for people.")]


def add_training(app: typer.Typer) -> None:
    """Declare the commands on `app`."""
    app.command("train")(train)
    app.add_typer(datasets_app, name="datasets")


@handle_errors
def train(  # noqa: PLR0913 - each is an option that a person may need
    source: Annotated[Path, typer.Argument(help="A folder per class, a CSV (path,label), or a NumPy archive (.npz).")],
    name: Annotated[str, typer.Option(help="Name of the model.")],
    version: Annotated[str, typer.Option(help="Version of the model.")] = "1.0.0",
    recipe: Annotated[
        str, typer.Option(help="transfer (photos), head (photos, fast, without torch) or scratch (small pictures).")
    ] = "transfer",
    validation: Annotated[
        Path | None, typer.Option(help="Photos to validate with, of the same form, instead of holding some out.")
    ] = None,
    test: Annotated[Path | None, typer.Option(help="Photos to measure with at the end, of the same form.")] = None,
    held_out: Annotated[float, typer.Option(help="Share of every class that is held out for validation.")] = 0.15,
    labels: Annotated[Path | None, typer.Option(help="File with the names of the classes of a NumPy archive.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same split and the same training.", min=0)] = 0,
    epochs: Annotated[int | None, typer.Option(help="Rounds through the photos; the recipe's own if unset.")] = None,
    title: Annotated[str | None, typer.Option(help="Title for the model card; the name if unset.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the model, for its card.")] = None,
    data_name: Annotated[str | None, typer.Option(help="What the data is and whose, for the model card.")] = None,
    into: Annotated[Path | None, typer.Option(help="Where the bundle goes instead of the models directory.")] = None,
    work_dir: Annotated[
        Path | None, typer.Option(help="Where an interrupted training is kept; unset: data_dir/training/NAME.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew instead of going on.")] = False,
    as_json: AsJson = False,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Where database, photos and models live.")] = None,
) -> None:
    """Check labelled photos, train a model on them, calibrate and measure it, and install it with its card."""
    from shoplens.training.commands_train import TrainingOptions, run_training
    from shoplens.training.plan import Sources

    options = TrainingOptions(
        name=name, version=version, recipe=recipe, held_out=held_out, seed=seed, epochs=epochs, title=title,
        licence=licence, data_name=data_name, into=into, work_dir=work_dir, fresh=fresh,
    )  # fmt: skip
    sources = Sources(source=source, validation=validation, test=test, labels=labels)
    run_training(sources, options, as_json=as_json, data_dir=data_dir)


@datasets_app.callback(invoke_without_command=True)
@handle_errors
def datasets(context: typer.Context, as_json: AsJson = False) -> None:
    """List the public data that trained models are made from: by whom, under which terms, with checksums."""
    from shoplens.training.commands_datasets import list_sources

    if context.invoked_subcommand is None:
        list_sources(as_json=as_json)


@datasets_app.command("verify")
@handle_errors
def datasets_verify(
    name: Annotated[str, typer.Argument(help="Name of the data, as `shoplens datasets` lists it.")],
    path: Annotated[Path, typer.Argument(help="The local copy: the folder that holds its parts, or its file.")],
    as_json: AsJson = False,
) -> None:
    """Compare a local copy with the recorded checksums. Ends with status 1 where a part is missing or differs."""
    from shoplens.training.commands_datasets import verify_source

    verify_source(name, path, as_json=as_json)
