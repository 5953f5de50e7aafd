"""Build moderation from the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from shoplens.accounts.audit import AuditLog
from shoplens.batch.executors import ResultBuilder, RetryPolicy, WorkLimits
from shoplens.db import Database
from shoplens.images.copies import CopyQueue
from shoplens.images.picture import Limits
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.moderation.channel import ModerationChannel
from shoplens.moderation.files import PhotoFiles
from shoplens.moderation.intake.assessment import PhotoAssessor
from shoplens.moderation.intake.bulk import ModerationExecutor, PatientEngine
from shoplens.moderation.intake.memory import HashMemory
from shoplens.moderation.intake.service import PhotoIntake
from shoplens.moderation.intake.signals import resolve_groups, signal_names
from shoplens.moderation.media import MediaService
from shoplens.moderation.photos import PhotoService
from shoplens.moderation.policy.dry_run import DryRunService
from shoplens.moderation.policy.entities import Band, ModerationPolicy, usual_bands
from shoplens.moderation.policy.service import PolicyService
from shoplens.moderation.previews import PreviewLinks
from shoplens.moderation.queue.context import ContextService
from shoplens.moderation.queue.heatmap import HeatMaps
from shoplens.moderation.queue.review import PhotoReview
from shoplens.moderation.queue.service import PhotoQueue, QueueRules
from shoplens.moderation.reasons import DEFAULT_REASONS, Reason
from shoplens.moderation.service import Moderation
from shoplens.platform.parts import build_channels, build_database, build_limits, build_sandbox, find_bundle, utc_now
from shoplens.predictions.entities import Channel
from shoplens.registry.shadow import Offer, offer_nothing
from shoplens.serving.engine import Engine
from shoplens.setting_groups import ChannelModerationSettings
from shoplens.settings import Settings
from shoplens.storage import Store
from shoplens.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class ModerationParts:
    """What moderation is built on. `writing` is a database with a connection for one more writer."""

    engine: Engine
    database: Database
    writing: Database
    store: Store
    limits: Limits
    sandbox: SandboxedDecoder
    audit: AuditLog
    metrics: Metrics
    answered: Offer = offer_nothing


def build_moderation(settings: Settings, channels: Mapping[str, Channel], parts: ModerationParts) -> Moderation:
    """The moderation of all channels that have such a side. Raises Misconfigured."""
    moderated = build_moderated(settings, channels, parts.engine.labels)
    database = parts.database
    policies = build_policies(moderated, database=database, audit=parts.audit)
    rules = _RulesInUse(
        {name: _queue_rules(each.moderation) for name, each in settings.channels.items() if each.moderation}, policies
    )
    memory = HashMemory(database)
    assessor = PhotoAssessor(
        engine=parts.engine,
        database=database,
        memory=memory,
        clock=utc_now,
        policy_of=policies.current,
        limits=parts.limits,
        sandbox=parts.sandbox,
        timeout_s=settings.deadline_s / 2,
    )
    return Moderation(
        channels=moderated,
        intake=PhotoIntake(
            assessor=assessor,
            database=database,
            writing=parts.writing,
            files=PhotoFiles(parts.store),
            clock=utc_now,
            metrics=parts.metrics,
            queue_limit=4 * settings.queue_limit,
            answered=parts.answered,
        ),
        photos=PhotoService(database),
        media=MediaService(database, parts.store, limits=parts.limits, sandbox=parts.sandbox, copies=CopyQueue()),
        previews=PreviewLinks(database, minutes=settings.preview_minutes, clock=utc_now),
        heat_maps=HeatMaps(
            PhotoFiles(parts.store),
            channels=moderated,
            find_bundle=lambda name: find_bundle(name, settings),
            limits=parts.limits,
            sandbox=parts.sandbox,
        ),
        queue=PhotoQueue(database, rules=rules, clock=utc_now),
        review=PhotoReview(database, rules=rules, clock=utc_now),
        context=ContextService(
            database,
            memory,
            policy_of=policies.current,
            own_appeals=lambda name: rules[name].appeals_by_same_person,
            clock=utc_now,
        ),
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


@contextmanager
def open_policies(settings: Settings) -> Iterator[tuple[PolicyService, DryRunService]]:
    """Policies and their dry run over a database of their own, for a command. No model is loaded.

    Raises Misconfigured, ModelNotFound, BundleError and DatabaseUnavailable.
    """
    moderated = build_moderated(settings, build_channels(settings), partial(_bundle_labels, settings))
    with closing(build_database(settings)) as database:
        policies = build_policies(moderated, database=database, audit=AuditLog(database, clock=utc_now))
        yield policies, DryRunService(database, policies)


def _bundle_labels(settings: Settings, model: str) -> tuple[str, ...]:
    return tuple(label.name for label in find_bundle(model, settings).labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What runs of a channel with a moderation side work with."""

    channel: ModerationChannel
    policies: PolicyService
    database: Database

    def policy_version(self) -> str:
        """The policy that applies now."""
        return self.policies.current(self.channel.name).version

    def executor(
        self,
        settings: Settings,
        engine: Engine,
        store: Store,
        *,
        results: ResultBuilder,
        limits: WorkLimits,
        retry: RetryPolicy,
    ) -> ModerationExecutor:
        """An executor of one run; it closes the engine."""
        patient = PatientEngine(engine, retry)
        assessor = PhotoAssessor(
            engine=patient,
            database=self.database,
            memory=HashMemory(self.database),
            clock=utc_now,
            policy_of=self.policies.current,
            limits=build_limits(settings),
            sandbox=build_sandbox(settings),
            timeout_s=limits.timeout_s,
        )
        return ModerationExecutor(
            patient,
            assessor,
            channel=self.channel,
            store=store,
            results=results,
            limits=limits,
            retry=retry,
            clock=utc_now,
        )


def build_backlog(
    settings: Settings, channel: Channel, wanted: ChannelModerationSettings, *, database: Database
) -> Backlog:
    """For the runs of one channel. Raises Misconfigured, ModelNotFound and BundleError."""
    moderated = build_channel(channel, wanted, partial(_bundle_labels, settings))
    audit = AuditLog(database, clock=utc_now)
    policies = build_policies({channel.name: moderated}, database=database, audit=audit)
    return Backlog(channel=moderated, policies=policies, database=database)


def build_moderated(
    settings: Settings, channels: Mapping[str, Channel], labels: Callable[[str], tuple[str, ...]]
) -> dict[str, ModerationChannel]:
    """The channels with a moderation side; `labels` are those of a model. Raises Misconfigured."""
    return {
        name: build_channel(channels[name], each.moderation, labels)
        for name, each in settings.channels.items()
        if each.moderation is not None
    }


def build_channel(
    channel: Channel, settings: ChannelModerationSettings, labels: Callable[[str], tuple[str, ...]]
) -> ModerationChannel:
    """The moderation side of a channel; `labels` are those of a model. Raises Misconfigured for an unknown label."""
    general = () if settings.general_model is None else labels(settings.general_model)
    groups = resolve_groups(channel.name, settings.groups, general)
    bands = [
        Band(signal=rule.label, review_at=rule.review_at, reject_at=rule.reject_at) for rule in channel.policy.rules
    ]
    signals = signal_names(labels(channel.model), groups, [band.signal for band in bands])
    return ModerationChannel(
        name=channel.name,
        title=channel.title,
        model=channel.model,
        general_model=settings.general_model,
        groups=groups,
        signals=signals,
        reasons=refusal_reasons(settings),
        default_policy=ModerationPolicy(
            bands=usual_bands(bands, signals),
            second_opinion_share=settings.second_opinion_share,
            hide_after_reports=settings.hide_after_reports,
        ),
        audit_share=channel.policy.audit_share,
    )


def refusal_reasons(settings: ChannelModerationSettings) -> tuple[Reason, ...]:
    """The reasons of a channel: those of its settings, or the default ones."""
    own = tuple(Reason(code=each.code, sentence=each.sentence, label=each.label) for each in settings.reasons)
    return own or DEFAULT_REASONS


def _queue_rules(settings: ChannelModerationSettings) -> QueueRules:
    return QueueRules(
        reasons=refusal_reasons(settings),
        pause_after=settings.pause_after,
        hard_signal=settings.hard_signal,
        hard_at=settings.hard_at,
        appeals_by_same_person=settings.appeals_by_same_person,
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
