"""Where the models of a run are: as it was asked for, else as the settings say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shoplens.errors import Misconfigured
from shoplens.platform.batch import ExecutorName, chosen_engine
from shoplens.settings import Settings, read_settings


def settings(folder: Path, **batch: Any) -> Settings:
    """With Redis, and a channel that is moderated."""
    channels = {"returns": {"model": "paint"}, "shoppers": {"model": "paint", "moderation": {}}}
    return read_settings(
        data_dir=folder, redis_url="redis://127.0.0.1/0", default_channel="returns", channels=channels, batch=batch
    )


@pytest.mark.parametrize(
    ("channel", "asked", "address", "expected"),
    [
        ("returns", None, None, ("ray", "head:6379")),
        ("returns", "local", None, ("local", None)),
        ("returns", "ray", "auto", ("ray", "auto")),
        ("shoppers", None, None, ("workers", None)),
        ("shoppers", "ray", None, ("ray", "head:6379")),  # refused by the runner, since somebody asked for it
    ],
)
def test_the_settings_say_where_a_run_is_unless_somebody_asked(
    tmp_path: Path, channel: str, asked: ExecutorName | None, address: str | None, expected: tuple[str, str | None]
) -> None:
    """A moderated channel uses the workers in place of Ray."""
    shop = settings(tmp_path, engine="ray", ray_address="head:6379")
    assert expected == chosen_engine(shop, asked, address, channel=channel)


def test_workers_need_redis_and_an_address_needs_ray(tmp_path: Path) -> None:
    """The sentence names what was set."""
    alone = settings(tmp_path, engine="workers").model_copy(update={"redis_url": None})
    with pytest.raises(Misconfigured, match=r"batch\.engine = workers .* set redis_url"):
        chosen_engine(alone, None, None, channel="returns")
    with pytest.raises(Misconfigured, match="--address"):
        chosen_engine(settings(tmp_path), None, "auto", channel="returns")
