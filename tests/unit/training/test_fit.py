"""Training goes on from its checkpoint, and says so where that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoplens.errors import TrainingDiverged

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("damage", [b"", b"no checkpoint at all", b"PK\x03\x04 half a file"])
def test_a_damaged_checkpoint_is_told_with_what_to_do(tmp_path: Path, damage: bytes) -> None:
    """A full disk or a person may have left it."""
    from shoplens.training.fit import _Progress

    module = torch.nn.Linear(2, 2)
    progress = _Progress(
        module=module, averaged=torch.nn.Linear(2, 2), optimiser=torch.optim.SGD(module.parameters(), lr=0.1)
    )
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(damage)
    with pytest.raises(TrainingDiverged, match="Remove it"):
        progress.restore(file)


def test_a_whole_checkpoint_is_gone_on_from(tmp_path: Path) -> None:
    """At the next epoch, with the same weights."""
    from shoplens.training.fit import _Progress

    module, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    averaged = torch.nn.Linear(2, 2)
    file = tmp_path / "checkpoint.pt"
    _Progress(module=module, averaged=averaged, optimiser=torch.optim.SGD(module.parameters(), lr=0.1)).keep(file, 3)
    resumed = _Progress(module=other, averaged=averaged, optimiser=torch.optim.SGD(other.parameters(), lr=0.1))
    assert 3 == resumed.restore(file)
    assert torch.equal(module.weight, other.weight)
