"""What can go wrong with label sets."""

from __future__ import annotations

from shoplens.errors import Conflict, NotFound


class LabelSetNotFound(NotFound):
    """The channel has no label set of this version."""

    code = "label_set_not_found"


class NothingLabelled(Conflict):
    """Nobody has labelled a sample of this channel, so there is nothing to put into a set."""

    code = "nothing_labelled"
