"""What every engine promises, in this process or behind a queue: right answers, bounds, failures that stay alone."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoplens.errors import (
    DeadlineExceeded,
    EngineStopped,
    ImageCorrupt,
    ImageUnsupported,
    ModelNotFound,
    QueueFull,
    RequestInvalid,
)
from shoplens.platform.parts import build_channels, build_engine, build_sandbox
from shoplens.platform.workers import build_redis_engine
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, Engine
from shoplens.settings import Settings
from shoplens.telemetry.metrics import Metrics
from tests.conftest import colourful, jpeg_of
from tests.integration.running_worker import ONLY_LOOK, running_worker
from tests.support.fusion import write_fusion_bundle

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


def job(*photos: bytes, **changes: Any) -> ClassifyRequest:
    """A job for the built-in model."""
    return ClassifyRequest(**{"model": MODEL, "images": photos, "top_k": 5, "timeout_s": 60.0, **changes})


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
    engine = await make_engine(threads=2, provider="cpu")
    (served,) = (each for each in engine.served() if each.ref.name == MODEL)
    assert "cpu" == served.provider
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


@pytest.fixture
def paint(tmp_path: Path) -> dict[str, Any]:
    """Settings with a model of photos and texts, and one of texts only."""
    write_fusion_bundle(tmp_path / "models")
    write_fusion_bundle(tmp_path / "models", name="words", photos=False)
    channels = {"colours": {"model": "paint"}, "words": {"model": "words"}}
    return {"models_dir": tmp_path / "models", "channels": channels, "default_channel": "colours"}


def plain(*colour: int) -> bytes:
    """A photo of one colour."""
    return jpeg_of(np.full((48, 64, 3), colour, np.uint8))


RED, GREEN, BLUE = plain(250, 5, 5), plain(5, 250, 5), plain(5, 5, 250)


async def test_photos_texts_and_both_are_answered_by_one_model(make_engine: EngineMaker, paint: dict[str, Any]) -> None:
    """Each says what it was; a text without a photo has no facts of one."""
    engine = await make_engine(**paint)
    photo = await engine.classify(job(RED, model="paint"))
    text = await engine.classify(job(model="paint", text="a green hat"))
    both = await engine.classify(job(RED, model="paint", text="a green hat, green as grass, green"))
    words = await engine.classify(job(model="words", text="blue"))

    found = [(each.prediction.top.label, each.prediction.kind) for each in (photo, text, both, words)]
    green = "Colours > Green"
    assert [("Colours > Red", "photo"), (green, "text"), (green, "both"), ("Colours > Blue", "text")] == found
    assert [1, 0, 1, 0] == [len(each.images) for each in (photo, text, both, words)]


async def test_several_photos_are_one_sample(make_engine: EngineMaker, paint: dict[str, Any]) -> None:
    """The answer lies between theirs, whatever their order; each has its facts, and the first its thumbnail."""
    engine = await make_engine(**paint)
    both = await engine.classify(job(RED, GREEN, model="paint", thumbnail=True))
    turned = await engine.classify(job(GREEN, RED, model="paint"))
    alone = [await engine.classify(job(each, model="paint")) for each in (RED, GREEN)]

    scores = {each.label: each.score for each in both.prediction.labels}
    assert scores["Colours > Red"] == pytest.approx(scores["Colours > Green"], abs=0.02)
    assert scores["Colours > Blue"] < 0.2
    assert scores == pytest.approx({each.label: each.score for each in turned.prediction.labels})
    assert [each.image for each in alone] == list(both.images)
    assert both.thumbnail is not None


async def test_an_embedding_is_the_mean_of_the_photos(make_engine: EngineMaker, paint: dict[str, Any]) -> None:
    """Each photo's has the length 1; a text has none, and nobody gets one without asking."""
    engine = await make_engine(**paint)
    one, other, mean = [
        np.frombuffer(found.embedding or b"", "<f2").astype(float)
        for found in [
            await engine.classify(job(*photos, model="paint", embed=True))
            for photos in ((RED,), (GREEN,), (RED, GREEN))
        ]
    ]
    assert 1.0 == pytest.approx(np.linalg.norm(one), abs=2e-3)
    assert mean == pytest.approx((one + other) / 2, abs=2e-3)
    assert (await engine.classify(job(model="paint", text="red", embed=True))).embedding is None
    assert (await engine.classify(job(RED, model="paint"))).embedding is None


REFUSED: dict[str, dict[str, Any]] = {
    "There is nothing to classify: send a photo, a text, or both": {"model": "paint", "text": " \n "},
    "the text has no words": {"model": "paint", "text": "?!"},
    "There is nothing to classify: send a text": {"model": "words"},
    "takes texts only: send no photo": {"model": "words", "images": (RED,)},
    "17 photos were sent; a sample may have at most 16": {"model": "paint", "images": (RED,) * 17},
    "30,000 characters; at most 21,001": {"model": "paint", "text": "x" * 30_000},
    "takes photos only: send no text": {"model": MODEL, "images": (RED,), "text": "a red hat"},
}


async def test_a_sample_that_the_model_cannot_take_is_refused_with_what_is_needed(
    make_engine: EngineMaker, paint: dict[str, Any], models_dir: Path
) -> None:
    """Nothing is ignored silently. The sentence is the same with an engine here and with one in a worker."""
    shutil.copytree(models_dir / MODEL, paint["models_dir"] / MODEL)
    paint["channels"]["look"] = {"model": MODEL}
    engine = await make_engine(**paint)
    for sentence, changes in REFUSED.items():
        with pytest.raises(RequestInvalid, match=sentence):
            await engine.classify(job(**changes))


async def test_a_bad_photo_among_several_is_named(make_engine: EngineMaker, paint: dict[str, Any]) -> None:
    """Whether it is refused here or by the sandbox."""
    engine = await make_engine(**paint)
    with pytest.raises(ImageCorrupt, match="Photo 2 of 3: "):
        await engine.classify(job(RED, GREEN[: len(GREEN) // 2], BLUE, model="paint"))
