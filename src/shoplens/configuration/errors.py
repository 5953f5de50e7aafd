"""What can be wrong with thresholds that somebody edits."""

from __future__ import annotations

from shoplens.errors import Conflict, NotFound, RequestInvalid


class ThresholdsInvalid(RequestInvalid):
    """Thresholds that contradict each other, or that cannot be edited here; the sentence names them."""

    code = "thresholds_invalid"


class ThresholdsChanged(Conflict):
    """Somebody else saved other thresholds of the channel since they were read."""

    code = "thresholds_changed"


class ThresholdVersionNotFound(NotFound):
    """The thresholds of this channel have no such version."""

    code = "threshold_version_not_found"
