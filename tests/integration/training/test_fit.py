"""Training resumes from its checkpoint with the same result, and refuses a damaged one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from shoplens.training.errors import TrainingDiverged
from shoplens.training.fit import Schedule, fit
from shoplens.training.progress import TrainProgress


class Points:
    """Eight random points per batch in two classes, three batches per epoch."""

    def __len__(self) -> int:
        return 3

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        random = torch.Generator().manual_seed(epoch)
        for _ in range(len(self)):
            inputs = torch.randn((8, 2), generator=random)
            yield inputs, (inputs[:, 0] > 0).long()


class Interrupted(Exception):
    """Ctrl-C."""


def trained(
    *,
    checkpoint: Path | None = None,
    on_progress: Callable[[TrainProgress], None] = lambda _progress: None,
    adaptive: bool = False,
) -> nn.Module:
    """Four epochs of a network with batch normalisation and dropout."""
    torch.manual_seed(7)
    module = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    schedule = Schedule(epochs=4, peak_rate=0.1, adaptive=adaptive)
    return fit(module, Points(), schedule, checkpoint=checkpoint, on_progress=on_progress)


@pytest.mark.parametrize("damage", [b"", b"no checkpoint at all", b"PK\x03\x04 half a file"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage: bytes) -> None:
    """The message says what to do."""
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(damage)
    with pytest.raises(TrainingDiverged, match="Delete it to start over"):
        trained(checkpoint=file)


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_resumed_training_has_the_same_result(tmp_path: Path, adaptive: bool) -> None:
    """Interrupted in the third epoch: weights, averages, momentum, rate and dropout continue as they were."""

    def interrupt(progress: TrainProgress) -> None:
        if progress.epoch == 3:
            raise Interrupted

    file = tmp_path / "checkpoint.pt"
    with pytest.raises(Interrupted):
        trained(checkpoint=file, on_progress=interrupt, adaptive=adaptive)
    epochs: list[int] = []
    resumed = trained(checkpoint=file, on_progress=lambda progress: epochs.append(progress.epoch), adaptive=adaptive)
    assert [3, 3, 3, 4, 4, 4] == epochs
    whole = trained(adaptive=adaptive)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_rate_rises_to_its_peak_and_falls_to_zero() -> None:
    """The peak is at a fifth of all steps."""
    schedule = Schedule(epochs=1, peak_rate=0.3)
    assert [0.0, 0.5, 1.0, 0.5, 0.0] == pytest.approx([schedule.rate(done) for done in (0.0, 0.1, 0.2, 0.6, 1.0)])
