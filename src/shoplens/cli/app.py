"""The commands and their options; each calls the module that does the work."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from shoplens.accounts.commands import audit_app, keys_app, users_app
from shoplens.advice import meant
from shoplens.batch.commands import batch_app
from shoplens.catalogue.commands import catalogue_app
from shoplens.cli.command import AsJson, DataDir, handle_errors, settings_for
from shoplens.labels.commands import labels_app
from shoplens.moderation.commands import moderation_app
from shoplens.monitoring.commands import monitoring_app
from shoplens.registry.commands import models_app
from shoplens.registry.registry_commands import registry_app
from shoplens.retraining.commands import retrain_app
from shoplens.training.commands import add_training
from shoplens.webhooks.commands import webhooks_app

BackupFolder = Annotated[Path, typer.Argument(help="The folder of the backup; an earlier one is updated.")]

_NOT_A_CHOICE: Final = re.compile("'(.*?)' is not one of (.*).")
_QUOTED: Final = re.compile("'(.*?)'")
_NOT_FOR_OTHERS: Final = 0o027
"""Other users of the machine can neither read nor write what a command creates."""


class Commands(TyperGroup):
    """The commands; an unknown choice of an option is answered with the one that was probably meant."""

    def invoke(self, ctx: Any) -> Any:
        """See TyperGroup."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = plain_fault(error.message)
            raise


def plain_fault(message: str) -> str:
    """What is wrong with a value, without the prefix of the validator."""
    message = message.removeprefix("Value error, ")
    wrong = _NOT_A_CHOICE.fullmatch(message)
    return message if wrong is None else f"{message[:-1]}{meant(wrong[1], _QUOTED.findall(wrong[2]))}."


app = typer.Typer(
    name="shoplens",
    cls=Commands,
    help="Image classification that a shop runs itself.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # the rich help costs half a second of imports
)
db_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look after the database.")
app.add_typer(models_app, name="models")
app.add_typer(registry_app, name="registry")
app.add_typer(db_app, name="db")
app.add_typer(batch_app, name="batch")
app.add_typer(moderation_app, name="moderation")
app.add_typer(catalogue_app, name="catalogue")
app.add_typer(labels_app, name="labels")
app.add_typer(monitoring_app, name="monitoring")
app.add_typer(retrain_app, name="retrain")
app.add_typer(monitoring_app, name="monitoring")
app.add_typer(users_app, name="users")
app.add_typer(webhooks_app, name="webhooks")
app.add_typer(keys_app, name="keys")
app.add_typer(audit_app, name="audit")
add_training(app)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False) -> None:
    """Image classification that a shop runs itself."""
    os.umask(os.umask(_NOT_FOR_OTHERS) | _NOT_FOR_OTHERS)
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
        bool, typer.Option("--allow-public", help="Listen beyond this machine without any account.")
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
    """Classify photos that web processes and runs put into Redis, until a signal."""
    from shoplens.cli.worker import run_worker

    run_worker(models=tuple(model or ()), data_dir=data_dir)


@app.command()
@handle_errors
def classify(
    photos: Annotated[list[Path] | None, typer.Argument(help="Photos, or folders of photos.")] = None,
    text: Annotated[
        str | None,
        typer.Option(help="A text, for a model that takes one: alone, or of the product that all the photos show."),
    ] = None,
    channel: Annotated[
        str | None, typer.Option(help="Which channel's model and policy; the default one if unset.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A model by name or folder, instead of a channel's.")] = None,
    top_k: Annotated[int, typer.Option(help="How many labels.", min=1, max=100)] = 5,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Classify photos on this machine; nothing is stored. Ends with status 1 if one cannot be used or none is there."""
    from shoplens.predictions.commands import classify_photos, classify_text

    show = classify_photos if text is None else partial(classify_text, text)
    show(photos or [], channel=channel, model=model, top_k=top_k, as_json=as_json, data_dir=data_dir)


@app.command()
@handle_errors
def doctor(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Say what is configured, reachable and loaded, and what to do about the rest."""
    from shoplens.cli.doctor import examine

    examine(as_json=as_json, data_dir=data_dir)


@db_app.command("upgrade")
@handle_errors
def db_upgrade(data_dir: DataDir = None) -> None:
    """Bring the database's tables to what this version needs."""
    from shoplens.db import current_revision, upgrade

    settings = settings_for(data_dir)
    url = settings.effective_database_url
    if settings.database_url is None:
        settings.make_data_dir()
    upgrade(url)
    typer.echo(f"The database is at revision {current_revision(url)}.")


@app.command()
@handle_errors
def backup(folder: BackupFolder, data_dir: DataDir = None) -> None:
    """Copy photos, models and the SQLite database into a folder; the server may keep running."""
    from shoplens.platform.backup import back_up

    outcome = back_up(settings_for(data_dir), folder)
    photos = outcome.photos
    typer.echo(
        f"Copied {photos.files:,} files of the store ({photos.byte_count / 1e6:,.1f} MB); "
        f"{photos.known:,} were there already. {outcome.models} models."
    )
    if outcome.row_bytes is None:
        typer.echo("The database is on a server: run pg_dump now, and then this command once more.")
    else:
        typer.echo(f"Copied the database ({outcome.row_bytes / 1e6:,.1f} MB).")


@app.command()
@handle_errors
def restore(folder: BackupFolder, data_dir: DataDir = None) -> None:
    """Restore the photos, models and SQLite database of a backup. An existing database is never overwritten."""
    from shoplens.platform.backup import restore as restore_backup

    outcome = restore_backup(settings_for(data_dir), folder)
    typer.echo(f"Put {outcome.photos.files:,} files into the store; {outcome.photos.known:,} were there already.")
    typer.echo(f"{outcome.models} models are installed.")
    if outcome.row_bytes is None:
        typer.echo("The database is on a server: restore its rows with pg_restore.")
    else:
        typer.echo(f"Restored the database ({outcome.row_bytes / 1e6:,.1f} MB). Run `shoplens doctor` to check it.")
