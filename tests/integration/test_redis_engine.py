"""The engine behind a real queue: dead workers, garbage, other versions, night work, and Redis going away."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from servers.process import free_port
from servers.valkey import running_valkey
from shoplens.batch.patient_engine import PatientEngine
from shoplens.errors import (
    DeadlineExceeded,
    ImageDecoderFailed,
    Misconfigured,
    NoWorker,
    QueueFull,
    QueueUnavailable,
    WireMismatch,
)
from shoplens.platform.parts import build_channels
from shoplens.platform.workers import (
    build_night_engine,
    build_redis_engine,
    build_worker,
    connections,
    look_for_workers,
)
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, Engine
from shoplens.serving.redis import engine as remote_engine
from shoplens.serving.redis import fleet, wire
from shoplens.serving.redis.engine import Connections, RedisEngine
from shoplens.serving.redis.queue import Bounds
from shoplens.settings import Settings
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

        def make(settings: Settings) -> RedisEngine:
            engine = build_redis_engine(settings, build_channels(settings), metrics=Metrics())
            ended.push_async_callback(engine.close)
            return engine

        yield make


@pytest.fixture
async def opened(settings: Settings) -> AsyncIterator[Connections]:
    """The queue as another process would see it."""
    assert settings.redis_url is not None
    parts = connections(settings, settings.redis_url)()
    yield parts
    await parts.queue.close()


def job(photo: bytes | None = None, **changes: Any) -> ClassifyRequest:
    """A job for the built-in model."""
    photo = jpeg_of(colourful(1)) if photo is None else photo
    return ClassifyRequest(**{"model": MODEL, "image": photo, "top_k": 5, "timeout_s": 30.0, **changes})


async def put(
    engine: Engine, opened: Connections, count: int = 1, **changes: Any
) -> list[asyncio.Task[ClassifyResult]]:
    """Jobs that lie in the queue although no worker is there, each with its own photo."""
    tasks = [asyncio.create_task(engine.classify(job(jpeg_of(colourful(seed)), **changes))) for seed in range(count)]
    stream = opened.queue.stream(MODEL, changes.get("priority", "online"))

    async def are_there() -> bool:
        return (await opened.queue.lengths([stream]))[0] >= count

    await until(are_there)
    return tasks


async def test_both_engines_say_the_same_of_the_same_photos(settings: Settings, make_engine: EngineMaker) -> None:
    """Labels, scores, facts and thumbnails."""
    photos = [jpeg_of(colourful(seed, width=300 + seed, height=260)) for seed in range(20)]
    async with running_worker(settings) as worker:
        remote = make_engine(settings)
        for photo in photos:
            there = await remote.classify(job(photo, thumbnail=True))
            here = await worker.engine.classify(job(photo, thumbnail=True))
            assert (here.prediction, here.image, here.thumbnail) == (there.prediction, there.image, there.thumbnail)


async def test_what_a_dead_worker_had_is_answered_by_another(
    settings: Settings, make_engine: EngineMaker, opened: Connections
) -> None:
    """Within a few seconds, each answer for its own photo."""
    tasks = await put(make_engine(settings), opened, 4)
    stream = opened.queue.stream(MODEL, "online")
    assert [] == await opened.queue.take([stream], "dead", count=4, block_ms=None)  # makes the group
    assert 4 == len(await opened.queue.take([stream], "dead", count=4, block_ms=None))
    began = time.monotonic()
    async with running_worker(settings) as worker:
        answers = await asyncio.gather(*tasks)
        assert 4 == worker.metrics.jobs_claimed._value.get()
    assert time.monotonic() - began < 10
    assert 4 == len({answer.image.sha256 for answer in answers})


async def test_a_worker_that_wakes_up_late_does_not_answer_twice(settings: Settings, opened: Connections) -> None:
    """Who is first has answered; the second learns that nothing is left to answer."""
    stream, to = opened.queue.stream(MODEL, "online"), opened.queue.answers("client")
    bounds = Bounds(jobs=9, image_bytes=10**6)
    entry = await opened.queue.add(stream, "1", to=to, body=b"{}", image=b"x", timeout_s=9, bounds=bounds)
    answers = [await opened.queue.finish(stream, entry, byte_count=1, to=to, answer=b"A") for _ in range(2)]
    assert [True, False] == answers
    assert [b"A"] == await opened.queue.collect(to, count=9, block_s=1)


async def test_a_photo_on_which_workers_die_is_refused_and_set_aside(
    settings: Settings, make_engine: EngineMaker, opened: Connections
) -> None:
    """Three had it; the fourth does not try."""
    (task,) = await put(make_engine(settings), opened)
    stream = opened.queue.stream(MODEL, "online")
    await opened.queue.take([stream], "dead-0", count=1, block_ms=None)
    await opened.queue.take([stream], "dead-0", count=1, block_ms=None)
    for number in range(2):
        assert await opened.queue.claim(stream, f"dead-{number}", f"dead-{number + 1}", count=1, idle_ms=0)
    async with running_worker(settings) as worker:
        with pytest.raises(ImageDecoderFailed, match="3 workers"):
            await task
        assert 1 == worker.metrics.jobs_set_aside._value.get()


@pytest.mark.parametrize(
    "fields",
    [
        {"nonsense": "1"},
        {"v": "x", "id": "1", "to": "a", "by": "1", "body": "{}", "image": ""},
        {"v": "1", "id": "\x00", "to": "a", "by": "99999999999999", "body": "no JSON", "image": "x"},
        {"v": "1", "id": "2", "to": "a", "by": "99999999999999", "body": '{"model": 5}', "image": "x"},
    ],
)
async def test_garbage_in_the_queue_is_set_aside_and_the_worker_lives(
    settings: Settings, make_engine: EngineMaker, opened: Connections, fields: dict[str, str]
) -> None:
    """Counted, kept without its photo, and the next job is answered."""
    async with Redis.from_url(settings.redis_url or "", protocol=2) as client, running_worker(settings) as worker:
        await client.xadd(opened.queue.stream(MODEL, "online"), fields)  # type: ignore[arg-type]
        assert ClassifyResult is type(await make_engine(settings).classify(job()))
        await until(lambda: worker.metrics.jobs_set_aside._value.get() == 1)
        rows: Any = await client.xrange(f"{settings.redis_prefix}:set-aside")
        ((_, kept),) = rows
        assert b"image" not in kept
        await until_empty(opened)


async def until_empty(opened: Connections) -> None:
    """Nothing is left in the stream."""

    async def is_empty() -> bool:
        return (await opened.queue.lengths([opened.queue.stream(MODEL, "online")])) == [0]

    await until(is_empty, within_s=5)


async def test_garbage_in_place_of_an_answer_harms_nobody(
    settings: Settings, make_engine: EngineMaker, opened: Connections
) -> None:
    """Counted; the answer that comes after it arrives."""
    engine = make_engine(settings)
    async with Redis.from_url(settings.redis_url or "", protocol=2) as client, running_worker(settings):
        await client.rpush(opened.queue.answers(engine._client_id), b"\xff\xff\xff\xffgarbage")
        assert ClassifyResult is type(await engine.classify(job()))
    assert 1 == engine._metrics.jobs_set_aside._value.get()


async def test_a_worker_refuses_a_job_of_another_version(
    settings: Settings, make_engine: EngineMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Politely, so that the web server can tell it."""
    async with running_worker(settings):
        engine = make_engine(settings)
        add = engine._opened().queue.add

        async def newer(*arguments: Any, **named: Any) -> bytes:
            with monkeypatch.context() as patched:
                patched.setattr(wire, "VERSION", 2)
                return await add(*arguments, **named)

        monkeypatch.setattr(engine._opened().queue, "add", newer)
        with pytest.raises(WireMismatch, match="jobs in version 2"):
            await engine.classify(job())


def test_an_answer_of_another_version_is_told_as_such() -> None:
    """Its job is known, what is in it is not."""
    header = orjson.dumps({"v": 2, "id": "7", "answer": {"anything": 1}})
    reply = wire.reply_of(len(header).to_bytes(4, "big") + header)
    assert ("7", WireMismatch) == (reply.job_id, type(reply.outcome))


async def test_a_fleet_of_another_version_is_told_before_anything_is_sent(
    settings: Settings, make_engine: EngineMaker, opened: Connections
) -> None:
    """Also by the readiness check."""
    async with running_worker(settings) as worker:
        (mine,) = await opened.fleet.alive()
        older = fleet.Announcement(
            worker_id=mine.worker_id, host="old", pid=1, models=worker.engine.served_by_name(), wire_version=0
        )
        await opened.fleet.announce(older)
        engine = make_engine(settings)
        with pytest.raises(WireMismatch, match="version 0"):
            await engine.classify(job())


async def test_live_work_goes_before_night_work(
    settings: Settings, make_engine: EngineMaker, opened: Connections
) -> None:
    """Although the night was there first."""
    engine = make_engine(settings)
    ended: list[str] = []
    nights = await put(engine, opened, 20, priority="batch")
    (live,) = await put(engine, opened)
    for task in nights:
        task.add_done_callback(lambda _: ended.append("batch"))
    live.add_done_callback(lambda _: ended.append("online"))
    async with running_worker(settings):
        await asyncio.gather(live, *nights)
    assert ended.index("online") <= 4, "as many as the worker holds at a time may be before it"


async def test_what_nobody_waits_for_any_more_leaves_the_queue(
    settings: Settings, make_engine: EngineMaker, opened: Connections
) -> None:
    """At its deadline, also where no worker is there; and when its caller goes."""
    engine = make_engine(settings)
    with pytest.raises(DeadlineExceeded):
        await engine.classify(job(timeout_s=0.2))
    (task,) = await put(engine, opened)
    task.cancel()
    await until_empty(opened)


async def test_a_worker_drops_what_has_expired(settings: Settings, opened: Connections) -> None:
    """The web process that asked may be gone, and cannot take it back."""
    stream = opened.queue.stream(MODEL, "online")
    bounds = Bounds(jobs=9, image_bytes=10**6)
    body = wire.job_body(job())
    await opened.queue.add(stream, "1", to="nobody", body=body, image=b"x", timeout_s=0.001, bounds=bounds)
    await asyncio.sleep(0.05)
    async with running_worker(settings) as worker:
        await until_empty(opened)
        assert 1 == worker.metrics.jobs_expired._value.get()


async def test_the_bytes_in_the_queue_are_bounded(settings: Settings, opened: Connections) -> None:
    """One photo is always let in; what was taken out makes room."""
    stream = opened.queue.stream(MODEL, "online")
    bounds = Bounds(jobs=9, image_bytes=10)

    async def add(image: bytes) -> bytes:
        return await opened.queue.add(stream, "1", to="a", body=b"{}", image=image, timeout_s=9, bounds=bounds)

    first = await add(bytes(50))
    with pytest.raises(QueueFull, match="1 photos wait"):
        await add(b"x")
    await opened.queue.forget(stream, first, byte_count=50)
    for _ in range(2):
        await add(bytes(5))
    with pytest.raises(QueueFull):
        await add(b"x")


async def test_without_a_worker_it_is_told_at_once(
    settings: Settings, make_engine: EngineMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the readiness check always, and to requests once the last worker has been away for some seconds."""
    engine = make_engine(settings)
    with pytest.raises(NoWorker, match="shoplens worker"):
        await engine.check()
    monkeypatch.setattr(remote_engine, "_MISSED_S", 0.0)
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


async def test_an_engine_tells_of_its_own_models_only(
    make_settings: Callable[..., Settings], settings: Settings, make_engine: EngineMaker
) -> None:
    """A night asks for one model, and workers that have those of all channels serve it."""
    both = {name: {"model": model} for name, model in (("look", MODEL), ("returns", "clothing"), ("reviews", MODEL))}
    wide = make_settings(channels=both, redis_url=settings.redis_url, redis_prefix=settings.redis_prefix, threads=1)
    async with running_worker(wide):
        assert [MODEL] == [each.ref.name for each in make_engine(settings).served()]
        assert ["clothing", MODEL] == [each.ref.name for each in make_engine(wide).served()]


async def test_more_requests_at_once_than_connections_are_all_answered(
    settings: Settings, make_engine: EngineMaker
) -> None:
    """They wait for a connection, and nobody is told that Redis is away."""
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
    """It comes back empty; what was waiting is put into it again and answered. Meanwhile others are told to retry."""
    port = free_port()
    settings = make_settings(channels=ONLY_LOOK, redis_url=f"redis://127.0.0.1:{port}", threads=1)
    assert settings.redis_url is not None
    with running_valkey(tmp_path / "first", port=port) as first:
        engine = make_engine(settings)
        parts = connections(settings, settings.redis_url)()
        waiting = await put(engine, parts, 3)
        await parts.queue.close()
        first.kill()
        await until(lambda: engine._away is not None)
        with pytest.raises(QueueUnavailable, match="does not answer"):
            await engine.classify(job())
    with running_valkey(tmp_path / "second", port=port):
        await until(lambda: engine._away is None)
        async with running_worker(settings):
            answers = await asyncio.gather(*waiting)
            assert 3 == len({answer.image.sha256 for answer in answers})
            assert ClassifyResult is type(await engine.classify(job()))
        await engine.close()


async def test_a_worker_outlives_a_restart_of_redis(
    make_settings: Callable[..., Settings], make_engine: EngineMaker, tmp_path: Path
) -> None:
    """It is not ready meanwhile, says why, and works again by itself."""
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


async def test_a_night_waits_for_a_queue_that_is_full_or_has_no_worker(
    settings: Settings, opened: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its photos are answered when a worker comes, behind live ones."""
    monkeypatch.setattr(remote_engine, "_MISSED_S", 0.0)
    narrow = settings.model_copy(update={"queue_limit": 2})
    inner = build_redis_engine(narrow, build_channels(narrow), metrics=Metrics())
    engine = PatientEngine(inner, patience_s=30)
    tasks = [asyncio.create_task(engine.classify(job(jpeg_of(colourful(seed))))) for seed in range(5)]
    await asyncio.sleep(0.2)
    async with running_worker(settings) as worker:
        assert 5 == len({answer.image.sha256 for answer in await asyncio.gather(*tasks)})
        assert 5 == worker.metrics.jobs_answered._value.get()
    await engine.close()


async def test_a_night_gives_up_in_the_end(settings: Settings) -> None:
    """With what is missing."""
    hurried = settings.model_copy(update={"batch": settings.batch.model_copy(update={"retry_s": 0.3})})
    with pytest.raises(NoWorker, match="shoplens worker"):
        await asyncio.to_thread(build_night_engine, hurried, build_channels(settings)["returns"])


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("http://127.0.0.1:1", Misconfigured, "redis://"),
        ("redis://:secret@127.0.0.1:1/0", QueueUnavailable, "redis://127.0.0.1:1/0 does not answer"),
        ("redis://:secret@no-such-host.invalid/0", QueueUnavailable, "does not answer"),
        ("redis://:secret@127.0.0.1:not-a-port/0", Misconfigured, "cannot be read"),
    ],
)
def test_a_wrong_address_is_one_sentence_without_the_password(
    make_settings: Callable[..., Settings], url: str, error: type[Exception], words: str
) -> None:
    """Within seconds."""
    began = time.monotonic()
    with pytest.raises(error, match="redis") as told:
        look_for_workers(make_settings(redis_url=url))
    assert words in str(told.value)
    assert "secret" not in str(told.value)
    assert time.monotonic() - began < 8


async def test_a_wrong_password_is_one_sentence(make_settings: Callable[..., Settings], tmp_path: Path) -> None:
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
