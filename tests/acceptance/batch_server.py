"""What tests of batches over HTTP and in the browser share: a tiny model, photos with known outcomes, finished runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from shoplens.bundles.bundle import write_bundle
from tests.conftest import jpeg_of
from tests.unit.bundles.conftest import CARD, LABELS, MANIFEST, small_model

FRUIT = {
    "channels__returns__model": "fruit",
    "channels__returns__accept_at": "0.9",
    "channels__returns__batch__quiet_s": "0",
    "batch__takeover_s": "2",
}
"""Settings of a server whose returns are classified by the tiny model: apple, pear and plum."""
TIMEOUT_S = 120.0


def models_with_fruit(root: Path, models_dir: Path) -> Path:
    """A models directory with the built-in models and the tiny one."""
    root.mkdir(parents=True)
    for built in models_dir.iterdir():
        (root / built.name).symlink_to(built, target_is_directory=True)
    write_bundle(root / "fruit" / "1.2.0", manifest=MANIFEST, labels=LABELS, card=CARD, model=small_model())
    return root


def clear_photo(number: int) -> bytes:
    """One that is surely a pear."""
    return _photo(number, darkest=150, brightest=250)


def dim_photo(number: int) -> bytes:
    """One of which the model is not sure."""
    return _photo(number, darkest=0, brightest=25)


def torn_photo(number: int) -> bytes:
    """One that ends in the middle."""
    data = _photo(number, darkest=0, brightest=250)
    return data[: len(data) // 2]


def send(client: httpx.Client, photos: dict[str, bytes], **references: str) -> list[dict[str, Any]]:
    """Import photos over HTTP; their items."""
    files = [("file", (name, data)) for name, data in photos.items()]
    answer = client.post("/batch/ingest", files=files, data=references)
    assert 200 == answer.status_code, answer.text
    return [photo["item"] for photo in answer.json()["photos"]]


def run_through(client: httpx.Client) -> dict[str, Any]:
    """Start a run and wait for its end."""
    answer = client.post("/batch/runs")
    assert 202 == answer.status_code, answer.text
    return ended(client, answer.json()["id"])


def ended(client: httpx.Client, run_id: str) -> dict[str, Any]:
    """The run once it is over: another process works on it."""
    give_up_at = time.monotonic() + TIMEOUT_S
    while time.monotonic() < give_up_at:
        run: dict[str, Any] = client.get(f"/batch/runs/{run_id}").json()
        if run["state"] in {"finished", "failed"}:
            return run
        time.sleep(0.1)
    raise AssertionError(f"the run does not end: {run}")


def items_of(client: httpx.Client, run_id: str, **filters: str) -> list[dict[str, Any]]:
    """The photos of a run, newest first."""
    found: list[dict[str, Any]] = client.get(f"/batch/runs/{run_id}/items", params=filters).json()["items"]
    return found


def names(items: Sequence[dict[str, Any]]) -> list[str]:
    """The file names of items."""
    return [item["source_name"] for item in items]


def _photo(number: int, *, darkest: int, brightest: int) -> bytes:
    pixels = np.random.default_rng(number).integers(darkest, brightest, (6, 8, 3), dtype=np.uint8)
    return jpeg_of(pixels.repeat(20, 0).repeat(20, 1))
