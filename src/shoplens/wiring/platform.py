"""Build the platform once from the settings: what every edge shares, and the models that answer at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shoplens.db import Database, GroupWriter, open_database, upgrade
from shoplens.domain.channel import Channel
from shoplens.errors import Misconfigured
from shoplens.imaging import IsolatedDecoder
from shoplens.inference.classifier import Classifier
from shoplens.inference.engine import Engine
from shoplens.inference.local import LocalEngine
from shoplens.inference.photo_classifier import PhotoClassifier
from shoplens.inference.session import choose_provider
from shoplens.services.browse import BrowseRecords
from shoplens.services.classify import ClassifyPhoto
from shoplens.services.export import ExportTables
from shoplens.services.feedback import GiveFeedback
from shoplens.services.health import CheckHealth, in_thread
from shoplens.services.models import DescribeModels
from shoplens.services.photos import PhotoShelf
from shoplens.services.returns.figures import ReturnsFigures
from shoplens.services.returns.standing import ShowReturns
from shoplens.settings import Settings, read_settings
from shoplens.storage import open_store
from shoplens.telemetry.metrics import Metrics
from shoplens.wiring.local import Progress, build_engine, build_isolation, build_limits
from shoplens.wiring.models import find_bundle
from shoplens.wiring.returns import MovedPhotos, Returns, build_returns

if TYPE_CHECKING:
    from shoplens.inference.remote.engine import RemoteEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class WebLimits:
    """What the HTTP edge refuses by itself."""

    allowed_hosts: tuple[str, ...]
    max_image_bytes: int
    max_queued_bytes: int
    deadline_s: float
    upload_timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """The use cases, ready to be called, and what the edges need beside them."""

    classify: ClassifyPhoto
    browse: BrowseRecords
    photos: PhotoShelf
    feedback: GiveFeedback
    export: ExportTables
    models: DescribeModels
    returns: Returns
    health: CheckHealth
    metrics: Metrics
    channels: Mapping[str, Channel]
    default_channel: str
    limits: WebLimits
    engine: Engine
    database: Database
    writer: GroupWriter

    async def close(self) -> None:
        """Finish what was accepted, in the order in which it flows, and release everything."""
        await asyncio.to_thread(self.returns.close)
        await self.engine.close()
        self.classify.close()
        self.writer.close()
        self.database.close()


def build_platform(settings: Settings, *, progress: Progress | None = None) -> Platform:
    """Open the database (migrated on the embedded default), the store and the models, all warm.

    With `redis_url` the models are in workers instead, which need not be there yet.

    Raises Misconfigured, BundleError, ModelNotFound, DatabaseUnavailable, StorageUnavailable and QueueUnavailable.
    """
    channels = settings.channel_values()
    metrics = Metrics()
    database = build_database(settings)
    isolation = build_isolation(settings)
    limits = build_limits(settings)
    engine = _engine(settings, channels, metrics=metrics, isolation=isolation, progress=progress)
    store = open_store(settings.effective_storage_url, setting="storage_url")
    shelf = PhotoShelf(store, limits=limits, isolation=isolation, elsewhere=MovedPhotos(database))
    metrics.before_scrape(ReturnsFigures(build_standing(settings, database), metrics))
    writer = GroupWriter(database, queue_limit=4 * settings.queue_limit)
    return Platform(
        classify=ClassifyPhoto(
            engine=engine,
            channels=channels,
            default_channel=settings.default_channel,
            shelf=shelf,
            writer=writer,
            clock=utc_now,
            metrics=metrics,
        ),
        browse=BrowseRecords(database),
        photos=shelf,
        feedback=GiveFeedback(database, clock=utc_now, metrics=metrics),
        export=ExportTables(database),
        models=DescribeModels(engine=engine, channels=channels, models_dir=settings.effective_models_dir),
        returns=build_returns(
            settings,
            database=database,
            store=store,
            shelf=shelf,
            labels=engine.labels(returns_channel(settings, channels).model),
        ),
        health=CheckHealth(
            {"engine": engine.check, "database": in_thread(database.check), "storage": in_thread(shelf.check)}
        ),
        metrics=metrics,
        channels=channels,
        default_channel=settings.default_channel,
        limits=_web_limits(settings),
        engine=engine,
        database=database,
        writer=writer,
    )


def _engine(
    settings: Settings,
    channels: Mapping[str, Channel],
    *,
    metrics: Metrics,
    isolation: IsolatedDecoder,
    progress: Progress | None,
) -> LocalEngine | RemoteEngine:
    if settings.redis_url is None:
        return build_engine(settings, channels, metrics=metrics, isolation=isolation, progress=progress)
    from shoplens.wiring.workers import build_remote_engine

    return build_remote_engine(settings, channels, metrics=metrics)


def load_bundle(name_or_path: str, *, settings: Settings | None = None) -> PhotoClassifier:
    """A bundle by name, `name@version` or folder, ready to classify photos in plain calls.

    Raises ModelNotFound and BundleError.
    """
    settings = settings or read_settings()
    bundle = find_bundle(name_or_path, settings)
    classifier = Classifier(bundle, provider=choose_provider(settings.provider))
    return PhotoClassifier(classifier, limits=build_limits(settings), isolation=build_isolation(settings))


def build_database(settings: Settings, *, durable: bool = False) -> Database:
    """The database, migrated on the embedded default. `durable` asks for commits that survive a loss of power.

    Raises Misconfigured and DatabaseUnavailable.
    """
    url = settings.effective_database_url
    if settings.database_url is None:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        upgrade(url)
    full = durable or settings.database_durability == "power"
    return open_database(url, synchronous="FULL" if full else "NORMAL", pool=settings.database_pool)


def build_standing(settings: Settings, database: Database) -> ShowReturns:
    """What tells how returns stand."""
    return ShowReturns(database, clock=utc_now, takeover_s=settings.returns.takeover_s)


def returns_channel(settings: Settings, channels: Mapping[str, Channel]) -> Channel:
    """The channel that decides about returned goods. Raises Misconfigured."""
    if settings.returns.channel not in channels:
        known = ", ".join(sorted(channels))
        raise Misconfigured(f"returns.channel is {settings.returns.channel!r}, but the channels are: {known}.")
    return channels[settings.returns.channel]


def _web_limits(settings: Settings) -> WebLimits:
    return WebLimits(
        allowed_hosts=settings.allowed_hosts,
        max_image_bytes=settings.max_image_bytes,
        max_queued_bytes=settings.max_queued_bytes,
        deadline_s=settings.deadline_s,
        upload_timeout_s=settings.upload_timeout_s,
    )


def utc_now() -> datetime:
    """The clock of every part."""
    return datetime.now(UTC)
