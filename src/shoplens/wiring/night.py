"""Build a night of returns from the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from shoplens.db import Database
from shoplens.domain.channel import Channel
from shoplens.errors import Misconfigured
from shoplens.inference.engine import Engine
from shoplens.inference.session import choose_provider
from shoplens.services.photos import PhotoShelf
from shoplens.services.returns.crew import Crew, EngineCrew
from shoplens.services.returns.examine import ItemRules
from shoplens.services.returns.night import Night, NightParts, NightRules
from shoplens.services.returns.patience import Patience
from shoplens.services.returns.shift import Bounds
from shoplens.settings import Settings
from shoplens.storage import Store, open_store
from shoplens.telemetry.metrics import Metrics
from shoplens.wiring.local import Progress, build_engine, build_isolation, build_limits, workers_of
from shoplens.wiring.platform import build_database, returns_channel, utc_now
from shoplens.wiring.returns import build_results

NightEngine = Literal["local", "workers", "ray"]

_PHOTOS_PER_WORKER = 6
_PHOTOS_BEING_READ = 16


@contextmanager
def build_night(
    settings: Settings, *, engine: NightEngine = "local", address: str | None = None, progress: Progress | None = None
) -> Iterator[Night]:
    """A night, ready to be called. Waits for a database or a store that is away as long as the night itself would.

    `engine` says where models run: in this process, in workers behind Redis, or on the Ray cluster at `address`.
    Raises Misconfigured, DatabaseUnavailable and StorageUnavailable.
    """
    channel = returns_channel(settings, settings.channel_values())
    patience = Patience(settings.returns.patience_s)
    database = patience(lambda: build_database(settings, durable=True))
    try:
        store = patience(lambda: open_store(settings.effective_storage_url, setting="storage_url"))
        parts = NightParts(
            database=database,
            store=store,
            channel=channel,
            open_crew=lambda: _crew(settings, channel, store, engine=engine, address=address, progress=progress),
            report=_report(settings, database, store),
            clock=utc_now,
        )
        yield Night(parts, night_rules(settings, engine))
    finally:
        database.close()


def night_rules(settings: Settings, engine: NightEngine = "local") -> NightRules:
    """The bounds of a night: enough photos in work that no worker ever waits for one to be read."""
    photos = settings.queue_limit // 2 if engine == "workers" else _photos_in_work(settings)
    wanted = settings.returns
    return NightRules(
        items=ItemRules(
            max_attempts=wanted.max_attempts, timeout_s=wanted.stall_after_s, limits=build_limits(settings)
        ),
        bounds=Bounds(batch=wanted.batch, photos=max(1, photos), photo_bytes=settings.max_queued_bytes),
        patience_s=wanted.patience_s,
        takeover_s=wanted.takeover_s,
        stall_after_s=wanted.stall_after_s,
    )


def _photos_in_work(settings: Settings) -> int:
    return _PHOTOS_PER_WORKER * workers_of(settings, choose_provider(settings.provider)) + _PHOTOS_BEING_READ


def _crew(
    settings: Settings,
    channel: Channel,
    store: Store,
    *,
    engine: NightEngine,
    address: str | None,
    progress: Progress | None,
) -> Crew:
    if engine == "ray":
        from shoplens.wiring.cluster import build_cluster_crew

        return build_cluster_crew(settings, channel, store, address=address)
    if engine == "workers":
        return _workers_crew(settings, channel)
    return EngineCrew(_night_engine(settings, channel, progress))


def _workers_crew(settings: Settings, channel: Channel) -> Crew:
    """Workers behind Redis, which take the night's photos when nobody waits for an answer."""
    if settings.redis_url is None:
        raise Misconfigured("A night with --engine workers sends its photos through Redis: set redis_url.")
    from shoplens.wiring.workers import build_night_engine

    return EngineCrew(build_night_engine(settings, channel))


def _night_engine(settings: Settings, channel: Channel, progress: Progress | None) -> Engine:
    """An engine for one channel, whose queue the night can never fill."""
    roomy = settings.model_copy(update={"queue_limit": 2 * _photos_in_work(settings)})
    return build_engine(
        roomy, {channel.name: channel}, metrics=Metrics(), isolation=build_isolation(settings), progress=progress
    )


def _report(settings: Settings, database: Database, store: Store) -> Callable[[str], str]:
    shelf = PhotoShelf(store, limits=build_limits(settings), isolation=build_isolation(settings))
    return build_results(database=database, store=store, shelf=shelf).report
