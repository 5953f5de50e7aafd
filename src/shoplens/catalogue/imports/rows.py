"""Read tables of products as shops export them: any usual encoding and separator, and quotes that nobody closed.

A table is read once and never held in memory. What is broken in one line stays in that line.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Final

from shoplens.catalogue.errors import ImportInvalid

_SEPARATORS: Final = ",;\t|"
_LONGEST_LINE: Final = 1_000_000
_MOST_LINES: Final = 500
"""How many lines one row may have, in a text with line breaks; a quote that stays open for longer was a mistake."""
_LONGEST_ROW: Final = 200_000
_MOST_COLUMNS: Final = 2_000
_MOST_UNCLOSED: Final = 1_000
_PIECE: Final = 1 << 20
_STILL_OPEN: Final = "unexpected end of data"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One row by column. `line` is its first line in the file, 1 for the header."""

    line: int
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A row that cannot be read. `code` is stable, `reason` a sentence."""

    line: int
    code: str
    reason: str
    reference: str | None = None


class ProductTable:
    """A CSV file with a header. `columns` are its names as they stand there, without blanks around them.

    `file` must allow seeking. Raises ImportInvalid for a file without a header.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._lines = _Lines(io.TextIOWrapper(file, encoding_of(file), errors="replace"))
        header = self._lines.take()
        while header is not None and not header.strip():
            header = self._lines.take()
        if header is None:
            raise ImportInvalid("The file is empty. The first line must name the columns.")
        self._separator = max(_SEPARATORS, key=header.count)
        try:
            self.columns = tuple(name.strip() for name in next(csv.reader([header], delimiter=self._separator), []))
        except csv.Error as error:
            raise ImportInvalid(f"The first line cannot be read as names of columns: {error}.") from error
        if len(self.columns) > _MOST_COLUMNS or len(header) > _LONGEST_ROW:
            raise ImportInvalid(
                f"The first line names {len(self.columns):,} columns in {len(header):,} characters. At most "
                f"{_MOST_COLUMNS:,} in {_LONGEST_ROW:,} are read: is it the table of products?"
            )
        named = Counter(name.casefold() for name in self.columns if name)
        if repeated := sorted(name for name, times in named.items() if times > 1):
            raise ImportInvalid(f"The column {repeated[0][:80]!r} appears twice. Each column needs a name of its own.")
        self._unclosed_rows = 0

    def __iter__(self) -> Iterator[TableRow | BadRow]:
        """Every row that is not empty, in order."""
        while (line := self._lines.take()) is not None:
            if line.strip():
                yield self._row(line)

    def _row(self, first: str) -> TableRow | BadRow:
        number, lines = self._lines.number, [first]
        if len(first) > _LONGEST_LINE:
            return BadRow(line=number, code="row_too_long", reason=f"It has more than {_LONGEST_LINE:,} characters.")
        reader = csv.reader(self._pulled(first, lines), delimiter=self._separator, strict=True)
        try:
            fields = next(reader)
        except csv.Error as error:
            return self._unclosed(number, lines) if str(error) == _STILL_OPEN else self._repaired(number, lines, error)
        if len(lines) > 1 and len(fields) > len(self.columns):
            return self._unclosed(number, lines)
        return self._read(number, fields)

    def _pulled(self, first: str, lines: list[str]) -> Iterator[str]:
        """The lines of one row, of which `lines` has those that the parser asked for."""
        yield first
        size = len(first)
        # Where very many quotes were never closed they mean nothing, and looking for their ends would take days.
        most = _MOST_LINES if self._unclosed_rows < _MOST_UNCLOSED else 1
        while len(lines) < most and size <= _LONGEST_ROW and (following := self._lines.take()) is not None:
            lines.append(following)
            size += len(following)
            yield following

    def _repaired(self, number: int, lines: list[str], error: csv.Error) -> TableRow | BadRow:
        """Text after a closing quote is harmless in one line; over several lines the quote was never closed."""
        if len(lines) > 1:
            return self._unclosed(number, lines)
        try:
            return self._read(number, next(csv.reader(lines, delimiter=self._separator)))
        except csv.Error:
            return BadRow(line=number, code="row_unreadable", reason=f"It cannot be read as CSV: {error}.")

    def _unclosed(self, number: int, lines: list[str]) -> BadRow:
        self._lines.give_back(lines[1:])
        self._unclosed_rows += 1
        return BadRow(line=number, code="quote_not_closed", reason="A quotation mark is opened in it and not closed.")

    def _read(self, number: int, fields: list[str]) -> TableRow | BadRow:
        if len(fields) > len(self.columns) and any(value.strip() for value in fields[len(self.columns) :]):
            reason = f"It has {len(fields)} fields, and the header names {len(self.columns)}."
            return BadRow(line=number, code="row_too_wide", reason=reason)
        return TableRow(line=number, values=dict(zip(self.columns, fields, strict=False)))


class _Lines:
    """The lines of a text, which can be given back. A line that is longer than any row is cut, and its rest skipped."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._again: deque[str] = deque()
        self.number = 0
        """The number of the line that was taken last."""

    def __del__(self) -> None:
        with suppress(ValueError):  # the file is closed already
            self._text.detach()  # it belongs to the caller, and stays open

    def take(self) -> str | None:
        if self._again:
            self.number += 1
            return self._again.popleft()
        line = self._text.readline(_LONGEST_LINE + 1)
        if not line:
            return None
        self.number += 1
        rest = line
        while len(rest) > _LONGEST_LINE and not rest.endswith("\n"):
            rest = self._text.readline(_LONGEST_LINE + 1)
        return line

    def give_back(self, lines: list[str]) -> None:
        self._again.extendleft(reversed(lines))
        self.number -= len(lines)


def encoding_of(file: IO[bytes]) -> str:
    """UTF-8 or UTF-16 with or without a mark, else Windows-1252, as spreadsheets write it. The file is read once."""
    file.seek(0)
    start = file.read(4_096)
    try:
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        if start[1::2].count(0) > len(start) // 4:
            return "utf-16-le"
        if start[::2].count(0) > len(start) // 4:
            return "utf-16-be"
        decoder = codecs.getincrementaldecoder("utf-8")()
        piece = start
        while piece:
            decoder.decode(piece)
            piece = file.read(_PIECE)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return "cp1252"
    finally:
        file.seek(0)
    return "utf-8-sig"
