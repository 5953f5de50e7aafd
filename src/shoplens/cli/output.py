"""What commands print: tables and facts, for people on a terminal and tab-separated where another program reads.

People get aligned columns with headings; a program gets a row per line, its cells separated by tabs, without headings.
What stands in the data never controls the terminal. Progress and notes go to standard error.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

import typer

if TYPE_CHECKING:
    from rich.console import Console

Value = str | int | float | datetime | None
"""What a cell or a fact holds; None where nothing is known."""
Colour = Literal["auto", "always", "never"]

_GAP: Final = "  "
_LEAST_WIDTH: Final = 16
_WIDEST_NAME: Final = 24
_NOTHING: Final = "–"
_STYLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "good": {"fg": "green"},
    "bad": {"fg": "red"},
    "careful": {"fg": "yellow"},
    "plain": {},
}
_CONTROL: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of characters that move the cursor, turn the direction of the text, or end the line."""
_HARMLESS: Final = frozenset("\u200c\u200d\u00ad")
"""Joiners within words and emoji, and the soft hyphen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How this process speaks, as the options before the command say."""

    quiet: bool = False
    verbose: bool = False
    colour: Colour = "auto"


_manner: ContextVar[Manner] = ContextVar("manner", default=Manner())  # noqa: B039  frozen


def speak(manner: Manner) -> None:
    """Print in this manner from now on."""
    _manner.set(manner)


def manner() -> Manner:
    """As the options before the command say."""
    return _manner.get()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell that people read otherwise than programs: "12 min" is 720.0. `mood` chooses a colour."""

    shown: str
    plain: Value
    mood: Literal["good", "bad", "careful", "plain"] = "plain"
    right: bool = False


def for_people(stream: TextIO | None = None) -> bool:
    """Whether a terminal shows what this process writes to standard output, or to `stream`."""
    return (stream or sys.stdout).isatty()


def coloured(stream: TextIO | None = None) -> bool:
    """Whether to colour: on a terminal, unless NO_COLOR is set or the terminal cannot; `--color` says otherwise."""
    wanted = manner().colour
    if wanted != "auto":
        return wanted == "always"
    return for_people(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def visible(text: str) -> str:
    """The text in one line, with characters that control a terminal written as escapes."""
    return "".join(
        each if unicodedata.category(each) not in _CONTROL or each in _HARMLESS else _escape(each) for each in text
    )


def show_table(heads: Sequence[str], rows: Iterable[Sequence[Value | Cell]], *, nothing: str) -> None:
    """Print rows under headings; columns of numbers are aligned right. Without rows `nothing` is said."""
    found = list(rows)
    if not found:
        remark(nothing)
        return
    if not for_people():
        for row in found:
            typer.echo("\t".join(map(_for_programs, row)))
        return
    right = [any(map(_is_number, column)) and all(map(_fits_right, column)) for column in zip(*found, strict=True)]
    cells = [[_for_people(cell) for cell in row] for row in found]
    columns = list(zip(heads, *cells, strict=True))
    widths = _fitting([max(map(width, column)) for column in columns], [_longest_word(column) for column in columns])
    bright = coloured()
    line = _GAP.join(_padded(head, room, on_right) for head, room, on_right in zip(heads, widths, right, strict=True))
    typer.echo(typer.style(line.rstrip(), bold=True) if bright else line.rstrip(), color=bright)
    for row, texts in zip(found, cells, strict=True):
        styles = [_STYLES[cell.mood] if bright and isinstance(cell, Cell) else {} for cell in row]
        for each in _lines(texts, widths, right, styles):
            typer.echo(each, color=bright)


def show_facts(facts: Mapping[str, Value | Cell]) -> None:
    """Print names and values below each other, for people without those that are unknown."""
    if not for_people():
        for name, value in facts.items():
            typer.echo(f"{name}\t{_for_programs(value)}")
        return
    known = {name: value for name, value in facts.items() if value is not None}
    room = min(max(map(width, known), default=0), _WIDEST_NAME)
    most = max(_LEAST_WIDTH, shutil.get_terminal_size().columns - room - len(_GAP))
    bright = coloured()
    for name, value in known.items():
        style = _STYLES[value.mood] if bright and isinstance(value, Cell) else {}
        first, *others = textwrap.wrap(_for_people(value), most, break_on_hyphens=False) or [""]
        label = _padded(name, room, right=False)
        typer.echo(typer.style(label, bold=True) if bright else label, color=bright, nl=width(name) > room)
        indent = " " * room if width(name) > room else ""
        typer.echo(f"{indent}{_GAP}{typer.style(first, **style) if style else first}", color=bright)
        for line in others:
            typer.echo(f"{' ' * room}{_GAP}{line}")


def show_json(value: object, *, indent: bool = True) -> None:
    """Print a value as JSON; times in UTC, ending in Z."""
    import orjson

    typer.echo(orjson.dumps(value, option=orjson.OPT_UTC_Z | (orjson.OPT_INDENT_2 if indent else 0)))


def remark(sentence: str) -> None:
    """Say something about what was printed: to people below it, else as a note."""
    if for_people():
        typer.echo(sentence)
    else:
        note(sentence)


def note(sentence: str) -> None:
    """Say something beside the output, on standard error; not with --quiet."""
    if not manner().quiet:
        typer.echo(sentence, err=True)


def warn(sentence: str) -> None:
    """Say what needs attention, on standard error, also with --quiet."""
    bright = coloured(sys.stderr)
    typer.echo(typer.style(f"warning: {sentence}", fg="yellow") if bright else f"warning: {sentence}", err=True)


def progress_console() -> Console:
    """Where spinners and bars go: standard error, on a terminal and without --quiet."""
    from rich.console import Console

    return Console(stderr=True, quiet=manner().quiet, no_color=None if manner().colour != "never" else True)


def shows_progress() -> bool:
    """Whether somebody would see progress."""
    return for_people(sys.stderr) and not manner().quiet


def redraw(line: str) -> None:
    """Replace the last line of the terminal behind standard error; "" clears it."""
    room = max(20, shutil.get_terminal_size().columns) - 1
    typer.echo(f"\r\x1b[2K{line[:room]}", nl=False, err=True, color=True)


def width(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode()


def _is_number(cell: Value | Cell) -> bool:
    return cell.right if isinstance(cell, Cell) else isinstance(cell, (int, float)) and not isinstance(cell, bool)


def _fits_right(cell: Value | Cell) -> bool:
    return cell is None or _is_number(cell)


def _for_people(cell: Value | Cell) -> str:
    if cell is None:
        return _NOTHING
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, datetime):
        return f"{cell:%Y-%m-%d %H:%M} UTC"
    if isinstance(cell, (int, float)):
        return f"{cell:,}" if isinstance(cell, int) else f"{cell:,.10g}"
    return visible(cell.shown if isinstance(cell, Cell) else cell)


def _for_programs(cell: Value | Cell) -> str:
    plain = cell.plain if isinstance(cell, Cell) else cell
    match plain:
        case None:
            return ""
        case bool():
            return "true" if plain else "false"
        case datetime():
            return plain.isoformat().replace("+00:00", "Z")
        case _:
            return visible(str(plain))


def _padded(text: str, room: int, right: bool) -> str:
    filling = " " * (room - width(text))
    return filling + text if right else text + filling


def _longest_word(column: Iterable[str]) -> int:
    return max(width(word) for text in column for word in text.split() or [text])


def _fitting(widths: list[int], least: Sequence[int]) -> list[int]:
    """The widths, with the widest texts narrowed until a row fits the terminal.

    No column becomes narrower than its longest word: an id or a path that is broken cannot be copied.
    """
    most = shutil.get_terminal_size().columns
    while sum(widths) + len(_GAP) * (len(widths) - 1) > most:
        foldable = [index for index, each in enumerate(widths) if each > max(least[index], _LEAST_WIDTH)]
        if not foldable:
            break
        widths[max(foldable, key=lambda index: widths[index])] -= 1
    return widths


def _lines(
    texts: Sequence[str], widths: Sequence[int], right: Sequence[bool], styles: Sequence[Mapping[str, Any]]
) -> Iterable[str]:
    """The lines of one row: a cell that is wider than its column goes on in the next line."""
    wrapped = [
        [text] if width(text) <= room else textwrap.wrap(text, room) for text, room in zip(texts, widths, strict=True)
    ]
    for number in range(max(map(len, wrapped))):
        parts = []
        for lines, room, on_right, style in zip(wrapped, widths, right, styles, strict=True):
            padded = _padded(lines[number] if number < len(lines) else "", room, on_right)
            parts.append(typer.style(padded, **style) if style and padded.strip() else padded)
        yield _GAP.join(parts).rstrip()
