"""Retention that is killed at any moment goes on without loss and without doubled work."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from shoplens.accounts.audit import AuditFilter, AuditLog
from shoplens.batch.entities import ItemState
from shoplens.batch.repository import ItemRepository
from shoplens.db import Database
from shoplens.platform.audit import audit_store
from shoplens.predictions.entities import RecordFilter
from shoplens.predictions.image_store import copy_keys
from shoplens.predictions.repository import PredictionRepository
from shoplens.storage import Store, open_store
from tests.integration.db.expiring_child import make_job, now
from tests.samples import make_item, make_record, moment

DAYS = 30
OLD = 60
KILLS = 2


def fill(database: Database, store: Store) -> None:
    """Old photos of look and of returns, and a young one of look that shares the photo of an old one."""
    looks = [make_record(number) for number in range(OLD)]
    young = make_record(OLD, created_at=now(), image=looks[7].image, image_key=looks[7].image_key)
    runs = [make_record(1_000 + number, channel="returns", image_key=f"returns/{number}.jpg") for number in range(OLD)]
    items = [
        make_item(
            number, state=ItemState.DONE, prediction_id=record.id, key=record.image_key, sha256=record.image.sha256,
            finished_at=moment(number),
        )
        for number, record in enumerate(runs)
    ]  # fmt: skip
    with database.transaction() as tx:
        PredictionRepository(tx).add_many([*looks, young, *runs])
        ItemRepository(tx).add_many(items)
    for record in (*looks, *runs):
        for key in copy_keys(record):
            store.put(key, b"photo")


def files(store: Store) -> int:
    """How many are left."""
    return sum(1 for _ in store.list(""))


def kill_midway(url: str, folder: Path, store: Store) -> None:
    """Begin to delete in a process of its own, and kill it after some files are gone."""
    before = files(store)
    child = subprocess.Popen([sys.executable, "-m", "tests.integration.db.expiring_child", url, str(folder), str(DAYS)])
    give_up_at = time.monotonic() + 60
    enough = before - random.Random(before).randint(10, 50)
    while files(store) > enough:
        assert child.poll() is None or files(store) <= enough, "it ended too early"
        assert time.monotonic() < give_up_at
        time.sleep(0.002)
    child.kill()
    child.wait()


def test_a_killed_retention_goes_on(database: Database, database_url: str, tmp_path: Path) -> None:
    """After each kill no row shows a photo that is gone; at the end all are gone, and each was counted once."""
    folder = tmp_path / "store"
    store = open_store(str(folder))
    fill(database, store)
    for _ in range(KILLS):
        kill_midway(database_url, folder, store)
        audit = audit_store(database, store)
        assert ((), ()) == (audit.rows_without_file, audit.files_without_row)
        with database.reading() as tx:
            shown = [
                record
                for record in PredictionRepository(tx).page(RecordFilter(), limit=1_000)
                if record.image_key is not None and record.photo_deleted_at is None
            ]
        assert [] == [record.id for record in shown if not store.exists(str(record.image_key))]

    make_job(database, store, days=DAYS).run()

    with database.reading() as tx:
        records = PredictionRepository(tx).page(RecordFilter(), limit=1_000)
    assert 2 * OLD + 1 == len(records)
    (young,) = [record for record in records if record.image_key is not None]
    assert copy_keys(young) == set(store.list(""))
    entries = AuditLog(database, clock=now).page(AuditFilter(action="retention.deleted"), limit=500)
    assert 2 * OLD == sum(entry.details["photos"] for entry in entries)
