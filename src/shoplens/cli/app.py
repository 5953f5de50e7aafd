"""The commands and their options; each calls the module that does the work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from shoplens.cli.command import AsJson, DataDir, complete_channels, complete_models, handle_errors, settings_for
from shoplens.cli.groups import Commands, Later, Root
from shoplens.cli.output import Colour, Manner, speak

BackupFolder = Annotated[Path, typer.Argument(help="The folder of the backup; an earlier one is updated.")]

Shell = Literal["bash", "zsh", "fish"]

_NOT_FOR_OTHERS: Final = 0o027
"""Other users of the machine can neither read nor write what a command creates."""
_SERVE, _DAILY, _MODELS, _WATCH, _ADMIN = (
    "Serve", "Daily work", "Models and training", "Watch", "Administration",
)  # fmt: skip


def _later(section: str, name: str, sentence: str, module: str, *, group: bool = True) -> Later:
    module = f"shoplens.{module}"
    return Later(name=name, section=section, sentence=sentence, module=module, app=f"{name}_app", group=group)


class Shoplens(Root):
    """The commands of the features, imported when they are wanted."""

    sections = (_SERVE, _DAILY, _MODELS, _WATCH, _ADMIN)
    later = (
        _later(_DAILY, "runs", "List, follow and cancel runs over photos and products.", "cli.run_commands"),
        _later(_DAILY, "batch", "Import the photos of a channel and classify them in runs.", "batch.commands"),
        _later(_DAILY, "catalogue", "Categorise the products of a shop.", "catalogue.commands"),
        _later(_DAILY, "moderation", "Moderate the photos of shoppers.", "moderation.commands"),
        _later(_DAILY, "labels", "What people said of photos, for training.", "labels.commands"),
        _later(_MODELS, "models", "List, inspect, import and verify models.", "registry.commands"),
        _later(_MODELS, "registry", "Publish models, and say which version is live.", "registry.registry_commands"),
        _later(
            _MODELS, "train", "Train a model on labelled photos, calibrate and measure it, and install it.",
            "training.commands", group=False,
        ),
        _later(
            _MODELS, "retrain", "Train a channel's model again from what people said: shoplens retrain CHANNEL.",
            "retraining.commands",
        ),
        _later(
            _MODELS, "datasets", "The public datasets of the shipped models, and how to verify a copy.",
            "training.commands",
        ),
        _later(_WATCH, "monitoring", "What happened on the server over time.", "monitoring.commands"),
        _later(_ADMIN, "config", "Show the settings and where each comes from.", "configuration.commands"),
        _later(_ADMIN, "users", "People: who may sign in, and their roles.", "accounts.commands"),
        _later(_ADMIN, "keys", "Keys with which services use the API.", "accounts.commands"),
        _later(_ADMIN, "audit", "The log of who did what.", "accounts.commands"),
        _later(_ADMIN, "webhooks", "Send events to other systems.", "webhooks.commands"),
        _later(_ADMIN, "mail", "Send alerts and reports by e-mail.", "mail.commands"),
    )  # fmt: skip


app = Commands(
    name="shoplens",
    cls=Shoplens,
    help="Image classification that a shop runs itself.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
db_app = Commands(help="Look after the database.")
app.add_typer(db_app, name="db", rich_help_panel=_ADMIN)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    data_dir: DataDir = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="The file of settings; shoplens.toml of this folder if unset.")
    ] = None,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log to standard error what happens.")] = False,
    color: Annotated[Colour, typer.Option("--color", help="Colours; auto: on a terminal without NO_COLOR.")] = "auto",
    version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False,
) -> None:
    """Image classification that a shop runs itself."""
    del data_dir, as_json  # the options of the commands take them from here
    os.umask(os.umask(_NOT_FOR_OTHERS) | _NOT_FOR_OTHERS)
    speak(Manner(quiet=quiet, verbose=verbose, colour=color))
    if config is not None:
        os.environ["SHOPLENS_CONFIG"] = str(config)
    if version:
        import shoplens

        typer.echo(f"shoplens {shoplens.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


@app.command(examples=["shoplens serve", "shoplens serve --host 0.0.0.0 --port 8000"], section=_SERVE)
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


@app.command(examples=["shoplens worker", "shoplens worker --model clothing"], section=_SERVE)
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


@app.command(
    examples=[
        "shoplens classify shirt.jpg",
        "shoplens classify photos/ --format csv --output labels.csv",
        'find photos -name "*.jpg" | shoplens classify - --json',
    ],
    section=_DAILY,
)
@handle_errors
def classify(  # noqa: PLR0913 - the options of the command
    photos: Annotated[
        list[Path] | None,
        typer.Argument(help="Photos, folders, patterns; - reads names from stdin."),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(help="A text, for a model that takes one: alone, or of the product that all the photos show."),
    ] = None,
    channel: Annotated[
        str | None,
        typer.Option(
            help="Which channel's model and policy; the default one if unset.", autocompletion=complete_channels
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A model by name or folder, instead of a channel's.", autocompletion=complete_models),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="How many labels; unset: 5, and in rows the best one.", min=1, max=100)
    ] = None,
    wanted: Annotated[
        Literal["table", "csv", "json", "jsonl"] | None,
        typer.Option(
            "--format",
            help="Unset: by the name of --output, else for people on a terminal, tab-separated in a pipe.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; standard output if unset.")
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Classify photos on this machine; nothing is stored. Ends with status 1 if one of them cannot be used.

    A photo that cannot be used is a row with its reason, and the others go on. --json prints JSON Lines.
    """
    from shoplens.errors import RequestInvalid
    from shoplens.predictions.commands import classify_photos, classify_text

    if text is not None:
        if wanted not in (None, "json", "jsonl") or output is not None:
            raise RequestInvalid("--text classifies one sample: use --json instead of --format and --output.")
        json_wanted = as_json or wanted is not None
        classify_text(
            text, photos or [], channel=channel, model=model, top_k=top_k, as_json=json_wanted, data_dir=data_dir
        )
        return
    if as_json and wanted not in (None, "json", "jsonl"):
        raise RequestInvalid(f"--json and --format {wanted} exclude each other.")
    form = wanted or ("jsonl" if as_json else None)
    classify_photos(
        photos or [], channel=channel, model=model, top_k=top_k, wanted=form, output=output, data_dir=data_dir
    )


@app.command(examples=["shoplens doctor"], section=_ADMIN)
@handle_errors
def doctor(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Say what is configured, reachable and loaded, and what to do about the rest."""
    from shoplens.cli.doctor import examine

    examine(as_json=as_json, data_dir=data_dir)


@app.command(examples=["shoplens retention --dry-run", "shoplens retention"], section=_ADMIN)
@handle_errors
def retention(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is due; nothing is deleted.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Delete the records and photos whose days are over now; the server does it every hour."""
    from shoplens.cli.retention import apply_retention

    apply_retention(dry_run=dry_run, as_json=as_json, data_dir=data_dir)


@db_app.command("upgrade", examples=["shoplens db upgrade"])
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


@app.command(
    section=_ADMIN,
    examples=["shoplens completion bash > ~/.local/share/bash-completion/completions/shoplens"],
)
@handle_errors
def completion(shell: Annotated[Shell, typer.Argument(help="The shell.")]) -> None:
    """Print what makes a shell complete commands, options, channels and models."""
    from shoplens.cli.completion import SCRIPTS

    typer.echo(SCRIPTS[shell])


@app.command(examples=["shoplens backup /mnt/backup"], section=_ADMIN)
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


@app.command(examples=["shoplens restore /mnt/backup"], section=_ADMIN)
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
