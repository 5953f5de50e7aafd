"""Moderation as the API, the pages and the commands need it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from shoplens.errors import RequestInvalid
from shoplens.moderation.channel import ModerationChannel
from shoplens.moderation.intake.service import PhotoIntake
from shoplens.moderation.media import MediaService
from shoplens.moderation.photos import PhotoService
from shoplens.moderation.policy.dry_run import DryRunService
from shoplens.moderation.policy.entities import ModerationPolicy
from shoplens.moderation.policy.service import PolicyService
from shoplens.moderation.previews import PreviewLinks
from shoplens.moderation.queue.context import ContextService
from shoplens.moderation.queue.heatmap import HeatMaps
from shoplens.moderation.queue.review import PhotoReview
from shoplens.moderation.queue.service import PhotoQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class Moderation:
    """The use cases of moderation. `policy_of` gives the policy of a channel that applies now."""

    channels: Mapping[str, ModerationChannel]
    intake: PhotoIntake
    photos: PhotoService
    media: MediaService
    previews: PreviewLinks
    heat_maps: HeatMaps
    queue: PhotoQueue
    review: PhotoReview
    context: ContextService
    policy_of: Callable[[str], ModerationPolicy]
    policies: PolicyService
    dry_run: DryRunService

    def channel(self, name: str | None = None) -> ModerationChannel:
        """The channel of this name; without a name the only one there is. Raises RequestInvalid."""
        if name is None and len(self.channels) == 1:
            return next(iter(self.channels.values()))
        if name is not None and name in self.channels:
            return self.channels[name]
        known = ", ".join(sorted(self.channels)) or "none"
        if name is None:
            raise RequestInvalid(f"Name a channel. Channels with a moderation side: {known}.")
        raise RequestInvalid(f"The channel {name[:80]!r} has no moderation side. Channels with one: {known}.")

    def close(self) -> None:
        """Finish what was accepted and release everything. Blocks."""
        self.intake.close()
