"""Show how far a training is: a bar with the time left on a terminal, plain lines with the time of day in a log."""

from __future__ import annotations

import time
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from shoplens.training.check import DataReport, sentences
from shoplens.training.ticks import Tick

_LINE_EVERY: Final = 0.25


class BarWatch:
    """For people: one bar per step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._progress = Progress(*columns, console=console)
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def stage(self, sentence: str) -> None:
        """See Watch: the bar of the step before is full."""
        if self._task is not None:
            self._progress.update(self._task, total=1.0, completed=1.0, left="")
        self._task = self._progress.add_task(sentence, total=None, left="")

    def progress(self, done: int, total: int) -> None:
        """See Watch."""
        self._move(done / max(1, total), f"{done:,} of {total:,}")

    def tick(self, tick: Tick) -> None:
        """See Watch."""
        self._move(tick.done, _words(tick))

    def report(self, report: DataReport) -> None:
        """See Watch."""
        for line in sentences(report):
            self._progress.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _move(self, done: float, left: str) -> None:
        if self._task is not None:
            self._progress.update(self._task, total=1.0, completed=done, left=left)


class LineWatch:
    """For logs: a line per step, and one more for each epoch or quarter of a step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._sentence = ""
        self._told: tuple[str, int, int] = ("", 0, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        return

    def stage(self, sentence: str) -> None:
        """See Watch."""
        self._sentence = sentence
        self._told = ("", 0, 0)
        self._line(f"{sentence}.")

    def progress(self, done: int, total: int) -> None:
        """See Watch."""
        self._once(("", 0, int(done / max(1, total) / _LINE_EVERY)), f"{self._sentence}: {done:,} of {total:,}")

    def tick(self, tick: Tick) -> None:
        """See Watch."""
        quarter = 0 if tick.epochs > 1 else int(tick.done / _LINE_EVERY)
        self._once((tick.stage, tick.epoch, quarter), f"{tick.done:4.0%} {_words(tick)}")

    def report(self, report: DataReport) -> None:
        """See Watch."""
        for line in sentences(report):
            self._line(line)

    def _once(self, what: tuple[str, int, int], text: str) -> None:
        if what != self._told:
            self._told = what
            self._line(text)

    def _line(self, text: str) -> None:
        stamp = time.strftime("%H:%M:%S")
        self._console.print(f"{stamp} {text}", highlight=False, markup=False, soft_wrap=True)


def _words(tick: Tick) -> str:
    """What a tick says besides its share."""
    said = [tick.stage]
    if tick.epochs > 1:
        said.append(f"epoch {tick.epoch} of {tick.epochs}, loss {tick.loss:.3f}")
    if tick.seconds_left >= 1:
        said.append(f"{_duration(tick.seconds_left)} left")
    return ", ".join(said)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
