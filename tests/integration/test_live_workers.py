"""Workers and web servers over Redis follow the champion, and answer with one version where a request names it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoplens.errors import TooManyVersions
from shoplens.platform.live import follow_workers
from shoplens.platform.parts import build_channels, open_registry
from shoplens.platform.workers import build_redis_engine
from shoplens.registry.entities import CHAMPION
from shoplens.serving.engine import ClassifyRequest
from shoplens.settings import Settings
from shoplens.telemetry.metrics import Metrics
from tests.conftest import jpeg_of
from tests.integration.running_worker import running_worker, until
from tests.support.fusion import write_fusion_bundle

RED = jpeg_of(np.full((48, 64, 3), (250, 5, 5), np.uint8))
BY: dict[str, Any] = {"by": "a test", "why": "to see", "figures": {}}


@pytest.fixture
def settings(tmp_path: Path, make_settings: Callable[..., Settings], redis_url: str) -> Settings:
    """One channel whose model has two versions, the first of which is live."""
    settings = make_settings(
        redis_url=redis_url, redis_prefix=f"test-{os.urandom(6).hex()}", models_dir=tmp_path / "models",
        models_url=str(tmp_path / "registry"), channels={"paint": {"model": "paint"}}, default_channel="paint",
        models_poll_s=0.2, pinned_versions=1,
    )  # fmt: skip
    for version, turned in (("1.0", 0), ("2.0", 1), ("3.0", 2)):
        open_registry(settings).publish(write_fusion_bundle(tmp_path, version=version, turned=turned), **BY)
    promote(settings, "1.0")
    return settings


def promote(settings: Settings, version: str) -> None:
    """Make it the champion."""
    registry = open_registry(settings)
    registry.set_alias("paint", CHAMPION, version, expected=registry.aliases("paint"), **BY)


async def test_workers_change_to_a_new_champion_and_still_answer_with_a_version_that_is_asked_for(
    settings: Settings,
) -> None:
    """The heartbeat says which version a worker has, so every web server knows it."""
    settings = settings.model_copy(update={"channels": {"paint": settings.channels["paint"]}})
    channels = build_channels(settings)
    async with running_worker(settings):
        engine = build_redis_engine(settings, channels, metrics=Metrics())
        follower = follow_workers(settings, channels, engine, Metrics())

        async def answer(model: str = "paint") -> tuple[str, str]:
            request = ClassifyRequest(model=model, images=(RED,), top_k=1, timeout_s=30)
            prediction = (await engine.classify(request)).prediction
            return prediction.model.version, prediction.top.label

        async def is_live() -> bool:
            return await answer() == ("2.0", "Colours > Green")

        try:
            assert ("1.0", "Colours > Red") == await answer()
            promote(settings, "2.0")
            await until(is_live)
            await until(lambda: ["2.0"] == [each.ref.version for each in engine.served()])
            await until(lambda: "2.0" == engine.bundle("paint").ref.version)
            assert ("1.0", "Colours > Red") == await answer("paint@1.0")
            assert ("2.0", "Colours > Green") == await answer("paint@2.0")
            with pytest.raises(TooManyVersions):
                await answer("paint@3.0")
        finally:
            follower.close()
            await engine.close()
