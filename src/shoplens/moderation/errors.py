"""What can go wrong in moderation."""

from __future__ import annotations

from shoplens.errors import Conflict, NotFound, RequestInvalid


class PolicyInvalid(RequestInvalid):
    """A policy that makes no sense; the sentence names the place."""

    code = "policy_invalid"


class PhotoNotFound(NotFound):
    """No photo of moderation has this id."""

    code = "photo_not_found"


class PhotoChanged(Conflict):
    """Somebody else decided or changed the photo since it was read."""

    code = "photo_changed"
