"""A backlog: a service that is down ends the run, and no photo pays for it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shoplens.batch.entities import BatchItem, ItemState
from shoplens.batch.executors import ItemQueue, ResultBuilder, ResultQueue, RetryPolicy, WorkLimits
from shoplens.db import open_database
from shoplens.errors import DatabaseUnavailable, DeadlineExceeded
from shoplens.images.picture import Limits
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.moderation.channel import ModerationChannel
from shoplens.moderation.intake.assessment import PhotoAssessor
from shoplens.moderation.intake.bulk import ModerationExecutor, PatientEngine
from shoplens.moderation.intake.memory import HashMemory
from shoplens.moderation.policy.entities import ModerationPolicy
from shoplens.moderation.tables import moderation_hashes
from shoplens.serving.engine import ClassifyRequest, ClassifyResult
from shoplens.storage import open_store
from tests.unit.batch.batch_house import CHANNEL, ScriptedEngine


class SilentEngine(ScriptedEngine):
    """It has no scores for any photo."""

    def _answer(self, job: ClassifyRequest) -> ClassifyResult:
        raise DeadlineExceeded("There was no time.")


@pytest.fixture
def executor(tmp_path: Path, database_file: Path) -> Iterator[ModerationExecutor]:
    """Over a store, and a database in which a table is missing."""
    store = open_store(str(tmp_path))
    with closing(open_database(f"sqlite:///{database_file}")) as database, SandboxedDecoder(processes=1) as sandbox:
        with database.transaction() as tx:
            moderation_hashes.drop(tx)
        retry = RetryPolicy(0.2)
        engine = PatientEngine(SilentEngine(), retry)
        assessor = PhotoAssessor(
            engine=engine,
            database=database,
            memory=HashMemory(database),
            clock=lambda: datetime.now(UTC),
            policy_of=lambda _: ModerationPolicy(),
            limits=Limits(),
            sandbox=sandbox,
            timeout_s=0.1,
        )
        channel = ModerationChannel(
            name="reviews",
            title="Reviews",
            model="script",
            general_model=None,
            groups={},
            signals=(),
            reasons=(),
            default_policy=ModerationPolicy(),
        )
        yield ModerationExecutor(
            engine,
            assessor,
            channel=channel,
            store=store,
            results=ResultBuilder(CHANNEL, store, clock=lambda: datetime.now(UTC), max_attempts=1),
            limits=WorkLimits(photos=1, photo_bytes=1_000_000, timeout_s=1.0),
            retry=retry,
            clock=lambda: datetime.now(UTC),
        )


async def test_a_database_that_fails_ends_the_run_and_quarantines_nothing(
    executor: ModerationExecutor, tmp_path: Path, photo: bytes
) -> None:
    """The item has no result, so the next run takes it."""
    open_store(str(tmp_path)).put("reviews/a.jpg", photo)
    item = BatchItem(
        id="01kq0000000000000000000001",
        channel="reviews",
        received_at=datetime.now(UTC),
        source_name="a.jpg",
        sha256=hashlib.sha256(photo).hexdigest(),
        byte_count=len(photo),
        state=ItemState.WAITING,
        key="reviews/a.jpg",
    )
    items: ItemQueue = asyncio.Queue()
    results: ResultQueue = asyncio.Queue()
    items.put_nowait(item)
    items.put_nowait(None)
    try:
        with pytest.raises(DatabaseUnavailable):
            await executor.process(items, results)
    finally:
        await executor.close()
    assert results.empty()
