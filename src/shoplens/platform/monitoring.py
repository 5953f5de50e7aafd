"""Build what watches the server from the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from shoplens.db import Database, open_database
from shoplens.db.database import parse_url, require_directory
from shoplens.monitoring.series.recorder import Kept, Recorder
from shoplens.monitoring.series.server_state import LookAtServer, StoredSize, size_of_folder, size_of_objects
from shoplens.monitoring.series.service import LiveModels, MonitoringService
from shoplens.platform.parts import build_channels, open_registry, utc_now
from shoplens.predictions.entities import Channel
from shoplens.registry.live import FollowedModel
from shoplens.settings import Settings
from shoplens.storage import Store
from shoplens.storage.objects import BucketStore
from shoplens.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitoring:
    """What watches the server: the reader of the series, and what writes them, None where that is switched off."""

    series: MonitoringService
    recorder: Recorder | None
    prometheus_url: str | None
    grafana_url: str | None


def build_monitoring(
    settings: Settings,
    database: Database,
    metrics: Metrics,
    *,
    store: Store,
    channels: Mapping[str, Channel],
    followed: Callable[[], Sequence[FollowedModel]],
) -> Monitoring:
    """Start the recorder and close it with the server. Raises Misconfigured and StorageUnavailable."""
    live = LiveModels(channels, followed=followed, history=open_registry(settings).history)
    wanted = settings.monitoring
    return Monitoring(
        series=MonitoringService(database, channels, live, has_workers=settings.redis_url is not None, clock=utc_now),
        recorder=_build_recorder(settings, database, store, metrics, live) if wanted.record else None,
        prometheus_url=wanted.prometheus_url,
        grafana_url=wanted.grafana_url,
    )


@contextmanager
def open_monitoring(settings: Settings) -> Iterator[MonitoringService]:
    """The reader of the series for a command, without the registry. Raises Misconfigured and DatabaseUnavailable."""
    channels = build_channels(settings)
    live = LiveModels(channels, followed=tuple, history=lambda _: ())
    with closing(open_database(settings.effective_database_url)) as database:
        yield MonitoringService(database, channels, live, has_workers=settings.redis_url is not None, clock=utc_now)


def _build_recorder(
    settings: Settings, database: Database, store: Store, metrics: Metrics, live: LiveModels
) -> Recorder:
    storage = _local_folder(settings.effective_storage_url)
    file = require_directory(parse_url(settings.effective_database_url))
    wanted = settings.monitoring
    return Recorder(
        metrics,
        database,
        look=LookAtServer(
            metrics,
            database,
            storage=_stored_size(store, storage),
            folders=[each for each in (storage, file and file.parent) if each is not None],
            has_workers=settings.redis_url is not None,
        ),
        also=live.refresh,
        kept=Kept(minutes_hours=wanted.minutes_hours, hours_days=wanted.hours_days, days=wanted.days),
        clock=utc_now,
    )


def _stored_size(store: Store, folder: Path | None) -> StoredSize | None:
    if folder is not None:
        return size_of_folder(folder)
    return size_of_objects(store.sizes) if isinstance(store, BucketStore) else None


def _local_folder(url: str) -> Path | None:
    """The folder of a local store; None for one elsewhere."""
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        return Path(url2pathname(parts.path))
    return None
