"""What every command shares: options, the settings that result from them, and how errors end it.

`shoplens --help` imports this, so the settings are imported by the command that reads them.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, ParamSpec

import typer

from shoplens.advice import file_unusable, meant
from shoplens.cli.output import coloured, manner, visible, warn
from shoplens.errors import (
    BundleError,
    Conflict,
    Misconfigured,
    NotAuthenticated,
    NotFound,
    Overloaded,
    PermissionDenied,
    RequestInvalid,
    RunInProgress,
    RunNotFound,
    SampleError,
    ShoplensError,
    TooManyTries,
    Unavailable,
)

if TYPE_CHECKING:
    from shoplens.settings import Settings

P = ParamSpec("P")

EXIT_FAILED: Final = 1
EXIT_READER_GONE: Final = 141
EXIT_INTERRUPTED: Final = 130
EXIT_TERMINATED: Final = 143
COMPLETION_VARIABLE: Final = "_SHOPLENS_COMPLETE"

KINDS: Final[tuple[tuple[int, str, tuple[type[ShoplensError], ...]], ...]] = (
    (2, "The command line is not usable: an unknown command or option, or a value that is not allowed.",
     (RequestInvalid,)),
    (3, "What was named does not exist: a channel, a model, a run, an item.", (NotFound,)),
    (4, "It does not fit the present state, such as a second run of a channel.", (Conflict,)),
    (5, "Something does not respond or has too much to do: a database, a store, Redis, a cluster. Trying again later "
        "can help.", (Unavailable, Overloaded, TooManyTries)),
    (6, "The settings, or this machine, do not allow it: a setting, a file or folder, a part that is not installed.",
     (Misconfigured,)),
    (7, "A photo or a model cannot be used.", (SampleError, BundleError)),
    (8, "It is not allowed.", (NotAuthenticated, PermissionDenied)),
)  # fmt: skip
"""The exit status of each kind of error, what it means, and its classes; of several that fit the first one counts."""

OTHER_STATUSES: Final = (
    (0, "Done."),
    (
        EXIT_FAILED,
        "A part of it failed, or a training, a check found something, or a question was not answered with yes.",
    ),
    (EXIT_INTERRUPTED, "Interrupted with Ctrl-C."),
    (EXIT_READER_GONE, "The program that read the output has ended, as in `shoplens … | head`."),
    (EXIT_TERMINATED, "Ended by SIGTERM."),
)

_HINTS: Final[tuple[tuple[type[ShoplensError], str], ...]] = (
    (RunNotFound, "`shoplens runs list` names the runs."),
    (RunInProgress, "`shoplens runs watch` follows it, `shoplens runs cancel` ends it."),
    (Unavailable, "`shoplens doctor` checks what else is not reachable."),
    (Misconfigured, "`shoplens doctor` checks the other settings."),
)
_NOT_A_CHOICE: Final = re.compile("'(.*?)' is not one of (.*).")
_QUOTED: Final = re.compile("'(.*?)'")


def _given_before(name: str) -> Callable[[typer.Context, Any], Any]:
    """The value of an option, else what was given for it before the command."""

    def value_of(context: typer.Context, value: Any) -> Any:
        before = context.find_root().params.get(name)
        return value if value or before is None else before

    return value_of


def complete_channels(context: typer.Context, incomplete: str) -> list[str]:
    """The names of the channels that begin so, for a shell."""
    from shoplens.cli.completion import channels

    return channels(context.find_root().params, incomplete)


def complete_models(context: typer.Context, incomplete: str) -> list[str]:
    """The names of the models that begin so, for a shell."""
    from shoplens.cli.completion import models

    return models(context.find_root().params, incomplete)


def complete_runs(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The newest runs over photos and products, for a shell."""
    from shoplens.cli.completion import runs

    return runs(context.find_root().params, incomplete, ("photos", "products"))


def complete_photo_runs(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The newest runs over photos, for a shell."""
    from shoplens.cli.completion import runs

    return runs(context.find_root().params, incomplete, ("photos",))


DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="Folder of the database, the photos and the models.", callback=_given_before("data_dir")
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Output JSON.", callback=_given_before("as_json"))]
RequestedBy = Annotated[str, typer.Option("--requested-by", help="Name recorded in trigger.log.")]


def settings_for(data_dir: Path | None, **options: object) -> Settings:
    """The settings, overridden by options that were given (are not None). Raises Misconfigured.

    Warns on standard error of variables that look like settings and are none.
    """
    from shoplens.settings import read_settings, unknown_variables
    from shoplens.telemetry.logs import configure_logs

    for sentence in unknown_variables():
        warn(f"{sentence}.")
    verbose = manner().verbose
    given = {"data_dir": data_dir, "log_level": "info" if verbose else None, **options}
    settings = read_settings(**{name: value for name, value in given.items() if value is not None})
    # Commands with more to log say so later.
    configure_logs(log_format=settings.log_format, level="info" if verbose else "warning")
    return settings


def handle_errors(command: Callable[P, None]) -> Callable[P, None]:
    """End the command with a sentence and the status of the error instead of a traceback, if it is one of ours.

    The same where the operating system refuses a file, as on a full disk. A reader of the output that has gone, as in
    `| head`, ends it without a word.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except ShoplensError as error:
            refuse(error)
        except KeyboardInterrupt:
            say_error("Interrupted. What was complete by then is kept.")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except OSError as error:
            if error.errno == errno.EPIPE:
                _forget_output()
                raise typer.Exit(EXIT_READER_GONE) from None
            refuse(file_unusable(error))

    return run


def refuse(error: ShoplensError) -> NoReturn:
    """End the command with the sentence and the status of `error`."""
    sentence = str(error)
    hint = next((words for kind, words in _HINTS if isinstance(error, kind) and words not in sentence), None)
    say_error(sentence, code=error.code, hint=hint)
    raise typer.Exit(status_of(error)) from error


def status_of(error: ShoplensError) -> int:
    """The exit status of a command that ends with this error."""
    return next((status for status, _, classes in KINDS if isinstance(error, classes)), EXIT_FAILED)


def say_error(sentence: str, *, code: str | None = None, hint: str | None = None) -> None:
    """Say on standard error what is wrong, with a code for programs, and what to do."""
    red = coloured(sys.stderr)
    lines = [visible(line) for line in sentence.splitlines()] or [""]
    label = "error" if code is None else f"error ({code})"
    typer.echo(f"{typer.style(label, fg='red', bold=True) if red else label}: " + "\n".join(lines), err=True, color=red)
    if hint is not None:
        typer.echo(f"{typer.style('hint', fg='cyan') if red else 'hint'}: {hint}", err=True, color=red)


def plain_fault(message: str) -> str:
    """What is wrong with a value, without the prefix of the validator, and with the one that was probably meant."""
    message = message.removeprefix("Value error, ")
    wrong = _NOT_A_CHOICE.fullmatch(message)
    return message if wrong is None else f"{message[:-1]}{meant(wrong[1], _QUOTED.findall(wrong[2]))}."


def _forget_output() -> None:
    """Let nothing more be written to standard output: at the end of the process that would fail again."""
    try:
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a device
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
    except (OSError, ValueError):  # not a file, as in tests
        return
