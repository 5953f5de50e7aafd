"""Build moderation from the settings."""

from __future__ import annotations

from collections.abc import Mapping

from shoplens.db import Database
from shoplens.moderation.photos import PhotoService
from shoplens.moderation.policy import Band, ModerationPolicy
from shoplens.moderation.service import Moderation, ModerationChannel
from shoplens.predictions.entities import Channel
from shoplens.settings import ChannelModerationSettings, Settings


def build_moderation(settings: Settings, channels: Mapping[str, Channel], *, database: Database) -> Moderation:
    """The moderation of all channels that have such a side. Raises Misconfigured."""
    moderated = {
        name: _channel(channels[name], each.moderation)
        for name, each in settings.channels.items()
        if each.moderation is not None
    }
    return Moderation(
        channels=moderated,
        photos=PhotoService(database),
        policy_of=lambda name: moderated[name].default_policy,
    )


def _channel(channel: Channel, settings: ChannelModerationSettings) -> ModerationChannel:
    return ModerationChannel(
        name=channel.name,
        title=channel.title,
        model=channel.model,
        general_model=settings.general_model,
        groups={name: tuple(labels) for name, labels in settings.groups.items()},
        default_policy=ModerationPolicy(
            bands=tuple(
                Band(signal=rule.label, review_at=rule.review_at, reject_at=rule.reject_at)
                for rule in channel.policy.rules
            )
        ),
    )
