"""Training progress on a terminal and in a log."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from shoplens.bundles.manifest import ClassCount
from shoplens.training.check import DataReport, Sizes
from shoplens.training.progress import ProgressBars, ProgressLog, TrainProgress
from shoplens.training.split import Pair

CLASSES = tuple(ClassCount(label=label, train=25, validation=5, test=0) for label in ("x", "y"))
REPORT = DataReport(
    sha256="0" * 64, found=7, unreadable=(), classes=CLASSES, sizes=Sizes(least=1, median_short_side=2, most=3),
    dropped=(("repeated", Pair(name="[red]a.jpg", label="x", other="b.jpg", other_label="x", same=True)),),
    lookalikes=(),
)  # fmt: skip


def step(epoch: int, done: float, *, epochs: int = 3, seconds_left: float = 125.0) -> TrainProgress:
    """The progress in one of three epochs."""
    return TrainProgress(stage="training", epoch=epoch, epochs=epochs, done=done, loss=0.25, seconds_left=seconds_left)


def console(*, terminal: bool) -> Console:
    """A console that keeps its output."""
    return Console(file=io.StringIO(), force_terminal=terminal, width=120, legacy_windows=False)


def output(written: Console) -> str:
    """The output without colours and cursor movements."""
    assert isinstance(written.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.file.getvalue())


def test_a_log_has_a_line_per_stage_epoch_and_quarter() -> None:
    """Not one per photo or batch. Each has the time of day."""
    written = console(terminal=False)
    with ProgressLog(written) as callback:
        callback.on_stage("Reading")
        for done in range(1, 101):
            callback.on_samples(done, 100)
        callback.on_stage("Training")
        for number in range(1, 31):
            callback.on_progress(step(1 + (number - 1) // 10, number / 30))
    lines = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in output(written).splitlines()]
    assert [
        "Reading.", "Reading: 25 of 100", "Reading: 50 of 100", "Reading: 75 of 100",
        "Reading: 100 of 100", "Training.", "3% training, epoch 1 of 3, loss 0.250, 2 minutes and 5 seconds left",
        "37% training, epoch 2 of 3, loss 0.250, 2 minutes and 5 seconds left",
        "70% training, epoch 3 of 3, loss 0.250, 2 minutes and 5 seconds left",
    ] == [line.strip() for line in lines]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "loss 0.250"),
        (42, ", 42 seconds left"),
        (61, ", 1 minute and 1 second left"),
        (7_261, ", 2 hours and 1 minute left"),
    ],
)
def test_the_time_left_is_readable(seconds: float, words: str) -> None:
    """It is not shown below one second."""
    written = console(terminal=False)
    with ProgressLog(written) as callback:
        callback.on_progress(step(1, 0.1, seconds_left=seconds))
    assert output(written).rstrip().endswith(words)


def test_a_terminal_has_a_bar_per_stage_with_the_time_left() -> None:
    """The bar of the previous stage is complete."""
    written = console(terminal=True)
    with ProgressBars(written) as callback:
        callback.on_stage("Reading")
        callback.on_samples(3, 4)
        callback.on_stage("Training")
        callback.on_progress(step(2, 0.5))
    last = output(written).splitlines()[-2:]
    assert ("Reading", True) == (last[0].split()[0], "100%" in last[0])
    assert ("Training", True) == (last[1].split()[0], "50%" in last[1])
    assert "epoch 2 of 3, loss 0.250, 2 minutes and 5 seconds left" in last[1]


@pytest.mark.parametrize("terminal", [False, True])
def test_names_of_files_are_not_read_as_markup(terminal: bool) -> None:
    """Brackets in the report are printed as they are."""
    written = console(terminal=terminal)
    with ProgressBars(written) if terminal else ProgressLog(written) as callback:
        callback.on_stage("Reading")
        callback.on_report(REPORT)
    assert "[red]a.jpg = b.jpg" in output(written)
