"""One ingest at a time, which others join, and which outlives whoever asked for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shoplens.batch.arrivals import Source
from shoplens.batch.bring_in import BringIn
from shoplens.batch.local_source import LocalSource
from shoplens.db import Database
from shoplens.errors import SourceUnavailable
from shoplens.storage import open_store
from tests.unit.batch.drop_folder import make_ingest

TIMEOUT_S = 60.0


class GatedFolder:
    """A drop folder that is opened only once the gate is, so that a test knows what goes on at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gate = threading.Event()
        self.opened = 0

    def open(self, url: str) -> Source:
        """As `open_source` of the ingest."""
        self.opened += 1
        assert self.gate.wait(TIMEOUT_S)
        return LocalSource(Path(url), quiet_s=0, now=time.time)

    def put(self, count: int) -> None:
        """Photos that differ."""
        for number in range(count):
            (self.folder / f"1_{number}.jpg").write_bytes(b"\xff\xd8\xff\xe0 a photo %d" % number)


@pytest.fixture
def drop(tmp_path: Path) -> GatedFolder:
    """An empty folder whose gate is shut."""
    folder = tmp_path / "drop"
    folder.mkdir()
    return GatedFolder(folder)


@pytest.fixture
def bring_in(database: Database, tmp_path: Path, drop: GatedFolder) -> Iterator[BringIn]:
    """Over a real database and store."""
    store = open_store(str(tmp_path / "blobs"))
    ingest = make_ingest(database, store, str(drop.folder), open_source=drop.open, batch=1)
    made = BringIn(ingest, clock=lambda: datetime.now(UTC))
    yield made
    drop.gate.set()
    made.close()


def test_nothing_is_known_before_the_first(bring_in: BringIn) -> None:
    """As at the start of a server."""
    assert bring_in.standing() is None


def test_whoever_comes_meanwhile_joins(bring_in: BringIn, drop: GatedFolder) -> None:
    """The folder is looked at once for all of them; whoever comes later has it looked at again."""
    drop.put(2)
    first, second = bring_in.join(), bring_in.join()
    assert first is second
    standing = bring_in.standing()
    assert standing is not None
    assert (True, None) == (standing.running, standing.summary)
    drop.gate.set()
    first.result(TIMEOUT_S)
    ended = bring_in.standing()
    assert ended is not None
    assert ended.summary is not None
    assert (False, 2, None) == (ended.running, ended.summary.taken, ended.error)
    bring_in.join().result(TIMEOUT_S)
    assert 2 == drop.opened


def test_a_failure_is_kept_for_whoever_asks(bring_in: BringIn, drop: GatedFolder) -> None:
    """And the next one may do better."""
    drop.folder.rmdir()
    drop.gate.set()
    bring_in.join().result(TIMEOUT_S)
    failed = bring_in.standing()
    assert failed is not None
    assert isinstance(failed.error, SourceUnavailable)
    drop.folder.mkdir()
    bring_in.join().result(TIMEOUT_S)
    better = bring_in.standing()
    assert better is not None
    assert better.error is None


def test_a_stopping_server_ends_it_after_a_batch(bring_in: BringIn, drop: GatedFolder) -> None:
    """What is committed stays; the next ingest takes the rest."""
    drop.put(50)
    ended = bring_in.join()
    closing = threading.Thread(target=bring_in.close)
    closing.start()
    drop.gate.set()
    closing.join(TIMEOUT_S)
    assert ended.done()
    standing = bring_in.standing()
    assert standing is not None
    assert standing.summary is not None
    assert 50 == standing.summary.taken + len(list(drop.folder.iterdir()))
    assert (False, None) == (standing.running, standing.error)
