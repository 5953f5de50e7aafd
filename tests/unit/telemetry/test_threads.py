"""A task that comes again and again goes on after a fault, and ends when it is closed."""

from __future__ import annotations

import threading

import pytest

from shoplens.errors import StorageUnavailable
from shoplens.telemetry.threads import PeriodicTask


def test_a_fault_in_one_turn_does_not_end_the_later_ones(caplog: pytest.LogCaptureFixture) -> None:
    """Neither one of ours nor one that nobody expected; both are logged with the task's name."""
    faults = iter([StorageUnavailable("The store is away."), KeyError("a mistake")])
    went_on = threading.Event()

    def work() -> None:
        if (fault := next(faults, None)) is not None:
            raise fault
        went_on.set()

    task = PeriodicTask("cleaning", work, every_s=0.001, first_s=0)
    task.start()
    assert went_on.wait(30)
    task.close()
    said = [(record.levelname, "task.failed" in record.getMessage(), "cleaning" in record.getMessage())
            for record in caplog.records]  # fmt: skip
    assert [("WARNING", True, True), ("ERROR", True, True)] == said


@pytest.mark.parametrize("started", [True, False])
def test_a_task_that_is_closed_does_not_wait_for_its_next_turn(started: bool) -> None:
    """Nor does one that never began."""
    turns: list[int] = []
    task = PeriodicTask("cleaning", lambda: turns.append(1), every_s=3_600)
    if started:
        task.start()
    task.close()
    assert task.stopping.is_set()
    assert [] == turns
