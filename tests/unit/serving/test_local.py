"""The engine in this process: photos that the sandbox decodes hold no thread that the others need."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from shoplens.bundles.bundle import write_bundle
from shoplens.errors import EngineStopped, EngineStuck, ImageDecoderFailed, ModelNotFound, NotStarted, QueueFull
from shoplens.images.picture import Limits
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.predictions.service import require_version_of
from shoplens.serving.batcher import Batching
from shoplens.serving.classifier import Classifier
from shoplens.serving.engine import ClassifyRequest, ClassifyResult
from shoplens.serving.local import LocalEngine
from shoplens.serving.models import LoadedModel, LoadVersion, ModelHandle, ModelPool
from shoplens.telemetry.metrics import Metrics
from shoplens.testing.costly import costly_files
from shoplens.testing.hostile import encoded
from tests.conftest import colourful, jpeg_of
from tests.unit.bundles.conftest import CARD, LABELS, MANIFEST, small_model

TIFF = encoded(Image.new("RGB", (64, 64), "teal"), "tiff")
EngineMaker = Callable[..., Awaitable[LocalEngine]]


@pytest.fixture
async def make_engine(tmp_path: Path) -> AsyncIterator[EngineMaker]:
    """Engines with one thread, one process of the sandbox and the model of three fruits, closed at the end."""
    bundle = write_bundle(tmp_path / "fruit", manifest=MANIFEST, labels=LABELS, card=CARD, model=small_model())
    async with AsyncExitStack() as ended:

        async def make(*, queue_limit: int = 128, load: LoadVersion | None = None, **bounds: Any) -> LocalEngine:
            metrics = Metrics()
            engine = LocalEngine(
                ModelPool(
                    {"fruit": ModelHandle(LoadedModel(Classifier(bundle), batching=None, metrics=metrics))}, load=load
                ),
                limits=Limits(),
                sandbox=SandboxedDecoder(**{"processes": 1, **bounds}),
                batching=Batching(threads=1, queue_limit=queue_limit),
                metrics=metrics,
            )
            ended.push_async_callback(engine.close)
            engine.warm()
            return engine

        yield make


def job(photo: bytes, *, timeout_s: float = 60.0, client: str = "") -> ClassifyRequest:
    """A request for the only model."""
    return ClassifyRequest(model="fruit", images=(photo,), top_k=1, timeout_s=timeout_s, client=client)


def decoder_of(engine: LocalEngine) -> int:
    """The number of its only decoder process, which is idle."""
    (child,) = engine._sandbox._free.queue
    assert child is not None
    return child.pid


def is_at_work(engine: LocalEngine) -> bool:
    """Whether its only decoder process has a photo."""
    return not engine._sandbox._free.queue


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    give_up_at = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < give_up_at
        await asyncio.sleep(0.002)


async def test_a_jpeg_is_answered_before_costly_photos_that_came_first(make_engine: EngineMaker) -> None:
    """They use up the time of their process, one after the other."""
    engine = await make_engine()
    costly = next(data for name, data in costly_files() if name == "tiff-tiles")
    ended: list[str] = []

    async def classify(name: str, photo: bytes) -> None:
        try:
            await engine.classify(job(photo))
        except ImageDecoderFailed:
            name += " refused"
        ended.append(name)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(classify("costly", costly))
        await until(lambda: len(engine._sandboxed) == 2)
        tasks.create_task(classify("jpeg", jpeg_of(colourful(1))))
    assert ["jpeg", *["costly refused"] * 3] == ended


async def test_clients_take_turns_for_the_sandbox_too(make_engine: EngineMaker) -> None:
    """A second client's photo comes after the one in work and one of the first client."""
    engine = await make_engine()
    os.kill(pid := decoder_of(engine), signal.SIGSTOP)
    ended: list[str] = []

    async def classify(client: str) -> None:
        await engine.classify(job(TIFF, client=client))
        ended.append(client)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(classify("many"))
        await until(lambda: len(engine._sandboxed) == 3)
        tasks.create_task(classify("few"))
        await until(lambda: len(engine._sandboxed) == 4)
        os.kill(pid, signal.SIGCONT)
    assert ["many", "many", "few", "many", "many"] == ended


async def test_a_full_queue_of_the_sandbox_refuses_and_jpegs_are_answered(make_engine: EngineMaker) -> None:
    """Every photo gets one outcome."""
    engine = await make_engine(queue_limit=2)
    os.kill(pid := decoder_of(engine), signal.SIGSTOP)
    async with asyncio.TaskGroup() as tasks:
        held = [tasks.create_task(engine.classify(job(TIFF)))]
        await until(lambda: is_at_work(engine))
        for waiting in (1, 2):
            held.append(tasks.create_task(engine.classify(job(TIFF))))
            await until(lambda waiting=waiting: len(engine._sandboxed) == waiting)  # type: ignore[misc]
        with pytest.raises(QueueFull):
            await engine.classify(job(TIFF))
        assert ClassifyResult is type(await engine.classify(job(jpeg_of(colourful(1)))))
        os.kill(pid, signal.SIGCONT)
    assert [ClassifyResult] * 3 == [type(task.result()) for task in held]


async def test_a_photo_that_waited_for_the_sandbox_in_vain_was_not_started(make_engine: EngineMaker) -> None:
    """Only the one in work counts as begun."""
    engine = await make_engine()
    os.kill(pid := decoder_of(engine), signal.SIGSTOP)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(engine.classify(job(TIFF)))
        await until(lambda: is_at_work(engine))
        with pytest.raises(NotStarted):
            await engine.classify(job(TIFF, timeout_s=0.3))
        os.kill(pid, signal.SIGCONT)
    assert ClassifyResult is type(first.result())


async def test_closing_gives_every_photo_an_outcome_wherever_it_waits(make_engine: EngineMaker) -> None:
    """In one time for both queues: those that wait for the sandbox, and those that are passed on while it closes."""
    engine = await make_engine(wall_s=2)
    os.kill(decoder_of(engine), signal.SIGSTOP)
    tasks = [asyncio.create_task(engine.classify(job(TIFF))) for _ in range(20)]
    await asyncio.sleep(0)
    began = time.monotonic()
    await engine.close(drain_s=0.5)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert time.monotonic() - began < 10
    kinds = [type(outcome) for outcome in outcomes]
    assert {EngineStopped, ImageDecoderFailed} == set(kinds)
    assert 1 == kinds.count(ImageDecoderFailed)


async def test_an_engine_is_stuck_when_photos_outlast_all_limits_of_the_sandbox(
    make_engine: EngineMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before: a process that hangs is ended within its time, and readiness waits for that."""
    monkeypatch.setattr("shoplens.serving.local._STUCK_AFTER_S", 0.3)
    engine = await make_engine(wall_s=0.2, wait_s=0.0)
    engine._sandbox._wall_s = 3.0
    os.kill(decoder_of(engine), signal.SIGSTOP)
    tasks = [asyncio.create_task(engine.classify(job(TIFF))) for _ in range(2)]
    await until(lambda: len(engine._sandboxed) == 1)
    began = time.monotonic()
    with pytest.raises(EngineStuck, match="1 wait"):
        while time.monotonic() - began < 20:
            await engine.check()
            await asyncio.sleep(0.02)
    assert time.monotonic() - began > engine._sandbox.longest_s
    await asyncio.gather(*tasks, return_exceptions=True)
    await engine.check()


async def test_requests_for_a_version_that_is_slow_to_load_hold_no_threads_of_others(make_engine: EngineMaker) -> None:
    """A registry may be far away, and many may ask for versions that it does not have."""
    may_end = threading.Event()

    def load(name: str) -> LoadedModel:
        may_end.wait(20)
        raise ModelNotFound(f"There is no model {name}.")

    engine = await make_engine(load=load)
    photo = jpeg_of(colourful(1))
    asked = [replace(job(photo, timeout_s=0.2), model=f"fruit@{number}") for number in range(60)]
    waiting = asyncio.gather(*map(engine.classify, asked), return_exceptions=True)
    async with asyncio.timeout(5):
        await asyncio.gather(*(asyncio.to_thread(int) for _ in range(40)))
        assert {NotStarted} == {type(each) for each in await waiting}
    may_end.set()


@pytest.mark.parametrize("version", ["../fruit", "..", "x/../../tmp", "1\0", "", "1@2"])
async def test_a_version_is_never_a_path(make_engine: EngineMaker, version: str) -> None:
    """Nothing is looked for on the disk."""
    asked: list[str] = []

    def load(name: str) -> LoadedModel:
        asked.append(name)
        raise ModelNotFound("x")

    engine = await make_engine(load=load)
    with pytest.raises(ModelNotFound, match="is loaded"):
        await engine.classify(replace(job(jpeg_of(colourful(1))), model=f"fruit@{version}"))
    with pytest.raises(ModelNotFound, match="is no version"):
        require_version_of("fruit", f"fruit@{version}")
    assert [] == asked
