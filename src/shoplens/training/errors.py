"""Why a training failed."""

from __future__ import annotations

from shoplens.errors import ShoplensError


class TrainingError(ShoplensError):
    """The training failed."""

    code = "training_error"


class DatasetInvalid(TrainingError):
    """The labelled photos cannot be used for training."""

    code = "dataset_invalid"


class TrainingDiverged(TrainingError):
    """The loss became infinite, or the exported model differs from the trained one."""

    code = "training_diverged"
