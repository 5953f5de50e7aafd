"""What challengers answered beside champions: counted by pair of versions, bounded, gone with its record."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import ClassVar, cast

import pytest
from sqlalchemy import delete

from shoplens.db import Database
from shoplens.errors import QueueFull, RequestInvalid
from shoplens.predictions.repository import PredictionRepository
from shoplens.predictions.tables import predictions
from shoplens.registry.shadow import ShadowService
from shoplens.registry.shadow_repository import ShadowAnswer, ShadowRepository
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, Engine
from shoplens.telemetry.metrics import Metrics
from tests.samples import id_at, make_record, moment


@pytest.fixture
def answers(database: Database) -> list[ShadowAnswer]:
    """Of three records: on two the versions agree, on the newest they do not."""
    records = [make_record(number) for number in range(3)]
    found = [
        ShadowAnswer(
            id=id_at(moment(number)),
            created_at=moment(number),
            channel="look",
            prediction_id=record.id,
            model="m",
            champion="1",
            challenger="2",
            champion_label="vase",
            champion_score=0.7,
            challenger_label="vase" if number < 2 else "jug",
            challenger_score=0.6,
            agrees=number < 2,
        )
        for number, record in enumerate(records)
    ]
    with database.transaction() as tx:
        PredictionRepository(tx).add_many(records)
        for answer in found:
            ShadowRepository(tx).add(answer)
    return found


def test_pairs_of_versions_are_counted_and_their_differences_shown(
    database: Database, answers: list[ShadowAnswer]
) -> None:
    """The newest pair comes first."""
    other = replace(answers[0], id=id_at(moment(9)), challenger="3", agrees=False, challenger_label="cup")
    with database.transaction() as tx:
        ShadowRepository(tx).add(other)
    with database.reading() as tx:
        newest, first = ShadowRepository(tx).reports()
    assert ("3", 1, 0, (other,)) == (newest.challenger, newest.compared, newest.agreed, newest.differences)
    assert ("2", 3, 2, (answers[2],)) == (first.challenger, first.compared, first.agreed, first.differences)


def test_only_the_newest_are_kept(database: Database, answers: list[ShadowAnswer]) -> None:
    """And a table that is not full stays as it is."""
    with database.transaction() as tx:
        ShadowRepository(tx).prune(5)
        assert 3 == ShadowRepository(tx).reports()[0].compared
        ShadowRepository(tx).prune(1)
        (report,) = ShadowRepository(tx).reports()
    assert (1, (answers[2],)) == (report.compared, report.differences)


def test_an_answer_goes_with_its_record(database: Database, answers: list[ShadowAnswer]) -> None:
    """What was deleted of a person is nowhere any more."""
    with database.transaction() as tx:
        tx.execute(delete(predictions).where(predictions.c.id == answers[2].prediction_id))
    with database.reading() as tx:
        (report,) = ShadowRepository(tx).reports()
    assert (2, ()) == (report.compared, report.differences)


async def test_what_a_challenger_cannot_answer_is_counted_and_what_a_busy_server_drops_is_not(
    database: Database,
) -> None:
    """A refused sample is the challenger's fault, a full queue is not; the loop goes on after both, and after a bug."""

    class Faulty:
        faults: ClassVar[list[Exception]] = [
            QueueFull("full", retry_after_s=1.0), RuntimeError("a bug"), RequestInvalid("It takes no photo."),
        ]  # fmt: skip

        async def classify(self, request: ClassifyRequest) -> ClassifyResult:
            raise self.faults.pop(0)

    record, metrics = make_record(1), Metrics()
    with database.transaction() as tx:
        PredictionRepository(tx).add_many([record])
    service = ShadowService(
        engine=cast(Engine, Faulty()), challenger_of=lambda _: "2", shares={record.channel: 1.0}, database=database,
        clock=lambda: moment(1), metrics=metrics,
    )  # fmt: skip
    for _ in range(3):
        service.offer_record(ClassifyRequest(model=record.model.name, images=(b"x",), top_k=1, timeout_s=1), record)
    counts = {"dropped": 1.0, "failed": 2.0}
    give_up_at = time.monotonic() + 30
    while counts != {
        outcome: metrics.shadow_answers.labels(model=record.model.name, outcome=outcome)._value.get()
        for outcome in counts
    }:
        assert time.monotonic() < give_up_at
        await asyncio.sleep(0.01)
    await service.close()
    with database.reading() as tx:
        (report,) = ShadowRepository(tx).reports()
        (answer,) = ShadowRepository(tx).of_pair(record.model.name, record.model.version, "2")
    assert (0, 0, 1, ()) == (report.compared, report.agreed, report.failed, report.differences)
    assert ("request_invalid", None, record.id) == (answer.failure_code, answer.challenger_label, answer.prediction_id)


async def test_samples_that_wait_for_a_challenger_hold_little_memory(database: Database) -> None:
    """Their photos are in no bound of uploads any more, so those with many bytes are dropped."""
    metrics = Metrics()

    class Slow:
        async def classify(self, request: ClassifyRequest) -> ClassifyResult:
            await asyncio.sleep(60)
            raise AssertionError(request)

    record = make_record(1)
    service = ShadowService(
        engine=cast(Engine, Slow()), challenger_of=lambda _: "2", shares={record.channel: 1.0}, database=database,
        clock=lambda: moment(1), metrics=metrics,
    )  # fmt: skip
    request = ClassifyRequest(model=record.model.name, images=(bytes(5_000_000),), top_k=1, timeout_s=1)
    for _ in range(3):
        service.offer_record(request, record)
    service.offer_record(replace(request, images=(bytes(1_000),)), record)
    dropped = metrics.shadow_answers.labels(model=record.model.name, outcome="dropped")
    assert 3 == dropped._value.get()
    await service.close()
