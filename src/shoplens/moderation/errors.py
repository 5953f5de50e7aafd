"""What can go wrong in moderation."""

from __future__ import annotations

from shoplens.errors import RequestInvalid


class PolicyInvalid(RequestInvalid):
    """A policy that makes no sense; the sentence names the place."""

    code = "policy_invalid"
