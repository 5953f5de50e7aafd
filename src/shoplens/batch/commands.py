"""`shoplens batch …`: the commands and their options; each hands over to the module that does the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from shoplens.cli.errors import handle_errors

batch_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Import the photos of a channel and classify them in runs."
)

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where database, photos and models live.")]
ChannelName = Annotated[
    str | None, typer.Option("--channel", help="The channel; may be left out when only one has a batch side.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs instead of text for people.")]


@batch_app.command("ingest")
@handle_errors
def batch_ingest(
    source: Annotated[
        str | None,
        typer.Argument(help="A folder, a CSV manifest or s3://bucket/prefix. Default: that of the channel."),
    ] = None,
    keep_source: Annotated[
        bool, typer.Option("--keep-source", help="Do not remove the files. They are not imported twice.")
    ] = False,
    requested_by: Annotated[
        str, typer.Option("--requested-by", help="Who asks for it, as the log of starts shall say.")
    ] = "command line",
    json_output: AsJson = False,
    channel: ChannelName = None,
    data_dir: DataDir = None,
) -> None:
    """Import new photos, and remove them from their source. Can be run at any time and more than once at a time."""
    from shoplens.batch.commands_ingest import ingest_photos

    ingest_photos(
        source,
        keep_source=keep_source,
        json_output=json_output,
        requested_by=requested_by,
        channel=channel,
        data_dir=data_dir,
    )


@batch_app.command("run")
@handle_errors
def batch_run(
    run: Annotated[
        str | None, typer.Option("--run", help="A requested run by its id; the active one if unset.")
    ] = None,
    requested_by: Annotated[
        str, typer.Option("--requested-by", help="Who asks for a new run, as it shall be remembered.")
    ] = "command line",
    engine: Annotated[
        Literal["local", "workers", "ray"],
        typer.Option(help="Where models run: in this process, in workers behind Redis, or on a Ray cluster."),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(help="The Ray cluster: host:6379, ray://host:10001 or auto; one on this machine if unset."),
    ] = None,
    json_output: AsJson = False,
    channel: ChannelName = None,
    data_dir: DataDir = None,
) -> None:
    """Classify every photo that waits, going on where an earlier run ended early. Status 0 when it is through."""
    from shoplens.batch.commands_run import run_night

    run_night(
        run_id=run,
        requested_by=requested_by,
        engine=engine,
        address=address,
        json_output=json_output,
        channel=channel,
        data_dir=data_dir,
    )


@batch_app.command("status")
@handle_errors
def batch_status(json_output: AsJson = False, channel: ChannelName = None, data_dir: DataDir = None) -> None:
    """Tell how the active run stands, or the last one."""
    from shoplens.batch.commands_run import show_status

    show_status(json_output=json_output, channel=channel, data_dir=data_dir)


@batch_app.command("export")
@handle_errors
def batch_export(
    run: Annotated[str | None, typer.Argument(help="A run by its id; the last one if unset.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Everything that ever arrived, instead of one run.")
    ] = False,
    wanted_format: Annotated[
        str | None, typer.Option("--format", help="csv, jsonl or parquet; as the file's name ends if unset.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write; - is standard output.")] = Path(
        "-"
    ),
    channel: ChannelName = None,
    data_dir: DataDir = None,
) -> None:
    """Write what became of every photo as a table."""
    from shoplens.batch.commands_results import export_items

    export_items(
        run, everything=everything, wanted_format=wanted_format, output=output, channel=channel, data_dir=data_dir
    )


@batch_app.command("report")
@handle_errors
def batch_report(
    run: Annotated[str | None, typer.Argument(help="A run by its id; the last one if unset.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file to write instead of the store; - is standard output.")
    ] = None,
    console: Annotated[
        str | None,
        typer.Option("--console", help="Where the console's pages of this channel are, for the links of a file."),
    ] = None,
    channel: ChannelName = None,
    data_dir: DataDir = None,
) -> None:
    """Write the morning report anew, with what was corrected since."""
    from shoplens.batch.commands_results import write_report

    write_report(run, output=output, console=console, channel=channel, data_dir=data_dir)


@batch_app.command("retry")
@handle_errors
def batch_retry(
    items: Annotated[list[str] | None, typer.Argument(help="Items that were set aside, by their ids.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every item that was set aside.")] = False,
    run: Annotated[str | None, typer.Option("--run", help="With --all: only those of this run.")] = None,
    channel: ChannelName = None,
    data_dir: DataDir = None,
) -> None:
    """Let items that were set aside be tried again by the next run."""
    from shoplens.batch.commands_results import retry_items

    retry_items(items or [], everything=everything, run_id=run, channel=channel, data_dir=data_dir)
