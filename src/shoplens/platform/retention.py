"""Build what deletes records and photos whose days are over, in the channels that have a limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from shoplens.accounts.audit import AuditLog
from shoplens.batch.retention import RunPhotoRetention
from shoplens.batch.review_repository import owned_predictions
from shoplens.moderation.consequences.retention import RetentionService
from shoplens.platform.consequences import build_labels, build_retention
from shoplens.platform.parts import build_database, utc_now
from shoplens.predictions.removal import Removal
from shoplens.predictions.retention import Due, KeepDays, RecordRetention, RetentionJob
from shoplens.settings import Settings
from shoplens.storage import Store, open_store
from shoplens.telemetry.metrics import Metrics


def build_record_retention(
    settings: Settings, removal: Removal, store: Store, *, metrics: Metrics | None = None
) -> RetentionJob:
    """For single classifications and for runs. Nothing is deleted until it is started."""
    records = {
        name: KeepDays(photos=each.keep_photos_days, records=each.keep_records_days)
        for name, each in settings.channels.items()
    }
    runs = {
        name: each.batch.keep_photos_days
        for name, each in settings.channels.items()
        if each.batch is not None and each.moderation is None
    }
    features = (RecordRetention(removal, channels=records), RunPhotoRetention(removal, store, channels=runs))
    return RetentionJob(removal.database, features, clock=utc_now, metrics=metrics)


def all_due(records: RetentionJob, moderation: RetentionService) -> list[Due]:
    """What is due by every setting, in the order of the channels. Raises DatabaseUnavailable."""
    return sorted([*records.due(), *moderation.due()], key=lambda each: each.channel)


@contextmanager
def open_all_retention(settings: Settings) -> Iterator[tuple[RetentionJob, RetentionService]]:
    """For a command: that of records and runs, and that of moderation. Raises DatabaseUnavailable and
    StorageUnavailable.
    """
    with closing(build_database(settings)) as database:
        store = open_store(settings.effective_storage_url, setting="storage_url")
        audit = AuditLog(database, clock=utc_now)
        labels = build_labels(settings, database, store)
        removal = Removal(database, store, owned=owned_predictions, labels=labels, audit=audit)
        yield build_record_retention(settings, removal, store), build_retention(settings, database, store)
