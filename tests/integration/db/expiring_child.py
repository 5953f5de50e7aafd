"""A process that deletes expired photos until all are gone: run, and killed, by the test beside this file.

Arguments: the database's URL, the folder of the store, the days of photos.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from shoplens.accounts.audit import AuditLog
from shoplens.batch.retention import RunPhotoRetention
from shoplens.batch.review_repository import owned_predictions
from shoplens.db import Database, open_database
from shoplens.labels.service import LabelService, feedback_labels
from shoplens.predictions.removal import Removal
from shoplens.predictions.retention import KeepDays, RecordRetention, RetentionJob
from shoplens.storage import Store, open_store


def now() -> datetime:
    """The time of day."""
    return datetime.now(UTC)


def make_job(database: Database, store: Store, *, days: int) -> RetentionJob:
    """For the photos of look and of the runs of returns, in small batches."""
    labels = LabelService(database, store, sources=(feedback_labels(database),), clock=now)
    removal = Removal(database, store, owned=owned_predictions, labels=labels, audit=AuditLog(database, clock=now))
    features = (
        RecordRetention(removal, channels={"look": KeepDays(photos=days)}, batch=5),
        RunPhotoRetention(removal, store, channels={"returns": days}, batch=5),
    )
    return RetentionJob(database, features, clock=now)


def main() -> None:
    """Ends when nothing is due."""
    url, folder, days = sys.argv[1:]
    make_job(open_database(url), open_store(folder), days=int(days)).run()


if __name__ == "__main__":
    main()
