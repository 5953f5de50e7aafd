"""What every engine promises, in this process or behind a queue: right answers, bounds, failures that stay alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from shoplens.errors import (
    DeadlineExceeded,
    EngineStopped,
    ImageCorrupt,
    ImageUnsupported,
    ModelNotFound,
    QueueFull,
)
from shoplens.platform.parts import build_channels, build_engine, build_sandbox
from shoplens.platform.workers import build_redis_engine
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, Engine
from shoplens.settings import Settings
from shoplens.telemetry.metrics import Metrics
from tests.conftest import colourful, jpeg_of
from tests.integration.running_worker import ONLY_LOOK, running_worker

MODEL = "efficientnet-lite0-int8"


EngineMaker = Callable[..., Awaitable[Engine]]


@pytest.fixture(params=["local", "redis"])
async def make_engine(
    request: pytest.FixtureRequest, make_settings: Callable[..., Settings]
) -> AsyncIterator[EngineMaker]:
    """Real engines with the model of `look`, closed at the end; those over Redis with a worker."""
    async with AsyncExitStack() as ended:
        redis_url = request.getfixturevalue("redis_url") if request.param == "redis" else None

        async def make(**overrides: Any) -> Engine:
            settings = make_settings(
                redis_url=redis_url, redis_prefix=f"test-{os.urandom(6).hex()}", **{"channels": ONLY_LOOK, **overrides}
            )
            if redis_url is None:
                engine: Engine = build_engine(
                    settings, build_channels(settings), metrics=Metrics(), sandbox=build_sandbox(settings)
                )
            else:
                await ended.enter_async_context(running_worker(settings))
                engine = build_redis_engine(settings, build_channels(settings), metrics=Metrics())
            ended.push_async_callback(engine.close)
            return engine

        yield make


def job(photo: bytes, **changes: Any) -> ClassifyRequest:
    """A job for the built-in model."""
    return ClassifyRequest(**{"model": MODEL, "image": photo, "top_k": 5, "timeout_s": 60.0, **changes})


def essence(answer: ClassifyResult) -> tuple[str, float, str]:
    """The parts of an answer that are compared."""
    return answer.prediction.top.label, round(answer.prediction.top.score, 6), answer.image.sha256


async def test_many_concurrent_photos_get_their_own_answers(make_engine: EngineMaker) -> None:
    """Sixty different photos at once are answered as they are one by one."""
    engine = await make_engine(queue_limit=100)
    photos = [jpeg_of(colourful(seed)) for seed in range(60)]
    alone = [essence(await engine.classify(job(photo))) for photo in photos]
    together = await asyncio.gather(*(engine.classify(job(photo)) for photo in photos))
    assert alone == [essence(answer) for answer in together]
    assert len(set(alone)) == 60


async def test_bad_photos_fail_alone_among_good_ones(make_engine: EngineMaker) -> None:
    """Every third one is not a picture, every third one is cut off."""
    engine = await make_engine()
    good = jpeg_of(colourful(1))
    jobs = [job(data) for data in (good, b"<html>", good[: len(good) // 2]) * 10]
    outcomes = await asyncio.gather(*(engine.classify(each) for each in jobs), return_exceptions=True)
    assert [ClassifyResult, ImageUnsupported, ImageCorrupt] * 10 == [type(outcome) for outcome in outcomes]


async def test_a_full_queue_refuses_and_the_accepted_are_answered(make_engine: EngineMaker) -> None:
    """Nothing is dropped silently: each job is answered or refused."""
    engine = await make_engine(queue_limit=4, threads=1)
    photo = jpeg_of(colourful(1, width=1600, height=1200))
    outcomes = await asyncio.gather(*(engine.classify(job(photo)) for _ in range(40)), return_exceptions=True)
    kinds = [type(outcome) for outcome in outcomes]
    assert {ClassifyResult, QueueFull} == set(kinds)
    assert kinds.count(ClassifyResult) >= 4


async def test_a_passed_deadline_is_an_error_and_later_jobs_are_served(
    make_engine: EngineMaker,
) -> None:
    """A caller never waits longer than it said."""
    engine = await make_engine(threads=1)
    photo = jpeg_of(colourful(1, width=3000, height=2000))
    outcomes = await asyncio.gather(
        *(engine.classify(job(photo, timeout_s=0.001)) for _ in range(10)), return_exceptions=True
    )
    assert all(isinstance(outcome, DeadlineExceeded) for outcome in outcomes)
    assert ClassifyResult is type(await engine.classify(job(photo)))


async def test_a_caller_that_gives_up_harms_nobody(make_engine: EngineMaker) -> None:
    """Its job is dropped from the queue; the next one is answered."""
    engine = await make_engine(threads=1)
    photo = jpeg_of(colourful(2))
    tasks = [asyncio.create_task(engine.classify(job(photo))) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert ClassifyResult is type(await engine.classify(job(photo)))


async def test_a_thumbnail_comes_only_when_it_is_asked_for(make_engine: EngineMaker) -> None:
    """It costs a few percent, so channels that keep originals do not pay for it."""
    engine = await make_engine()
    photo = jpeg_of(colourful(3))
    without, with_one = await engine.classify(job(photo)), await engine.classify(job(photo, thumbnail=True))
    assert without.thumbnail is None
    assert (with_one.thumbnail or b"").startswith(b"\xff\xd8")


async def test_an_unknown_model_is_an_error_that_lists_the_known_ones(make_engine: EngineMaker) -> None:
    """Before anything is queued."""
    with pytest.raises(ModelNotFound, match=MODEL):
        await (await make_engine()).classify(job(b"", model="nix"))


async def test_a_closed_engine_refuses_requests(make_engine: EngineMaker) -> None:
    """The readiness check fails as well."""
    engine = await make_engine()
    await engine.check()
    await engine.close()
    with pytest.raises(EngineStopped):
        await engine.classify(job(jpeg_of(colourful(1))))
    with pytest.raises(EngineStopped):
        await engine.check()


async def test_an_engine_shows_how_it_calls_its_models(make_engine: EngineMaker) -> None:
    """The policy is chosen by the provider, and shown."""
    (served,) = (await make_engine(threads=2, provider="cpu")).served()
    assert (MODEL, "cpu") == (served.ref.name, served.provider)
    assert served.batching.startswith("single calls on 2 threads")


async def test_a_hash_that_is_known_is_not_computed_again(make_engine: EngineMaker) -> None:
    """On a processor without instructions for it, SHA-256 is a tenth of the work on a large photo."""
    engine = await make_engine()
    answer = await engine.classify(job(jpeg_of(colourful(4)), sha256="5" * 64))
    assert "5" * 64 == answer.image.sha256


async def test_several_models_answer_for_one_photo(make_engine: EngineMaker) -> None:
    """Each as it does alone, with measurements of the pixels; a plain request carries neither."""
    moderated = {"reviews": {"model": "opennsfw", "moderation": {"general_model": MODEL}}}
    engine = await make_engine(channels=ONLY_LOOK | moderated)
    photo = jpeg_of(colourful(7, width=256, height=256))  # neither model has it decoded at another size
    alone = [await engine.classify(job(photo, model=name)) for name in ("opennsfw", MODEL)]
    both = await engine.classify(job(photo, model="opennsfw", also=(MODEL,), measure=True))
    assert [each.prediction for each in alone] == [both.prediction, *both.others]
    assert [((), None)] * 2 == [(each.others, each.measurements) for each in alone]
    assert both.measurements is not None
    assert both.image == alone[0].image
    with pytest.raises(ModelNotFound, match="nix"):
        await engine.classify(job(photo, also=("nix",)))
