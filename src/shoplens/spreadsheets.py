"""CSV that is safe to open in a spreadsheet, made row by row."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from typing import Final

_FORMULA_START: Final = re.compile(r"^[\t\r\n]|(?:^|(?<=[;,|\t\r\n]))(?=[ \"']*[=+\-@＝＋－＠])")
"""Where a cell begins that runs as a formula. A spreadsheet that expects other separators than commas splits text at
them, and quotes do not keep it from that. The signs of full width are formulas in East Asian versions."""
_ROWS_PER_CHUNK: Final = 200


def spreadsheet_safe(value: object) -> object:
    """`value`, with an apostrophe before each text that a spreadsheet would run as a formula."""
    if isinstance(value, str):
        return _FORMULA_START.sub(lambda found: f"'{found[0]}", value)
    return "" if value is None else value


def csv_chunks(columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> Iterator[str]:
    """The header and the rows as CSV text, in chunks of some hundred rows."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(columns)
    for count, row in enumerate(rows, start=1):
        writer.writerow([spreadsheet_safe(value) for value in row])
        if count % _ROWS_PER_CHUNK == 0:
            yield _take(buffer)
    yield _take(buffer)


def _take(buffer: io.StringIO) -> str:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text
