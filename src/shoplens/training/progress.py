"""Training progress: what recipes report, who receives it, and how the command line shows it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, Self

import humanize
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

if TYPE_CHECKING:
    from shoplens.training.check import DataReport

_LOG_EVERY: Final = 0.25
"""A log gets a line per quarter of a stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainProgress:
    """The state after one training step. `epoch` counts from 1; `done` is the share of all steps, from 0 to 1."""

    stage: str
    epoch: int = 1
    epochs: int = 1
    done: float
    loss: float = 0.0
    seconds_left: float = 0.0

    def __str__(self) -> str:
        words = [self.stage]
        if self.epochs > 1:
            words.append(f"epoch {self.epoch} of {self.epochs}, loss {self.loss:.3f}")
        if self.seconds_left >= 1:
            unit = "minutes" if self.seconds_left >= 3600 else "seconds"
            words.append(f"{humanize.precisedelta(round(self.seconds_left), minimum_unit=unit, format='%d')} left")
        return ", ".join(words)


class Callback(Protocol):
    """Receives events while a model is trained. An exception that it raises stops the training."""

    def on_stage(self, name: str) -> None:
        """A new stage begins."""
        ...

    def on_samples(self, done: int, total: int) -> None:
        """`done` of `total` samples of this stage are processed."""
        ...

    def on_progress(self, progress: TrainProgress) -> None:
        """A training step is done."""
        ...

    def on_report(self, report: DataReport) -> None:
        """The data is read and checked. Called before data that cannot be learned from is refused."""
        ...


class ProgressBars:
    """A progress bar per stage, for a terminal."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._progress = Progress(*columns, console=console)
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def on_stage(self, name: str) -> None:
        """Complete the bar of the previous stage and add one."""
        self._update(1.0, "")
        self._task = self._progress.add_task(name, total=None, note="")

    def on_samples(self, done: int, total: int) -> None:
        """Move the bar."""
        self._update(done / max(1, total), f"{done:,} of {total:,}")

    def on_progress(self, progress: TrainProgress) -> None:
        """Move the bar."""
        self._update(progress.done, str(progress))

    def on_report(self, report: DataReport) -> None:
        """Print the report above the bars."""
        for line in report.lines():
            self._progress.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _update(self, done: float, note: str) -> None:
        if self._task is not None:
            self._progress.update(self._task, total=1.0, completed=done, note=note)


class ProgressLog:
    """Lines with the time of day, for a log: one per stage, epoch, and quarter of a stage."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage = ""
        self._last: tuple[str, int, int] = ("", 0, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        return

    def on_stage(self, name: str) -> None:
        """Print its name."""
        self._stage = name
        self._last = ("", 0, 0)
        self._print(f"{name}.")

    def on_samples(self, done: int, total: int) -> None:
        """Print each quarter."""
        self._print_once(("", 0, int(done / max(1, total) / _LOG_EVERY)), f"{self._stage}: {done:,} of {total:,}")

    def on_progress(self, progress: TrainProgress) -> None:
        """Print each epoch; each quarter where there is only one epoch."""
        quarter = 0 if progress.epochs > 1 else int(progress.done / _LOG_EVERY)
        self._print_once((progress.stage, progress.epoch, quarter), f"{progress.done:4.0%} {progress}")

    def on_report(self, report: DataReport) -> None:
        """Print the report."""
        for line in report.lines():
            self._print(line)

    def _print_once(self, position: tuple[str, int, int], text: str) -> None:
        if position != self._last:
            self._last = position
            self._print(text)

    def _print(self, text: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {text}", highlight=False, markup=False, soft_wrap=True)
