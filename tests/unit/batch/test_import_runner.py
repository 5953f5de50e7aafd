"""Imports in the background: one at a time, joined by further requests, independent of who asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shoplens.batch.importer import ImportRunner
from shoplens.batch.sources import LocalSource, Source
from shoplens.db import Database
from shoplens.errors import SourceUnavailable
from shoplens.storage import open_store
from tests.unit.batch.drop_folder import make_importer

TIMEOUT_S = 60.0


class GatedFolder:
    """A drop folder that opens only when the gate is set, so that a test knows what happens at the same time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gate = threading.Event()
        self.opened = 0

    def open(self, url: str) -> Source:
        """As `open_source` of the importer."""
        self.opened += 1
        assert self.gate.wait(TIMEOUT_S)
        return LocalSource(Path(url), quiet_s=0, now=time.time)

    def put(self, count: int) -> None:
        """Different photos."""
        for number in range(count):
            (self.folder / f"1_{number}.jpg").write_bytes(b"\xff\xd8\xff\xe0 a photo %d" % number)


@pytest.fixture
def drop(tmp_path: Path) -> GatedFolder:
    """An empty folder whose gate is closed."""
    folder = tmp_path / "drop"
    folder.mkdir()
    return GatedFolder(folder)


@pytest.fixture
def runner(database: Database, tmp_path: Path, drop: GatedFolder) -> Iterator[ImportRunner]:
    """Over a real database and store; each photo is a batch."""
    store = open_store(str(tmp_path / "blobs"))
    importer = make_importer(database, store, str(drop.folder), open_source=drop.open, commit_items=1)
    runner = ImportRunner(importer, clock=lambda: datetime.now(UTC))
    yield runner
    drop.gate.set()
    runner.close()


def test_there_is_no_status_before_the_first_import(runner: ImportRunner) -> None:
    """As after the start of a server."""
    assert runner.status() is None


def test_a_second_request_joins_the_running_import(runner: ImportRunner, drop: GatedFolder) -> None:
    """The folder is read once for both. A request after the end starts another import."""
    drop.put(2)
    first, second = runner.start(), runner.start()
    assert first is second
    status = runner.status()
    assert status is not None
    assert (True, None) == (status.running, status.summary)
    drop.gate.set()
    first.result(TIMEOUT_S)
    ended = runner.status()
    assert ended is not None
    assert ended.summary is not None
    assert (False, 2, None) == (ended.running, ended.summary.taken, ended.error)
    runner.start().result(TIMEOUT_S)
    assert 2 == drop.opened


def test_the_status_has_the_error_of_a_failed_import(runner: ImportRunner, drop: GatedFolder) -> None:
    """Until another import succeeds."""
    drop.folder.rmdir()
    drop.gate.set()
    runner.start().result(TIMEOUT_S)
    failed = runner.status()
    assert failed is not None
    assert isinstance(failed.error, SourceUnavailable)
    drop.folder.mkdir()
    runner.start().result(TIMEOUT_S)
    succeeded = runner.status()
    assert succeeded is not None
    assert succeeded.error is None


def test_closing_ends_the_import_after_its_batch(runner: ImportRunner, drop: GatedFolder) -> None:
    """What is committed stays; the next import takes the rest."""
    drop.put(50)
    ended = runner.start()
    closing = threading.Thread(target=runner.close)
    closing.start()
    drop.gate.set()
    closing.join(TIMEOUT_S)
    assert ended.done()
    status = runner.status()
    assert status is not None
    assert status.summary is not None
    assert 50 == status.summary.taken + len(list(drop.folder.iterdir()))
    assert (False, None) == (status.running, status.error)
