"""The commands and their options; each hands over to the module that does the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoplens.batch.commands import batch_app
from shoplens.cli.backup import add_backup
from shoplens.cli.errors import handle_errors
from shoplens.training.commands import add_training

app = typer.Typer(
    name="shoplens",
    help="Image classification that a shop runs itself.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # the rich help costs half a second of imports
)
models_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, inspect, import and verify models.")
db_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look after the database.")
app.add_typer(models_app, name="models")
app.add_typer(db_app, name="db")
app.add_typer(batch_app, name="batch")
add_training(app)
add_backup(app)

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where database, photos and models live.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs instead of text for people.")]


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False) -> None:
    """Image classification that a shop runs itself."""
    if version:
        import shoplens

        typer.echo(f"shoplens {shoplens.__version__}")
        raise typer.Exit


@app.command()
@handle_errors
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = None,
    data_dir: DataDir = None,
    allow_public: Annotated[
        bool, typer.Option("--allow-public", help="Listen beyond this machine although there are no accounts.")
    ] = False,
) -> None:
    """Serve the console and the REST API in one process."""
    import gc

    gc.disable()  # until it is up: collections during a thousand imports are a tenth of the start
    from shoplens.cli.serve import run_server

    run_server(host=host, port=port, data_dir=data_dir, allow_public=allow_public)


@app.command()
@handle_errors
def worker(
    model: Annotated[
        list[str] | None, typer.Option(help="Answer for this model only (may be repeated); all channels' if unset.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Classify photos that web processes and nights put into Redis, until a signal."""
    from shoplens.cli.worker import run_worker

    run_worker(models=tuple(model or ()), data_dir=data_dir)


@app.command()
@handle_errors
def classify(
    photos: Annotated[list[Path], typer.Argument(help="Photos, or folders of photos.")],
    channel: Annotated[
        str | None, typer.Option(help="Which channel's model and policy; the default one if unset.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A model by name or folder, instead of a channel's.")] = None,
    top_k: Annotated[int, typer.Option(help="How many labels.", min=1, max=100)] = 5,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Classify photos on this machine; nothing is stored. Ends with status 1 when a photo could not be used."""
    from shoplens.predictions.commands import classify_photos

    classify_photos(photos, channel=channel, model=model, top_k=top_k, as_json=as_json, data_dir=data_dir)


@app.command()
@handle_errors
def doctor(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Say what is configured, reachable and loaded, and what to do about the rest."""
    from shoplens.cli.doctor import examine

    examine(as_json=as_json, data_dir=data_dir)


@models_app.command("list")
@handle_errors
def models_list(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """List the installed and the built-in models."""
    from shoplens.registry.commands import list_models

    list_models(as_json=as_json, data_dir=data_dir)


@models_app.command("show")
@handle_errors
def models_show(
    name: Annotated[str, typer.Argument(help="Name, name@version, or a bundle's folder.")],
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show a model's card, labels and preprocessing."""
    from shoplens.registry.commands import show_model

    show_model(name, as_json=as_json, data_dir=data_dir)


@models_app.command("prepare")
@handle_errors
def models_prepare(
    names: Annotated[list[str] | None, typer.Argument(help="Built-in models; all of them if unset.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Build the built-in models now instead of at the first use."""
    from shoplens.registry.commands import prepare_models

    prepare_models(names or [], data_dir=data_dir)


@models_app.command("verify")
@handle_errors
def models_verify(
    names: Annotated[list[str] | None, typer.Argument(help="Names or folders; every installed one if unset.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Check the checksums and the answers of models. Ends with status 1 when one must not be served."""
    from shoplens.registry.commands import verify_models

    verify_models(names or [], as_json=as_json, data_dir=data_dir)


@models_app.command("import")
@handle_errors
def models_import(  # noqa: PLR0913 - each is an option that a person may need
    file: Annotated[Path, typer.Argument(help="An image classifier in ONNX.")],
    labels: Annotated[str, typer.Option(help="`imagenet`, a text file with one name per line, or a JSON list.")],
    name: Annotated[str | None, typer.Option(help="Name of the model; the file's name if unset.")] = None,
    version: Annotated[str, typer.Option(help="Version of the model.")] = "1.0.0",
    preset: Annotated[
        str, typer.Option(help="How it was trained to see pixels: imagenet, efficientnet-lite, unit or raw.")
    ] = "imagenet",
    crop: Annotated[int | None, typer.Option(help="Side of its pictures, where the graph leaves it open.")] = None,
    resize: Annotated[int | None, typer.Option(help="Shorter side before the crop.")] = None,
    colour: Annotated[str, typer.Option(help="Order of its channels: rgb or bgr.")] = "rgb",
    data_dir: DataDir = None,
) -> None:
    """Make a bundle of an ONNX model, check that it answers, and install it."""
    from shoplens.registry.commands_files import ImportOptions, import_model

    options = ImportOptions(version=version, preset=preset, crop=crop, resize=resize, colour=colour)
    import_model(file, labels=labels, name=name, options=options, data_dir=data_dir)


@models_app.command("pack")
@handle_errors
def models_pack(
    name: Annotated[str, typer.Argument(help="Name, name@version, or a bundle's folder.")],
    file: Annotated[Path, typer.Argument(help="The file to write, such as model.shoplens.")],
    data_dir: DataDir = None,
) -> None:
    """Pack a model into one file, to carry it to another machine."""
    from shoplens.registry.commands_files import pack_model

    pack_model(name, file, data_dir=data_dir)


@models_app.command("install")
@handle_errors
def models_install(
    source: Annotated[Path, typer.Argument(help="A packed model, or a bundle's folder.")],
    data_dir: DataDir = None,
) -> None:
    """Verify a packed model and install it."""
    from shoplens.registry.commands_files import install_model

    install_model(source, data_dir=data_dir)


@models_app.command("push")
@handle_errors
def models_push(
    name: Annotated[str, typer.Argument(help="Name, name@version, or a bundle's folder.")],
    data_dir: DataDir = None,
) -> None:
    """Publish a model at `models_url`, for every machine that looks there."""
    from shoplens.registry.commands_shared import push_model

    push_model(name, data_dir=data_dir)


@models_app.command("pull")
@handle_errors
def models_pull(
    names: Annotated[list[str], typer.Argument(help="Names, alone or with @version.")],
    data_dir: DataDir = None,
) -> None:
    """Bring models from `models_url` to this machine now instead of at their first use."""
    from shoplens.registry.commands_shared import pull_models

    pull_models(names, data_dir=data_dir)


@db_app.command("upgrade")
@handle_errors
def db_upgrade(data_dir: DataDir = None) -> None:
    """Bring the database's tables to what this version needs."""
    from shoplens.cli.database import upgrade_database

    upgrade_database(data_dir=data_dir)
