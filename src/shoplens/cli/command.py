"""What every command shares: options, the settings that result from them, and how errors end it.

`shoplens --help` imports this, so the settings are imported by the command that reads them.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn, ParamSpec

import typer

from shoplens.advice import file_unusable
from shoplens.errors import ShoplensError

if TYPE_CHECKING:
    from shoplens.settings import Settings

P = ParamSpec("P")

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder of the database, the photos and the models.")]
AsJson = Annotated[bool, typer.Option("--json", help="Output JSON.")]
RequestedBy = Annotated[str, typer.Option("--requested-by", help="Name recorded in trigger.log.")]

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130


def settings_for(data_dir: Path | None, **options: object) -> Settings:
    """The settings, overridden by options that were given (are not None). Raises Misconfigured.

    Warns on standard error of variables that look like settings and are none.
    """
    from shoplens.settings import read_settings, unknown_variables
    from shoplens.telemetry.logs import configure_logs

    for sentence in unknown_variables():
        typer.echo(f"Warning: {sentence}.", err=True)
    given = {"data_dir": data_dir, **options}
    settings = read_settings(**{name: value for name, value in given.items() if value is not None})
    configure_logs(log_format=settings.log_format, level="warning")  # commands with more to log say so later
    return settings


def handle_errors(command: Callable[P, None]) -> Callable[P, None]:
    """End the command with status 1 and one sentence, instead of a traceback, when it raises one of our errors.

    The same where the operating system refuses a file, as on a full disk.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except ShoplensError as error:
            refuse(error)
        except OSError as error:
            if error.errno == errno.EPIPE:  # who reads the output has gone; Typer ends the command without a word
                raise
            refuse(file_unusable(error))

    return run


def refuse(error: ShoplensError) -> NoReturn:
    """End the command with status 1 and the sentence of `error`."""
    typer.secho(f"Error ({error.code}): {error}", err=True, fg=typer.colors.RED)
    raise typer.Exit(EXIT_FAILED) from error
