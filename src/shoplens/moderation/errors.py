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


class NotRefused(Conflict):
    """The photo is not refused, or deleted: there is no statement of reasons, and nothing to appeal against."""

    code = "photo_not_refused"


class AppealExists(Conflict):
    """The shopper has appealed against this refusal before."""

    code = "appeal_exists"


class AppealNotFound(NotFound):
    """There is no such appeal that waits for a decision."""

    code = "appeal_not_found"


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
