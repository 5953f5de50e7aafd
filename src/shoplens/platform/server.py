"""Build everything that a web server offers, once, from the settings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Self

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.keys import KeyService
from shoplens.accounts.limits import RateLimits
from shoplens.accounts.principals import Principals
from shoplens.batch.files import MovedPhotos
from shoplens.batch.review_repository import find_references, owned_predictions
from shoplens.batch.service import Batch
from shoplens.batch.status import StatusMetrics
from shoplens.batch.web_photos import WebPhotos
from shoplens.catalogue.service import Catalogue
from shoplens.configuration.view import Configuration, LiveChannel
from shoplens.db import Database, GroupWriter
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.moderation.service import Moderation
from shoplens.platform.accounts import Accounts, build_accounts
from shoplens.platform.alerts import Alerts, build_alerts
from shoplens.platform.batch import build_batch, read_statuses
from shoplens.platform.catalogue import CatalogueParts, build_catalogue
from shoplens.platform.configuration import build_configuration, build_thresholds
from shoplens.platform.consequences import Consequences, build_consequences
from shoplens.platform.drift import DriftWatch, build_drift_watch
from shoplens.platform.live import follow_here, follow_workers
from shoplens.platform.mail import Mails, build_mails
from shoplens.platform.moderation import ModerationParts, build_moderation
from shoplens.platform.monitoring import Monitoring, build_monitoring
from shoplens.platform.parts import (
    Progress,
    build_channels,
    build_database,
    build_engine,
    build_limits,
    build_sandbox,
    utc_now,
)
from shoplens.platform.registry import build_registry
from shoplens.platform.retention import all_due, build_record_retention
from shoplens.platform.retraining import build_retraining, build_shadow_job, build_starter, build_suspects
from shoplens.platform.webhooks import build_sender, build_webhooks
from shoplens.predictions.deletion import DeletionService
from shoplens.predictions.entities import Channel, PredictionRecord, label_names
from shoplens.predictions.export import ExportTables
from shoplens.predictions.image_store import ImageStore
from shoplens.predictions.photo_urls import PhotoUrls
from shoplens.predictions.records import RecordService
from shoplens.predictions.removal import Removal
from shoplens.predictions.repository import add_records
from shoplens.predictions.retention import RetentionJob
from shoplens.predictions.search import RecordSearch
from shoplens.predictions.service import PredictionService
from shoplens.predictions.similar import SimilarPhotos
from shoplens.predictions.views import SavedViews
from shoplens.registry.live import ModelFollower
from shoplens.registry.publishing import RegistryService
from shoplens.registry.service import ModelService
from shoplens.registry.shadow import ShadowService
from shoplens.retraining.service import RetrainingService
from shoplens.retraining.shadow_job import ShadowJob
from shoplens.retraining.starting import RetrainingStarter
from shoplens.retraining.suspects import SuspectService
from shoplens.serving.engine import Engine
from shoplens.settings import Settings
from shoplens.storage import open_store
from shoplens.telemetry.metrics import Metrics
from shoplens.webhooks.sender import WebhookSender
from shoplens.webhooks.service import WebhookService


@dataclass(frozen=True, slots=True, kw_only=True)
class WebLimits:
    """What requests are refused for before any use case is called."""

    allowed_hosts: tuple[str, ...]
    max_image_bytes: int
    max_queued_bytes: int
    deadline_s: float
    upload_idle_s: float
    upload_least_rate: float
    uploads_per_minute: int | None
    metrics_open_to: tuple[str, ...]
    media_max_age_s: int
    language: str

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those settings that have the same names."""
        return cls(**{each.name: getattr(settings, each.name) for each in fields(cls)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """The use cases, ready to be called, and what the edges need beside them."""

    predictions: PredictionService
    photo_urls: PhotoUrls
    records: RecordService
    similar: SimilarPhotos
    views: SavedViews
    deletion: DeletionService
    retention: RetentionJob
    images: ImageStore
    export: ExportTables
    models: ModelService
    registry: RegistryService
    retraining: RetrainingService
    retrainings: RetrainingStarter
    shadow_times: ShadowJob
    suspects: SuspectService
    batch: Batch
    accounts: Accounts
    moderation: Moderation
    consequences: Consequences
    catalogue: Catalogue
    configuration: Configuration
    webhooks: WebhookService
    sender: WebhookSender
    probes: Mapping[str, Callable[[], Awaitable[None]]]
    metrics: Metrics
    monitoring: Monitoring
    watch: DriftWatch
    alerts: Alerts
    mails: Mails
    channels: Mapping[str, Channel]
    console_channel: str
    limits: WebLimits
    engine: Engine
    follower: ModelFollower
    shadow: ShadowService
    principals: Principals
    keys: KeyService
    audit: AuditLog
    database: Database
    writing: Database
    writer: GroupWriter[PredictionRecord]

    async def close(self) -> None:
        """Finish what was accepted, in the order in which it flows, and release everything."""
        await asyncio.to_thread(self.batch.close)
        await asyncio.to_thread(self.consequences.retention.close)
        await asyncio.to_thread(self.retention.close)
        await asyncio.to_thread(self.moderation.close)
        await asyncio.to_thread(self.catalogue.close)
        self.retrainings.close()
        await asyncio.to_thread(self.sender.close)
        await self.shadow.close()
        await asyncio.to_thread(self.shadow_times.close)
        await asyncio.to_thread(self.follower.close)
        await self.engine.close()
        self.predictions.close()
        await asyncio.to_thread(self.photo_urls.close)
        self.writer.close()
        if self.monitoring.recorder is not None:
            await asyncio.to_thread(self.monitoring.recorder.close)
        await asyncio.to_thread(self.watch.job.close)
        await asyncio.to_thread(self.alerts.watcher.close)
        await asyncio.to_thread(self.mails.sender.close)
        self.principals.close()
        self.writing.close()
        self.database.close()


def build_platform(settings: Settings, *, progress: Progress | None = None) -> Platform:
    """Open the database (migrated on the embedded default), the store and the models, all warm.

    With `redis_url` the models are in workers instead, which need not be there yet.

    Raises Misconfigured, BundleError, ModelNotFound, DatabaseUnavailable, StorageUnavailable and QueueUnavailable.
    """
    channels = build_channels(settings)
    metrics = Metrics()
    # The two writers have connections of their own: whatever reads cannot keep a photo's record from being committed.
    writers = 2 if settings.database_pool > 2 else 1
    database = build_database(settings, pool=max(1, settings.database_pool - writers))
    writing = build_database(settings, pool=writers)
    sandbox = build_sandbox(settings)
    limits = build_limits(settings)
    engine, follower = _engine(settings, channels, metrics=metrics, sandbox=sandbox, progress=progress)
    store = open_store(settings.effective_storage_url, setting="storage_url")
    images = ImageStore(store, limits=limits, sandbox=sandbox, moved_to=MovedPhotos(database))
    metrics.before_scrape(StatusMetrics(read_statuses(settings, database), metrics))
    writer = GroupWriter(writing, add_records, table="predictions", queue_limit=4 * settings.queue_limit)
    batch = build_batch(
        settings,
        database=database,
        store=store,
        images=images,
        labels=lambda name: engine.labels(channels[name].model),
    )
    audit = AuditLog(database, clock=utc_now)
    thresholds = build_thresholds(settings, channels, writing)
    shadow = ShadowService(
        engine=engine,
        challenger_of=follower.challenger,
        shares={name: each.shadow_share for name, each in settings.channels.items()},
        database=writing,
        clock=utc_now,
        metrics=metrics,
    )
    parts = ModerationParts(
        engine=engine,
        database=database,
        writing=writing,
        store=store,
        limits=limits,
        sandbox=sandbox,
        audit=audit,
        metrics=metrics,
        answered=shadow.offer,
    )
    search = RecordSearch(references=find_references, label_names=label_names(channels))
    records = RecordService(database, clock=utc_now, metrics=metrics, settle=batch.review.settle, search=search)
    keys = KeyService(database, audit, clock=utc_now)
    accounts = build_accounts(settings, database, audit)
    principals = Principals(
        any_people=accounts.people.any_people,
        session=accounts.sessions.principal_of,
        key=keys.recognise,
        limits=RateLimits(settings.redis_url, prefix=settings.redis_prefix),
    )
    accounts.sessions.on_change(principals.forget)
    moderation = build_moderation(settings, channels, parts)
    catalogue = build_catalogue(
        settings,
        channels,
        CatalogueParts(
            engine=engine,
            policy_of=thresholds.current,
            database=database,
            store=store,
            limits=limits,
            sandbox=sandbox,
            audit=audit,
            metrics=metrics,
            answered=shadow.offer,
        ),
    )
    consequences = build_consequences(settings, moderation, database=database, store=store, audit=audit)
    removal = Removal(database, store, owned=owned_predictions, labels=consequences.labels, audit=audit)
    retention = build_record_retention(settings, removal, store, metrics=metrics)
    monitoring = build_monitoring(settings, database, metrics, store=store, channels=channels, followed=follower.states)
    watch = build_drift_watch(
        settings,
        channels,
        database=database,
        store=store,
        images=images,
        metrics=metrics,
        policy_of=thresholds.current,
    )
    return Platform(
        predictions=PredictionService(
            engine=engine,
            channels=channels,
            default_channel=settings.default_channel,
            images=images,
            writer=writer,
            clock=utc_now,
            metrics=metrics,
            policies=thresholds,
            answered=shadow.offer_record,
        ),
        photo_urls=build_photo_urls(settings),
        records=records,
        similar=SimilarPhotos(database),
        views=SavedViews(database, clock=utc_now),
        deletion=DeletionService(removal, search=search),
        retention=retention,
        images=images,
        export=ExportTables(database),
        models=ModelService(
            engine=engine,
            channels=channels,
            models_dir=settings.effective_models_dir,
            followed=follower.states,
            compared=shadow.reports,
        ),
        registry=build_registry(settings, database, audit),
        retraining=build_retraining(settings, database, store),
        retrainings=build_starter(settings, database),
        shadow_times=build_shadow_job(settings, database, store),
        suspects=build_suspects(settings, database, audit, records, catalogue.decisions),
        batch=batch,
        accounts=accounts,
        configuration=build_configuration(
            settings,
            thresholds,
            database=database,
            live=lambda: {
                each.channel: LiveChannel(model=f"{each.model}@{each.version}", since=each.since)
                for each in monitoring.series.live.now()
            },
            labels=lambda name: engine.labels(channels[name].model),
            plan=batch.plan,
            due=lambda: all_due(retention, consequences.retention),
        ),
        webhooks=build_webhooks(settings, database),
        sender=build_sender(settings, database, metrics),
        moderation=moderation,
        consequences=consequences,
        catalogue=catalogue,
        probes={
            "engine": engine.check,
            "database": partial(asyncio.to_thread, database.check),
            "storage": partial(asyncio.to_thread, images.check),
        },
        metrics=metrics,
        monitoring=monitoring,
        watch=watch,
        alerts=build_alerts(
            settings,
            database,
            metrics,
            series=monitoring.series,
            accuracy=watch.accuracy,
            followed=follower.states,
        ),
        mails=build_mails(settings, database, metrics),
        channels=channels,
        console_channel=settings.console_channel if settings.console_channel in channels else settings.default_channel,
        limits=WebLimits.of(settings),
        engine=engine,
        follower=follower,
        shadow=shadow,
        principals=principals,
        keys=keys,
        audit=audit,
        database=database,
        writing=writing,
        writer=writer,
    )


def build_photo_urls(settings: Settings) -> PhotoUrls:
    """What fetches the photos that requests name by their addresses."""
    wanted = settings.photo_urls
    if not wanted.url_prefixes:
        return PhotoUrls(None)
    web = WebPhotos(
        wanted.url_prefixes,
        networks=wanted.url_networks,
        max_bytes=settings.max_image_bytes,
        time_limit_s=settings.deadline_s,
        setting="photo_urls.url_prefixes",
    )
    return PhotoUrls(web.read)


def _engine(
    settings: Settings,
    channels: Mapping[str, Channel],
    *,
    metrics: Metrics,
    sandbox: SandboxedDecoder,
    progress: Progress | None,
) -> tuple[Engine, ModelFollower]:
    """The engine, and what lets it follow the champions of its models."""
    if settings.redis_url is None:
        here = build_engine(settings, channels, metrics=metrics, sandbox=sandbox, progress=progress)
        return here, follow_here(settings, channels, here, metrics)
    from shoplens.platform.workers import build_redis_engine

    behind = build_redis_engine(settings, channels, metrics=metrics)
    return behind, follow_workers(settings, channels, behind, metrics)
