"""The engine behind a real queue: dead workers, unreadable messages, other versions, batch jobs, and Redis outages."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from servers.process import free_port
from servers.valkey import running_valkey
from shoplens.batch.entities import BatchItem, ItemState
from shoplens.batch.executors import EngineExecutor, ItemQueue, ResultBuilder, ResultQueue, RetryPolicy, WorkLimits
from shoplens.errors import (
    DeadlineExceeded,
    ImageDecoderFailed,
    Misconfigured,
    NoWorker,
    QueueFull,
    QueueUnavailable,
    WireMismatch,
)
from shoplens.images.picture import Limits
from shoplens.platform.parts import build_channels
from shoplens.platform.workers import (
    build_redis_engine,
    build_worker,
    look_for_workers,
    require_worker,
)
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, Engine
from shoplens.serving.redis import messages
from shoplens.serving.redis.broker import Broker, QueueLimits
from shoplens.serving.redis.client import RedisEngine
from shoplens.serving.redis.messages import Heartbeat
from shoplens.settings import Settings
from shoplens.storage import open_store
from shoplens.telemetry.metrics import Metrics
from tests.conftest import colourful, jpeg_of
from tests.integration.running_worker import ONLY_LOOK, running_worker, until

MODEL = "efficientnet-lite0-int8"
EngineMaker = Callable[..., RedisEngine]


@pytest.fixture
def settings(make_settings: Callable[..., Settings], redis_url: str) -> Settings:
    """One model, one thread, and keys of their own in the shared server."""
    prefix = f"test-{os.urandom(6).hex()}"
    return make_settings(channels=ONLY_LOOK, redis_url=redis_url, redis_prefix=prefix, threads=1)


@pytest.fixture
async def make_engine() -> AsyncIterator[EngineMaker]:
    """Engines of web processes, closed at the end."""
    async with AsyncExitStack() as ended:

        def make(settings: Settings, *, restart_s: float = 10.0) -> RedisEngine:
            engine = build_redis_engine(settings, build_channels(settings), metrics=Metrics(), restart_s=restart_s)
            ended.push_async_callback(engine.close)
            return engine

        yield make


@pytest.fixture
async def broker(settings: Settings) -> AsyncIterator[Broker]:
    """The queue as another process would see it."""
    broker = broker_of(settings)
    yield broker
    await broker.close()


def broker_of(settings: Settings) -> Broker:
    """The queue of these settings."""
    assert settings.redis_url is not None
    return Broker(settings.redis_url, prefix=settings.redis_prefix)


def job(photo: bytes | None = None, **changes: Any) -> ClassifyRequest:
    """A job for the built-in model."""
    photo = jpeg_of(colourful(1)) if photo is None else photo
    return ClassifyRequest(**{"model": MODEL, "images": (photo,), "top_k": 5, "timeout_s": 30.0, **changes})


async def put(engine: Engine, broker: Broker, count: int = 1, **changes: Any) -> list[asyncio.Task[ClassifyResult]]:
    """Jobs in the queue without any worker, each with its own photo."""
    tasks = [asyncio.create_task(engine.classify(job(jpeg_of(colourful(seed)), **changes))) for seed in range(count)]
    stream = broker.stream(MODEL, changes.get("priority", "online"))

    async def are_there() -> bool:
        return (await broker.lengths([stream]))[0] >= count

    await until(are_there)
    return tasks


async def test_both_engines_say_the_same_of_the_same_photos(settings: Settings, make_engine: EngineMaker) -> None:
    """Labels, scores, facts and thumbnails."""
    photos = [jpeg_of(colourful(seed, width=300 + seed, height=260)) for seed in range(20)]
    async with running_worker(settings) as worker:
        engine = make_engine(settings)
        for photo in photos:
            there = await engine.classify(job(photo, thumbnail=True))
            here = await worker.engine.classify(job(photo, thumbnail=True))
            assert (here.prediction, here.image, here.thumbnail) == (there.prediction, there.image, there.thumbnail)


async def test_the_jobs_of_a_dead_worker_are_answered_by_another(
    settings: Settings, make_engine: EngineMaker, broker: Broker
) -> None:
    """Long before their time is over, each answer for its own photo."""
    tasks = await put(make_engine(settings), broker, 4, timeout_s=120.0)
    stream = broker.stream(MODEL, "online")
    assert [] == await broker.take([stream], "dead", count=4, block_ms=None)  # makes the group
    assert 4 == len(await broker.take([stream], "dead", count=4, block_ms=None))
    began = time.monotonic()
    async with running_worker(settings) as worker:
        answers = await asyncio.gather(*tasks)
        assert 4 == worker.metrics.jobs_claimed._value.get()
    assert time.monotonic() - began < 60
    assert 4 == len({answer.image.sha256 for answer in answers})


async def test_a_worker_that_wakes_up_late_does_not_answer_twice(settings: Settings, broker: Broker) -> None:
    """The first reply counts; the second worker learns that it came too late."""
    stream, to = broker.stream(MODEL, "online"), broker.replies("client")
    limits = QueueLimits(jobs=9, image_bytes=10**6)
    entry = await broker.add(stream, "1", reply_to=to, job=b"{}", image=b"x", timeout_s=9, limits=limits)
    answers = [await broker.finish(stream, entry, image_bytes=1, reply_to=to, reply=b"A") for _ in range(2)]
    assert [True, False] == answers
    assert [b"A"] == await broker.collect(to, count=9, block_s=1)


async def test_a_photo_on_which_workers_die_is_refused_and_quarantined(
    settings: Settings, make_engine: EngineMaker, broker: Broker
) -> None:
    """By the fourth worker, which does not try it."""
    (task,) = await put(make_engine(settings), broker)
    stream = broker.stream(MODEL, "online")
    await broker.take([stream], "dead-0", count=1, block_ms=None)
    await broker.take([stream], "dead-0", count=1, block_ms=None)
    for number in range(2):
        assert await broker.claim(stream, f"dead-{number}", f"dead-{number + 1}", count=1, idle_ms=0)
    async with running_worker(settings) as worker:
        with pytest.raises(ImageDecoderFailed, match="3 workers died"):
            await task
        assert 1 == worker.metrics.jobs_quarantined._value.get()


@pytest.mark.parametrize(
    "fields",
    [
        {"nonsense": "1"},
        {"v": "x", "id": "1", "to": "a", "by": "1", "job": "{}", "image": ""},
        {"v": str(messages.VERSION), "id": "\x00", "to": "a", "by": "99999999999999", "job": "not a job", "image": "x"},
        {"v": str(messages.VERSION), "id": "2", "to": "a", "by": "99999999999999", "job": '{"model": 5}', "image": "x"},
    ],
)
async def test_an_unreadable_entry_is_quarantined_and_the_worker_lives(
    settings: Settings, make_engine: EngineMaker, broker: Broker, fields: dict[str, str]
) -> None:
    """Counted, kept without its photo, and the next job is answered."""
    async with Redis.from_url(settings.redis_url or "", protocol=2) as client, running_worker(settings) as worker:
        await client.xadd(broker.stream(MODEL, "online"), fields)  # type: ignore[arg-type]
        assert ClassifyResult is type(await make_engine(settings).classify(job()))
        await until(lambda: worker.metrics.jobs_quarantined._value.get() == 1)
        rows: Any = await client.xrange(f"{settings.redis_prefix}:quarantine")
        ((_, kept),) = rows
        assert b"image" not in kept
        await until_empty(broker)


async def until_empty(broker: Broker) -> None:
    """Nothing is left in the stream."""

    async def is_empty() -> bool:
        return (await broker.lengths([broker.stream(MODEL, "online")])) == [0]

    await until(is_empty)


async def test_an_unreadable_reply_harms_nobody(settings: Settings, make_engine: EngineMaker, broker: Broker) -> None:
    """Counted; the answer that comes after it arrives."""
    engine = make_engine(settings)
    async with Redis.from_url(settings.redis_url or "", protocol=2) as client, running_worker(settings):
        await client.rpush(broker.replies(engine._client_id), b"\xff\xff\xff\xffgarbage")
        assert ClassifyResult is type(await engine.classify(job()))
    assert 1 == engine._metrics.jobs_quarantined._value.get()


async def test_a_worker_refuses_a_job_of_another_version(settings: Settings, broker: Broker) -> None:
    """With a sentence, so that the client learns the reason."""
    newer = {
        "v": messages.VERSION + 1,
        "id": "7",
        "to": broker.replies("me"),
        "by": 99999999999999,
        "job": "?",
        "image": "x",
    }
    async with Redis.from_url(settings.redis_url or "", protocol=2) as client, running_worker(settings):
        await client.xadd(broker.stream(MODEL, "online"), newer)  # type: ignore[arg-type]
        (encoded,) = await broker.collect(broker.replies("me"), count=9, block_s=10)
    reply = messages.decode_reply(encoded)
    assert ("7", WireMismatch) == (reply.job_id, type(reply.outcome))
    assert f"jobs in version {messages.VERSION + 1}" in str(reply.outcome)


async def test_workers_of_another_version_are_reported_before_anything_is_sent(
    settings: Settings, make_engine: EngineMaker, broker: Broker
) -> None:
    """Also by the readiness check."""
    async with running_worker(settings) as worker:
        (mine,) = await broker.workers()
        older = Heartbeat(worker_id=mine.worker_id, host="old", pid=1, models=worker.engine.served_by_name(), version=0)
        await broker.beat(older)
        engine = make_engine(settings)
        with pytest.raises(WireMismatch, match="version 0"):
            await engine.classify(job())


async def test_online_jobs_go_before_batch_jobs(settings: Settings, make_engine: EngineMaker, broker: Broker) -> None:
    """Although the batch jobs were there first."""
    engine = make_engine(settings)
    ended: list[str] = []
    batch = await put(engine, broker, 20, priority="batch")
    (online,) = await put(engine, broker)
    for task in batch:
        task.add_done_callback(lambda _: ended.append("batch"))
    online.add_done_callback(lambda _: ended.append("online"))
    async with running_worker(settings):
        await asyncio.gather(online, *batch)
    assert ended.index("online") <= 4, "as many as the worker holds at a time may be before it"


async def test_a_job_that_nobody_waits_for_is_removed_from_the_queue(
    settings: Settings, make_engine: EngineMaker, broker: Broker
) -> None:
    """At its deadline, also where no worker is there; and when its caller goes."""
    engine = make_engine(settings)
    with pytest.raises(DeadlineExceeded):
        await engine.classify(job(timeout_s=0.2))
    (task,) = await put(engine, broker)
    task.cancel()
    await until_empty(broker)


async def test_a_worker_drops_what_has_expired(settings: Settings, broker: Broker) -> None:
    """The web process that asked may be gone, and cannot take it back."""
    stream = broker.stream(MODEL, "online")
    limits = QueueLimits(jobs=9, image_bytes=10**6)
    encoded = messages.encode_job(job())
    await broker.add(stream, "1", reply_to="nobody", job=encoded, image=b"x", timeout_s=0.001, limits=limits)
    await asyncio.sleep(0.05)
    async with running_worker(settings) as worker:
        await until_empty(broker)
        assert 1 == worker.metrics.jobs_expired._value.get()


async def test_the_bytes_in_the_queue_are_bounded(settings: Settings, broker: Broker) -> None:
    """One photo is always let in; what was taken out makes room."""
    stream = broker.stream(MODEL, "online")
    limits = QueueLimits(jobs=9, image_bytes=10)

    async def add(image: bytes) -> bytes:
        return await broker.add(stream, "1", reply_to="a", job=b"{}", image=image, timeout_s=9, limits=limits)

    first = await add(bytes(50))
    with pytest.raises(QueueFull, match="1 photos wait"):
        await add(b"x")
    await broker.discard(stream, first, image_bytes=50)
    for _ in range(2):
        await add(bytes(5))
    with pytest.raises(QueueFull):
        await add(b"x")


async def test_without_a_worker_requests_are_refused_at_once(settings: Settings, make_engine: EngineMaker) -> None:
    """By the readiness check always, and to requests once the last worker has been away for some seconds."""
    engine = make_engine(settings, restart_s=0.0)
    with pytest.raises(NoWorker, match="shoplens worker"):
        await engine.check()
    with pytest.raises(NoWorker):
        await engine.classify(job())


async def test_several_web_processes_share_the_workers(settings: Settings, make_engine: EngineMaker) -> None:
    """Forty photos from two of them over two workers: each its own answer."""
    async with running_worker(settings) as one, running_worker(settings) as other:
        engines = [make_engine(settings), make_engine(settings)]
        photos = [jpeg_of(colourful(seed)) for seed in range(40)]
        answers = await asyncio.gather(
            *(engines[number % 2].classify(job(photo)) for number, photo in enumerate(photos))
        )
        alone = [await one.engine.classify(job(photo)) for photo in photos]
        assert [each.prediction for each in alone] == [each.prediction for each in answers]
        assert all(each.metrics.jobs_answered._value.get() for each in (one, other))
        assert "in each of 2 workers" in engines[0].served()[0].batching


async def test_an_engine_shows_only_its_own_models(
    make_settings: Callable[..., Settings], settings: Settings, make_engine: EngineMaker
) -> None:
    """A batch run asks for one model of workers that have those of all channels."""
    both = {"look": {"model": MODEL}, "returns": {"model": "clothing"}, "reviews": {"model": MODEL, "labels": {}}}
    wide = make_settings(channels=both, redis_url=settings.redis_url, redis_prefix=settings.redis_prefix, threads=1)
    async with running_worker(wide):
        assert [MODEL, "starter-catalogue"] == [each.ref.name for each in make_engine(settings).served()]
        assert ["clothing", MODEL, "starter-catalogue"] == [each.ref.name for each in make_engine(wide).served()]


async def test_more_requests_at_once_than_connections_are_all_answered(
    settings: Settings, make_engine: EngineMaker
) -> None:
    """They wait for a connection, and none fails because Redis seems to be away."""
    roomy = settings.model_copy(update={"queue_limit": 500})
    async with running_worker(settings):
        engine = make_engine(roomy)
        answers = await asyncio.gather(*(engine.classify(job()) for _ in range(200)))
        assert 1 == len({answer.image.sha256 for answer in answers})


async def test_a_stopping_worker_answers_what_it_took(settings: Settings, make_engine: EngineMaker) -> None:
    """And has left when it has ended."""
    engine = make_engine(settings)
    parts = build_worker(settings, models=(), sandbox=_sandbox(settings))
    running = asyncio.create_task(parts.worker.run())
    await until(lambda: parts.worker.fault is None)
    tasks = [asyncio.create_task(engine.classify(job())) for _ in range(2)]
    await until(lambda: parts.worker._jobs)
    parts.worker.stop()
    await running
    await parts.engine.close()
    answered = [task for task in tasks if task.done() or (await asyncio.wait([task], timeout=0.5))[0]]
    assert answered
    assert () == look_for_workers(settings)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_restart_of_redis_loses_no_request(
    make_settings: Callable[..., Settings], make_engine: EngineMaker, tmp_path: Path
) -> None:
    """It restarts empty; waiting jobs are sent again and answered. Other requests get a retry meanwhile."""
    port = free_port()
    settings = make_settings(channels=ONLY_LOOK, redis_url=f"redis://127.0.0.1:{port}", threads=1)
    assert settings.redis_url is not None
    with running_valkey(tmp_path / "first", port=port) as first:
        engine = make_engine(settings)
        broker = broker_of(settings)
        waiting = await put(engine, broker, 3)
        await broker.close()
        first.kill()
        await until(lambda: engine._outage is not None)
        with pytest.raises(QueueUnavailable, match="does not answer"):
            await engine.classify(job())
    with running_valkey(tmp_path / "second", port=port):
        await until(lambda: engine._outage is None)
        async with running_worker(settings):
            answers = await asyncio.gather(*waiting)
            assert 3 == len({answer.image.sha256 for answer in answers})
            assert ClassifyResult is type(await engine.classify(job()))
        await engine.close()


async def test_a_worker_outlives_a_restart_of_redis(
    make_settings: Callable[..., Settings], make_engine: EngineMaker, tmp_path: Path
) -> None:
    """It is not ready meanwhile, with a reason, and recovers."""
    port = free_port()
    settings = make_settings(channels=ONLY_LOOK, redis_url=f"redis://127.0.0.1:{port}", threads=1)
    with running_valkey(tmp_path / "first", port=port) as first:
        async with running_worker(settings) as worker:
            first.kill()
            await until(lambda: worker.worker.fault is not None)
            assert str(port) in (worker.worker.fault or "")
            with running_valkey(tmp_path / "second", port=port):
                await until(lambda: worker.worker.fault is None)
                engine = make_engine(settings)
                assert ClassifyResult is type(await engine.classify(job()))
                await engine.close()


async def test_a_batch_run_waits_while_the_queue_is_full_or_has_no_worker(
    settings: Settings, make_engine: EngineMaker, tmp_path: Path
) -> None:
    """Its photos are classified when a worker comes."""
    narrow = settings.model_copy(update={"queue_limit": 2})
    channel = build_channels(narrow)["returns"]
    engine = make_engine(narrow, restart_s=0.0)
    store = open_store(str(tmp_path / "photos"))
    items: ItemQueue = asyncio.Queue()
    results: ResultQueue = asyncio.Queue()
    for seed in range(5):
        store.put(f"returns/incoming/{seed}.jpg", data := jpeg_of(colourful(seed)))
        items.put_nowait(
            BatchItem(
                id=f"{seed:026}",
                channel="returns",
                received_at=datetime.now(UTC),
                source_name="a.jpg",
                sha256=hashlib.sha256(data).hexdigest(),
                byte_count=len(data),
                state=ItemState.PROCESSING,
                key=f"returns/incoming/{seed}.jpg",
            )
        )
    items.put_nowait(None)
    executor = EngineExecutor(
        engine,
        store=store,
        results=ResultBuilder(channel, store, clock=lambda: datetime.now(UTC), max_attempts=1),
        limits=WorkLimits(photos=5, photo_bytes=10**8, timeout_s=30.0),
        image_limits=Limits(),
        retry=RetryPolicy(30.0),
    )
    working = asyncio.create_task(executor.process(items, results))
    await asyncio.sleep(0.2)
    async with running_worker(settings) as worker:
        await working
        await until(lambda: worker.metrics.jobs_answered._value.get() == 5)  # counted after the answer
    assert [True] * 5 == [(found := results.get_nowait()) is not None and found.record is not None for _ in range(5)]
    await executor.close()


def test_a_run_without_a_worker_names_the_command(settings: Settings) -> None:
    """That starts one."""
    with pytest.raises(NoWorker, match="shoplens worker"):
        require_worker(settings, build_channels(settings)["returns"].model)


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("http://127.0.0.1:1", Misconfigured, "redis://"),
        ("redis://:secret@127.0.0.1:1/0", QueueUnavailable, "redis://…@127.0.0.1:1/0 does not answer"),
        ("redis://:secret@no-such-host.invalid/0", QueueUnavailable, "does not answer"),
        ("redis://:secret@127.0.0.1:not-a-port/0", Misconfigured, "cannot be read"),
    ],
)
def test_a_wrong_address_is_reported_without_the_password(
    make_settings: Callable[..., Settings], url: str, error: type[Exception], words: str
) -> None:
    """Within seconds."""
    began = time.monotonic()
    with pytest.raises(error, match="redis") as raised:
        look_for_workers(make_settings(redis_url=url))
    assert words in str(raised.value)
    assert "secret" not in str(raised.value)
    assert time.monotonic() - began < 8


async def test_a_wrong_password_is_reported_in_one_sentence(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """Wrong or missing; the right one works."""
    with running_valkey(tmp_path) as server:
        async with Redis.from_url(server.url, protocol=2) as client:
            await client.config_set("requirepass", "right")
        for user in ("", ":wrong@"):
            url = server.url.replace("redis://", f"redis://{user}")
            with pytest.raises(QueueUnavailable, match="password"):
                look_for_workers(make_settings(redis_url=url))
        assert () == look_for_workers(make_settings(redis_url=server.url.replace("redis://", "redis://:right@")))


def test_without_an_address_it_says_what_to_set(make_settings: Callable[..., Settings]) -> None:
    """For `shoplens worker`."""
    with pytest.raises(Misconfigured, match="redis_url is not set"):
        look_for_workers(make_settings())


def _sandbox(settings: Settings) -> Any:
    from shoplens.platform.parts import build_sandbox

    return build_sandbox(settings)
