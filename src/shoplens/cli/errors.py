"""Turn errors into a sentence on standard error and an exit status."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final, ParamSpec

import typer

from shoplens.errors import ShoplensError

P = ParamSpec("P")

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130


def handle_errors(command: Callable[P, None]) -> Callable[P, None]:
    """End the command with status 1 and one sentence, instead of a traceback, when it raises one of our errors."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except ShoplensError as error:
            typer.secho(f"Error ({error.code}): {error}", err=True, fg=typer.colors.RED)
            raise typer.Exit(EXIT_FAILED) from error

    return run


def exit_status(error: BaseException) -> int:
    """The exit status of a command that ends with `error`."""
    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else EXIT_FAILED if error.code else 0
    return EXIT_FAILED
