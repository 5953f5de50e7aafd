"""Train a torch module. It can be resumed after every epoch, and the same seed gives the same result.

Method: stochastic gradient descent with Nesterov momentum (or AdamW, Loshchilov and Hutter 2019), one cycle of the
learning rate (Smith and Topin, "Super-Convergence", 2018), label smoothing, and an exponential moving average of the
weights, which is the result.
"""

from __future__ import annotations

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
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from shoplens.training.errors import TrainingDiverged
from shoplens.training.progress import TrainProgress


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how fast. `peak_rate` is reached after the share `warm_up` of all steps, then falls to zero.

    `adaptive` takes AdamW, for layers with weights of very different sizes.
    """

    epochs: int
    peak_rate: float
    warm_up: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    smoothing: float = 0.05
    averaging: float = 0.998
    adaptive: bool = False

    def rate(self, done: float) -> float:
        """The learning rate relative to its peak after the share `done` of all steps.

        torch's OneCycleLR divides by zero where the warm-up is exactly one step, which small datasets have.
        """
        return min(done / self.warm_up, (1.0 - done) / (1.0 - self.warm_up))


class DataLoader(Protocol):
    """The batches of an epoch. Unlike torch's loader, the same epoch number always gives the same batches."""

    def __len__(self) -> int:
        """The number of batches per epoch."""
        ...

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets; targets are class numbers, or one share per class."""
        ...


def fit(
    module: nn.Module,
    loader: DataLoader,
    schedule: Schedule,
    *,
    checkpoint: Path | None = None,
    on_progress: Callable[[TrainProgress], None] = lambda _progress: None,
) -> nn.Module:
    """The averaged copy of `module` after training, in evaluation mode.

    With `checkpoint` (a file) the state is saved after every epoch, and training resumes from it if it exists. Raises
    TrainingDiverged if the loss is not finite or the checkpoint cannot be loaded.
    """
    total = schedule.epochs * len(loader)
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [  # only matrices and kernels decay, not offsets and normalisation
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser: torch.optim.Optimizer
    if schedule.adaptive:
        optimiser = torch.optim.AdamW(groups, lr=schedule.peak_rate, betas=(schedule.momentum, 0.99))
    else:
        optimiser = torch.optim.SGD(groups, lr=schedule.peak_rate, momentum=schedule.momentum, nesterov=True)
    rate = LambdaLR(optimiser, lambda step: schedule.rate(step / total))

    def average(mean: Tensor, value: Tensor, step: Tensor | int) -> Tensor:
        if not mean.is_floating_point():
            return value
        # A short average at first, so that the random start is soon forgotten.
        return mean.lerp(value, 1.0 - min(schedule.averaging, (1 + int(step)) / (10 + int(step))))

    averaged = AveragedModel(module, avg_fn=average, use_buffers=True)
    state = {"module": module, "averaged": averaged, "optimiser": optimiser, "rate": rate}
    first = _load_checkpoint(checkpoint, state)
    began = time.monotonic()
    for epoch in range(first, schedule.epochs):
        module.train()
        for index, (inputs, targets) in enumerate(loader.batches(epoch)):
            loss = functional.cross_entropy(module(inputs), targets, label_smoothing=schedule.smoothing)
            if not math.isfinite(loss.item()):
                raise TrainingDiverged("The loss is not finite. Check the photos and labels, or lower the rate.")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            rate.step()
            averaged.update_parameters(module)
            step = epoch * len(loader) + index + 1
            step_s = (time.monotonic() - began) / (step - first * len(loader))
            on_progress(
                TrainProgress(
                    stage="training",
                    epoch=epoch + 1,
                    epochs=schedule.epochs,
                    done=step / total,
                    loss=loss.item(),
                    seconds_left=step_s * (total - step),
                )
            )
        _save_checkpoint(checkpoint, state, epoch + 1)
    result: nn.Module = averaged.module
    return result.requires_grad_(requires_grad=False).eval()


def _load_checkpoint(file: Path | None, state: dict[str, Any]) -> int:
    """The number of the next epoch, 0 without a checkpoint. Raises TrainingDiverged if it cannot be loaded."""
    if file is None or not file.exists():
        return 0
    try:
        saved: dict[str, Any] = torch.load(file, weights_only=True)
        for name, each in state.items():
            each.load_state_dict(saved[name])
        torch.set_rng_state(saved["random"])
        return int(saved["epoch"])
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, EOFError, UnpicklingError) as error:
        raise TrainingDiverged(f"The checkpoint {file} cannot be resumed. Delete it to start over.") from error


def _save_checkpoint(file: Path | None, state: dict[str, Any], epoch: int) -> None:
    """Replace the file atomically."""
    if file is None:
        return
    draft = file.with_name(f"{file.name}.{os.getpid()}.part")
    saved = {name: each.state_dict() for name, each in state.items()}
    torch.save({**saved, "random": torch.get_rng_state(), "epoch": epoch}, draft)
    draft.replace(file)
