"""Build moderation from the settings."""

from __future__ import annotations

from collections.abc import Mapping

from shoplens.db import Database
from shoplens.moderation.photos import PhotoService
from shoplens.moderation.policy import Band, ModerationPolicy
from shoplens.moderation.queue import PhotoQueue, QueueRules
from shoplens.moderation.reasons import DEFAULT_REASONS, Reason
from shoplens.moderation.review import PhotoReview
from shoplens.moderation.service import Moderation, ModerationChannel
from shoplens.platform.parts import utc_now
from shoplens.predictions.entities import Channel
from shoplens.setting_groups import ChannelModerationSettings
from shoplens.settings import Settings


def build_moderation(settings: Settings, channels: Mapping[str, Channel], *, database: Database) -> Moderation:
    """The moderation of all channels that have such a side. Raises Misconfigured."""
    moderated = {
        name: _channel(channels[name], each.moderation)
        for name, each in settings.channels.items()
        if each.moderation is not None
    }
    rules = {name: _queue_rules(each.moderation) for name, each in settings.channels.items() if each.moderation}
    return Moderation(
        channels=moderated,
        photos=PhotoService(database),
        queue=PhotoQueue(database, rules=rules, clock=utc_now),
        review=PhotoReview(database, rules=rules, clock=utc_now),
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


def _queue_rules(settings: ChannelModerationSettings) -> QueueRules:
    own = tuple(Reason(code=each.code, sentence=each.sentence, label=each.label) for each in settings.reasons)
    return QueueRules(
        reasons=own or DEFAULT_REASONS,
        second_opinion_share=settings.second_opinion_share,
        hide_after_reports=settings.hide_after_reports,
        pause_after=settings.pause_after,
        hard_signal=settings.hard_signal,
        hard_at=settings.hard_at,
    )
