"""Build moderation from the settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from shoplens.accounts.audit import AuditLog
from shoplens.db import Database
from shoplens.moderation.context import ContextService
from shoplens.moderation.dry_run import DryRunService
from shoplens.moderation.photos import PhotoService
from shoplens.moderation.policies import PolicyService
from shoplens.moderation.policy import QUALITY_SIGNALS, Band, ModerationPolicy, usual_bands
from shoplens.moderation.queue import PhotoQueue, QueueRules
from shoplens.moderation.reasons import DEFAULT_REASONS, Reason
from shoplens.moderation.review import PhotoReview
from shoplens.moderation.service import Moderation, ModerationChannel
from shoplens.platform.parts import utc_now
from shoplens.predictions.entities import Channel
from shoplens.setting_groups import ChannelModerationSettings
from shoplens.settings import Settings


def build_moderation(
    settings: Settings, channels: Mapping[str, Channel], *, database: Database, audit: AuditLog
) -> Moderation:
    """The moderation of all channels that have such a side. Raises Misconfigured."""
    moderated = {
        name: _channel(channels[name], each.moderation)
        for name, each in settings.channels.items()
        if each.moderation is not None
    }
    policies = build_policies(moderated, database=database, audit=audit)
    rules = _RulesInUse(
        {name: _queue_rules(each.moderation) for name, each in settings.channels.items() if each.moderation}, policies
    )
    return Moderation(
        channels=moderated,
        photos=PhotoService(database),
        queue=PhotoQueue(database, rules=rules, clock=utc_now),
        review=PhotoReview(database, rules=rules, clock=utc_now),
        context=ContextService(database, policy_of=policies.current, clock=utc_now),
        policy_of=policies.current,
        policies=policies,
        dry_run=DryRunService(database, policies),
    )


def build_policies(channels: Mapping[str, ModerationChannel], *, database: Database, audit: AuditLog) -> PolicyService:
    """The policies of these channels."""
    return PolicyService(
        database,
        defaults={name: each.default_policy for name, each in channels.items()},
        signals={name: each.signals for name, each in channels.items()},
        clock=utc_now,
        audit=audit,
    )


def _channel(channel: Channel, settings: ChannelModerationSettings) -> ModerationChannel:
    bands = [
        Band(signal=rule.label, review_at=rule.review_at, reject_at=rule.reject_at) for rule in channel.policy.rules
    ]
    signals = {*(band.signal for band in bands), *settings.groups, *QUALITY_SIGNALS}
    return ModerationChannel(
        name=channel.name,
        title=channel.title,
        model=channel.model,
        general_model=settings.general_model,
        groups={name: tuple(labels) for name, labels in settings.groups.items()},
        signals=tuple(sorted(signals)),
        default_policy=ModerationPolicy(
            bands=usual_bands(bands, signals),
            second_opinion_share=settings.second_opinion_share,
            hide_after_reports=settings.hide_after_reports,
        ),
    )


def _queue_rules(settings: ChannelModerationSettings) -> QueueRules:
    own = tuple(Reason(code=each.code, sentence=each.sentence, label=each.label) for each in settings.reasons)
    return QueueRules(
        reasons=own or DEFAULT_REASONS,
        pause_after=settings.pause_after,
        hard_signal=settings.hard_signal,
        hard_at=settings.hard_at,
    )


class _RulesInUse(Mapping[str, QueueRules]):
    """The rules for people by channel: those of the settings, and in them what the policy that applies now says."""

    def __init__(self, rules: Mapping[str, QueueRules], policies: PolicyService) -> None:
        self._rules = rules
        self._policies = policies

    def __getitem__(self, channel: str) -> QueueRules:
        rules, policy = self._rules[channel], self._policies.current(channel)
        return replace(
            rules,
            second_opinion_share=policy.second_opinion_share,
            hide_after_reports=policy.hide_after_reports,
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._rules)

    def __len__(self) -> int:
        return len(self._rules)
