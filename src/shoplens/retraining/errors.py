"""What can go wrong in a retraining, beside the errors of training, registry, database and store."""

from __future__ import annotations

from shoplens.errors import Conflict, NotFound


class RetrainingRunning(Conflict):
    """Another process retrains this model now; there is one retraining of a model at a time."""

    code = "retraining_running"


class RetrainingNotPossible(Conflict):
    """The settings of the channel, or what is installed, do not allow to retrain its model."""

    code = "retraining_not_possible"


class RetrainingNotFound(NotFound):
    """No retraining has this id."""

    code = "retraining_not_found"


class RetrainingNotOpen(Conflict):
    """The retraining has ended or is publishing, or its model does not wait for an answer."""

    code = "retraining_not_open"


class RetrainingOutdated(Conflict):
    """Another model became champion after the comparison, so its outcome says nothing about the present one."""

    code = "retraining_outdated"


class NothingToLearn(Conflict):
    """There are too few labels to train or to test a model."""

    code = "nothing_to_learn"


class SuspectNotFound(NotFound):
    """No label in question has this id."""

    code = "suspect_not_found"


class LabelNotChangeable(Conflict):
    """The label of this sample is not changed here, but where it was given."""

    code = "label_not_changeable"
