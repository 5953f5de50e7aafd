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


class PhotoClaimed(Conflict):
    """Somebody else looks at the photo now."""

    code = "photo_claimed"


class AnotherPersonDecides(Conflict):
    """The photo waits for another person than the one who decided on it before."""

    code = "another_person_decides"


class NothingToUndo(Conflict):
    """The person has no such decision among the last ones."""

    code = "nothing_to_undo"


class PolicyVersionNotFound(NotFound):
    """The policy of this channel has no such version."""

    code = "policy_version_not_found"


class PolicyChanged(Conflict):
    """Somebody else saved another version of the policy since it was read."""

    code = "policy_changed"


class IdempotencyKeyReused(Conflict):
    """Another request was sent with the same Idempotency-Key before."""

    code = "idempotency_key_reused"
