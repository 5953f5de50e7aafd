"""A run keeps the version of its model with which it began; the next one takes what is live."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shoplens.batch.entities import RunOwner, RunState
from shoplens.batch.run_repository import RunRepository
from shoplens.bundles.manifest import ModelRef
from shoplens.db import Database
from shoplens.platform.batch import model_of_run
from shoplens.platform.parts import build_channels, build_database, open_registry
from shoplens.registry.entities import CHAMPION
from shoplens.settings import Settings, read_settings
from tests.samples import make_run
from tests.support.fusion import write_fusion_bundle

BY: dict[str, Any] = {"by": "a test", "why": "to see", "figures": {}}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A channel whose model has two versions in the registry."""
    channels = {"paint": {"model": "paint"}}
    settings = read_settings(
        data_dir=tmp_path / "data", models_dir=tmp_path / "models", channels=channels, default_channel="paint"
    )
    for version in ("1.0", "2.0"):
        open_registry(settings).publish(write_fusion_bundle(tmp_path / "made", version=version), **BY)
    return settings


def promote(settings: Settings, version: str) -> None:
    """Make it the champion."""
    registry = open_registry(settings)
    registry.set_alias("paint", CHAMPION, version, expected=registry.aliases("paint"), **BY)


def begin(database: Database, version: str) -> str:
    """A run of this version, which is not finished."""
    run = make_run(channel="paint", state=RunState.REQUESTED, model=None)
    with database.transaction() as tx:
        runs = RunRepository(tx)
        runs.add(run)
        runs.take_over(run, RunOwner(id="me", host="here", pid=1, process="p"), now=datetime.now(UTC))
        model = ModelRef(name="paint", version=version)
        runs.describe(run.id, owner="me", model=model, policy_version="p", planned=1, bound=1)
    return run.id


def test_a_resumed_run_has_the_version_with_which_it_began(settings: Settings) -> None:
    """Whatever went live since; the next run has that."""
    channel = build_channels(settings)["paint"]
    promote(settings, "1.0")
    with closing(build_database(settings)) as database:
        assert "paint@1.0" == model_of_run(settings, channel, database)
        run_id = begin(database, "1.0")
        promote(settings, "2.0")
        assert "paint@1.0" == model_of_run(settings, channel, database)
        with database.transaction() as tx:
            RunRepository(tx).finish(run_id, owner="me", now=datetime.now(UTC), report_key=None)
        assert "paint@2.0" == model_of_run(settings, channel, database)


def test_a_run_whose_version_is_gone_goes_on_with_what_is_live(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """And says so, rather than waiting for ever."""
    channel = build_channels(settings)["paint"]
    promote(settings, "2.0")
    with closing(build_database(settings)) as database:
        begin(database, "0.9")
        assert "paint@2.0" == model_of_run(settings, channel, database)
    assert "run.model_gone" in caplog.text
