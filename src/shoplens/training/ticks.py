"""How far a training is: the value that recipes report and that progress bars show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """After each step. `epoch` counts from 1; `done` is a share between 0 and 1; `stage` is for people."""

    stage: str
    epoch: int
    epochs: int
    done: float
    loss: float
    seconds_left: float
