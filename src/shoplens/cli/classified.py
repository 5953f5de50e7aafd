"""How the results of `shoplens classify` are written: for people, as tab-separated rows, CSV, JSON or JSON Lines.

Every form is written row by row, so that a hundred thousand photos need no more memory than one.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TextIO, TypeAlias

import orjson
import typer

from shoplens.cli.output import coloured, for_people, visible
from shoplens.errors import RequestInvalid, ShoplensError
from shoplens.predictions.entities import ChannelPrediction
from shoplens.serving.engine import Prediction
from shoplens.spreadsheets import spreadsheet_safe

ResultFormat = Literal["table", "csv", "json", "jsonl"]
Outcome: TypeAlias = Prediction | ShoplensError
_BAR: Final = 20
_MOODS: Final = {"accept": "green", "review": "yellow", "reject": "red"}


class Results(Protocol):
    """Where results go."""

    def add(self, path: Path, outcome: Outcome) -> None:
        """Write the result of one photo."""
        ...


class _Rows:
    """A row for each photo: path, decision, then labels with their scores; for a failure its code and reason."""

    def __init__(self, write: Callable[[Sequence[object]], object], *, labels: int, heads: bool) -> None:
        self._write = write
        self._labels = labels
        if heads:
            more = [name for number in range(2, labels + 1) for name in (f"label_{number}", f"score_{number}")]
            write(["path", "label", "score", *more, "decision", "model", "error", "reason"])

    def add(self, path: Path, outcome: Outcome) -> None:
        """See Results."""
        if isinstance(outcome, ShoplensError):
            nothing = [""] * (2 * self._labels + 2)
            self._write([str(path), *nothing, outcome.code, str(outcome)])
            return
        ranked: list[object] = [
            value for each in outcome.labels[: self._labels] for value in (each.label, f"{each.score:.4f}")
        ]
        ranked += [""] * (2 * self._labels - len(ranked))
        self._write([str(path), *ranked, _decision(outcome), str(outcome.model), "", ""])


class _Json:
    """JSON Lines, or one JSON array."""

    def __init__(self, sink: TextIO, *, array: bool) -> None:
        self._sink = sink
        self._array = array
        self._any = False

    def add(self, path: Path, outcome: Outcome) -> None:
        """See Results."""
        before = (",\n" if self._any else "[\n") if self._array else ""
        self._sink.write(f"{before}{orjson.dumps(json_row(path, outcome)).decode()}{'' if self._array else chr(10)}")
        self._any = True

    def end(self) -> None:
        """Close the array."""
        if self._array:
            self._sink.write("\n]\n" if self._any else "[]\n")


class _ForPeople:
    """A line for each photo, or with several labels a bar for each of them."""

    def __init__(self, *, bars: bool) -> None:
        self._bars = bars

    def add(self, path: Path, outcome: Outcome) -> None:
        """See Results."""
        if self._bars:
            print_bars(str(path), outcome)
            return
        if isinstance(outcome, ShoplensError):
            typer.echo(f"{_fault(outcome)}  {visible(str(path))}", color=coloured())
            return
        best = outcome.labels[0]
        decided = _coloured(f"{_decision(outcome):<7}", _MOODS.get(_decision(outcome)))
        typer.echo(f"{best.score:7.1%}  {decided}{best.label:<24}  {visible(str(path))}", color=coloured())


@contextmanager
def open_results(
    wanted: ResultFormat | None, output: Path | None, *, top_k: int | None, one: bool
) -> Iterator[Results]:
    """Where results go: to `output`, else to standard output. Raises RequestInvalid.

    The form is `wanted`, else that of the name of `output`, else lines for people or tab-separated rows for programs.
    Rows have the best label only, unless `top_k` says more; people see bars for `one` photo.
    """
    form = wanted or _form_of(output)
    if output is None:
        yield from _written(form, sys.stdout, top_k, one=one)
        return
    try:
        file = output.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise RequestInvalid(f"{output} cannot be written: {error.strerror}.") from error
    with file:
        yield from _written(form, file, top_k, one=one)


def _written(form: ResultFormat | None, sink: TextIO, top_k: int | None, *, one: bool) -> Iterator[Results]:
    match form:
        case "json" | "jsonl":
            written = _Json(sink, array=form == "json")
            try:
                yield written
            finally:
                written.end()
        case "csv":
            rows = csv.writer(sink)

            def write_csv(row: Sequence[object]) -> None:
                rows.writerow(map(spreadsheet_safe, row))

            yield _Rows(write_csv, labels=top_k or 1, heads=True)
        case _ if form == "table" or (sink is sys.stdout and for_people()):
            yield _ForPeople(bars=one if top_k is None else top_k > 1)
        case _:

            def write_tabs(row: Sequence[object]) -> None:
                sink.write("\t".join(visible(str(value)) for value in row) + "\n")

            yield _Rows(write_tabs, labels=top_k or 1, heads=False)


def json_row(path: Path | None, outcome: Outcome) -> dict[str, Any]:
    """`path` is None for a sample that has none of its own."""
    named = {} if path is None else {"path": str(path)}
    if isinstance(outcome, ShoplensError):
        return {**named, "error": {"code": outcome.code, "detail": str(outcome)}}
    row: dict[str, Any] = {
        **named,
        "model": {"name": outcome.model.name, "version": outcome.model.version},
        "labels": [{"label": each.label, "score": each.score} for each in outcome.labels],
    }
    if isinstance(outcome, ChannelPrediction):
        row["channel"] = outcome.channel
        row["decision"] = asdict(outcome.decision)
    return row


def print_bars(name: str, outcome: Outcome) -> None:
    """The name and what was decided, with a bar for each label."""
    if isinstance(outcome, ShoplensError):
        typer.echo(f"{visible(name)}: {_fault(outcome)}", color=coloured())
        return
    decision = _decision(outcome)
    typer.echo(f"{visible(name)}  {_coloured(decision, _MOODS.get(decision))}".rstrip(), color=coloured())
    width = max((round(_BAR * each.score) for each in outcome.labels), default=0)
    for each in outcome.labels:
        typer.echo(f"{each.score:7.1%}  {('█' * round(_BAR * each.score) or '▏'):<{max(width, 1)}}  {each.label}")


def _decision(outcome: Prediction) -> str:
    return outcome.decision.outcome.value if isinstance(outcome, ChannelPrediction) else ""


def _fault(error: ShoplensError) -> str:
    return f"{_coloured(error.code, 'red')} {visible(str(error))}"


def _coloured(text: str, colour: str | None) -> str:
    return typer.style(text, fg=colour) if colour and coloured() else text


def _form_of(output: Path | None) -> ResultFormat | None:
    """Raises RequestInvalid for a name that does not say its form."""
    if output is None:
        return None
    forms: dict[str, ResultFormat] = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}
    found = forms.get(output.suffix.lower())
    if found is None:
        raise RequestInvalid(f"End the name of {output.name} with .csv, .json or .jsonl, or pass --format.")
    return found
