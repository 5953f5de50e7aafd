"""How far a training is can be followed on a terminal and in a log."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from shoplens.bundles.evaluation import ClassCount
from shoplens.training.check import DataReport, Sizes
from shoplens.training.commands_progress import BarWatch, LineWatch
from shoplens.training.parts import Pair
from shoplens.training.ticks import Tick

CLASSES = tuple(ClassCount(label=label, train=25, validation=5, test=0) for label in ("x", "y"))
REPORT = DataReport(
    sha256="0" * 64, found=7, unreadable=(), classes=CLASSES, sizes=Sizes(least=1, median_short_side=2, most=3),
    dropped=(("repeated", Pair(name="[red]a.jpg", label="x", other="b.jpg", other_label="x", same=True)),),
    lookalikes=(),
)  # fmt: skip


def tick(epoch: int, done: float, *, epochs: int = 3, seconds_left: float = 125.0) -> Tick:
    """One of three epochs."""
    return Tick(stage="training", epoch=epoch, epochs=epochs, done=done, loss=0.25, seconds_left=seconds_left)


def console(*, terminal: bool) -> Console:
    """A console that keeps what it is told."""
    return Console(file=io.StringIO(), force_terminal=terminal, width=120, legacy_windows=False)


def told(written: Console) -> str:
    """What stands there, without colours and movements."""
    assert isinstance(written.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.file.getvalue())


def test_a_log_has_a_line_per_step_and_per_epoch() -> None:
    """Not one per photo or batch; each with the time of day."""
    written = console(terminal=False)
    with LineWatch(written) as watch:
        watch.stage("Reading")
        for done in range(1, 101):
            watch.progress(done, 100)
        watch.stage("Training")
        for step in range(1, 31):
            watch.tick(tick(1 + (step - 1) // 10, step / 30))
    lines = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in told(written).splitlines()]
    assert [
        "Reading.", "Reading: 25 of 100", "Reading: 50 of 100", "Reading: 75 of 100",
        "Reading: 100 of 100", "Training.", "3% training, epoch 1 of 3, loss 0.250, 2 min 05 s left",
        "37% training, epoch 2 of 3, loss 0.250, 2 min 05 s left",
        "70% training, epoch 3 of 3, loss 0.250, 2 min 05 s left",
    ] == [line.strip() for line in lines]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "loss 0.250"), (42, ", 42 s left"), (61, ", 1 min 01 s left"), (7_260, ", 2 h 01 min left")],
)
def test_the_time_left_is_said_as_people_say_it(seconds: float, words: str) -> None:
    """And not at all where there is none."""
    written = console(terminal=False)
    with LineWatch(written) as watch:
        watch.tick(tick(1, 0.1, seconds_left=seconds))
    assert told(written).rstrip().endswith(words)


def test_a_terminal_has_a_bar_with_the_time_left() -> None:
    """Per step; the step before stays, full."""
    written = console(terminal=True)
    with BarWatch(written) as watch:
        watch.stage("Reading")
        watch.progress(3, 4)
        watch.stage("Training")
        watch.tick(tick(2, 0.5))
    last = told(written).splitlines()[-2:]
    assert ("Reading", True) == (last[0].split()[0], "100%" in last[0])
    assert ("Training", True) == (last[1].split()[0], "50%" in last[1])
    assert "epoch 2 of 3, loss 0.250, 2 min 05 s left" in last[1]


@pytest.mark.parametrize("terminal", [False, True])
def test_what_the_data_is_like_is_said_word_by_word(terminal: bool) -> None:
    """Names of files are never taken for colours."""
    written = console(terminal=terminal)
    with BarWatch(written) if terminal else LineWatch(written) as watch:
        watch.stage("Reading")
        watch.report(REPORT)
    assert "[red]a.jpg = b.jpg" in told(written)
