"""Train a torch module: batches in, averaged weights out. Resumable after every epoch; the same seed, the same result.

Method: stochastic gradient descent with Nesterov momentum (or AdamW, Loshchilov and Hutter 2019), one cycle of the
learning rate (Smith and Topin, "Super-Convergence", 2018), label smoothing, and an exponential average of the weights,
which is what is kept.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from shoplens.errors import TrainingDiverged
from shoplens.training.ticks import Tick


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how fast. `peak_rate` is reached after `warm_up` of all steps and then falls to zero.

    `adaptive` takes AdamW, for layers whose weights are of very different sizes.
    """

    epochs: int
    peak_rate: float
    warm_up: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    smoothing: float = 0.05
    averaging: float = 0.998
    adaptive: bool = False


class Feed(Protocol):
    """Where batches come from. The same epoch always gives the same batches, so that training can be resumed."""

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        ...

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets; targets are class numbers or one share per class."""
        ...


def fit(
    module: nn.Module,
    feed: Feed,
    schedule: Schedule,
    *,
    checkpoint: Path | None = None,
    watch: Callable[[Tick], None] = lambda _tick: None,
) -> nn.Module:
    """The averaged copy of `module` after training, in evaluation mode.

    With `checkpoint` (a file) the state is kept after every epoch, and training goes on from it if it is there.
    """
    averaged = copy.deepcopy(module).requires_grad_(requires_grad=False)
    optimiser = _optimiser(module, schedule)
    state = _Progress(module=module, averaged=averaged, optimiser=optimiser)
    first = state.restore(checkpoint)
    total = schedule.epochs * feed.steps
    pace = _Pace(schedule=schedule, steps=feed.steps, skipped=first * feed.steps, began=time.monotonic())
    for epoch in range(first, schedule.epochs):
        module.train()
        for index, (inputs, targets) in enumerate(feed.batches(epoch)):
            step = epoch * feed.steps + index
            _set_rate(optimiser, schedule, step / total)
            loss = functional.cross_entropy(module(inputs), targets, label_smoothing=schedule.smoothing)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            _average(averaged, module, _averaging(schedule, step))
            watch(pace.tick(step + 1, _finite(loss)))
        state.keep(checkpoint, epoch + 1)
    return averaged.eval()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Progress:
    """What a checkpoint holds."""

    module: nn.Module
    averaged: nn.Module
    optimiser: torch.optim.Optimizer

    def restore(self, file: Path | None) -> int:
        """The number of the next epoch. Raises TrainingDiverged for a checkpoint that cannot be gone on from."""
        if file is None or not file.exists():
            return 0
        try:
            kept: dict[str, Any] = torch.load(file, weights_only=True)
            self.module.load_state_dict(kept["module"])
            self.averaged.load_state_dict(kept["averaged"])
            self.optimiser.load_state_dict(kept["optimiser"])
            return int(kept["epoch"])
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, EOFError, UnpicklingError) as error:
            raise TrainingDiverged(
                f"The checkpoint {file} cannot be gone on from. Remove it, and the training begins anew."
            ) from error

    def keep(self, file: Path | None, epoch: int) -> None:
        """Wholly or not at all."""
        if file is None:
            return
        draft = file.with_name(f"{file.name}.{os.getpid()}.part")
        torch.save(
            {
                "module": self.module.state_dict(),
                "averaged": self.averaged.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "epoch": epoch,
            },
            draft,
        )
        draft.replace(file)


def _optimiser(module: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """Only matrices and kernels decay; offsets and normalisation do not."""
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if schedule.adaptive:
        return torch.optim.AdamW(groups, lr=0.0, betas=(schedule.momentum, 0.99))
    return torch.optim.SGD(groups, lr=0.0, momentum=schedule.momentum, nesterov=True)


def _set_rate(optimiser: torch.optim.Optimizer, schedule: Schedule, done: float) -> None:
    rising = done / schedule.warm_up
    falling = (1.0 - done) / (1.0 - schedule.warm_up)
    for group in optimiser.param_groups:
        group["lr"] = schedule.peak_rate * min(rising, falling)


def _averaging(schedule: Schedule, step: int) -> float:
    """Short at first, so that the random start is soon forgotten."""
    return min(schedule.averaging, (1 + step) / (10 + step))


@torch.no_grad()
def _average(averaged: nn.Module, module: nn.Module, kept: float) -> None:
    for mean, value in zip(averaged.state_dict().values(), module.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1.0 - kept)
        else:
            mean.copy_(value)


def _finite(loss: Tensor) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingDiverged("The loss is no longer a number: the photos or labels are odd, or the rate is too high.")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pace:
    """Knows how many steps there are and how long those of this process took."""

    schedule: Schedule
    steps: int
    skipped: int
    began: float

    def tick(self, step: int, loss: float) -> Tick:
        """After `step` steps in all."""
        total = self.schedule.epochs * self.steps
        pace = (time.monotonic() - self.began) / (step - self.skipped)
        return Tick(
            stage="training",
            epoch=(step - 1) // self.steps + 1,
            epochs=self.schedule.epochs,
            done=step / total,
            loss=loss,
            seconds_left=pace * (total - step),
        )
