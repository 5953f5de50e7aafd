"""Build what watches the server from the settings."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from shoplens.db import Database
from shoplens.db.database import parse_url, require_directory
from shoplens.monitoring.recorder import Kept, Recorder
from shoplens.monitoring.server_state import LookAtServer
from shoplens.platform.parts import utc_now
from shoplens.settings import Settings
from shoplens.telemetry.metrics import Metrics


def build_recorder(settings: Settings, database: Database, metrics: Metrics) -> Recorder:
    """What writes the figures of this process down. Start it, unless `monitoring.record` is off."""
    storage = _local_folder(settings.effective_storage_url)
    file = require_directory(parse_url(settings.effective_database_url))
    wanted = settings.monitoring
    return Recorder(
        metrics,
        database,
        look=LookAtServer(
            metrics,
            database,
            storage=storage,
            folders=[each for each in (storage, file and file.parent) if each is not None],
            has_workers=settings.redis_url is not None,
        ),
        kept=Kept(minutes_hours=wanted.minutes_hours, hours_days=wanted.hours_days, days=wanted.days),
        clock=utc_now,
    )


def _local_folder(url: str) -> Path | None:
    """The folder of a local store; None for one elsewhere."""
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        return Path(url2pathname(parts.path))
    return None
