"""A shop whose reviews channel holds every photo, with as many channels as tests need."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from PIL import Image, ImageFilter

from tests.conftest import RunningServer, colourful, jpeg_of, running_server

HOLDS_ALL: Final = {"model": "opennsfw", "keep": "nothing", "labels": {"safe": {"review_at": 0.05}}}


def moderating_server(
    root: Path, models_dir: Path, *channels: str, **more: Any
) -> AbstractContextManager[RunningServer]:
    """A server with these channels; `more` changes the moderation side of all."""
    moderated = {**HOLDS_ALL, "moderation": {"general_model": None, **more}}
    settings = {f"channels__{name}": json.dumps(moderated) for name in channels}
    return running_server(root, models_dir, **settings)


def photo_of(seed: int) -> bytes:
    """A blurred photo, another for each seed; its upper left corner tells people which."""
    blurred = Image.fromarray(colourful(seed, width=640, height=480)).filter(ImageFilter.GaussianBlur(3))
    return jpeg_of(np.asarray(blurred))


def send_photos(url: str, channel: str, number: int, *, first: int = 0, **fields: str) -> list[str]:
    """The ids of so many photos that a shopper sends, all held, in the order of the queue."""
    ids: list[str] = []
    with httpx.Client(base_url=url, trust_env=False, timeout=120) as client:
        for start in range(0, number, 10):
            seeds = range(first + start, first + min(start + 10, number))
            files = [("file", (f"{seed}.jpg", photo_of(seed))) for seed in seeds]
            answer = client.post("/moderation/photos", files=files, data={"channel": channel, **fields})
            assert answer.status_code == 201, answer.text
            photos = answer.json()["photos"]
            assert {each["state"] for each in photos} == {"held"}, photos
            ids += [each["id"] for each in photos]
    return sorted(ids)


def states_of(url: str, ids: list[str]) -> list[str]:
    """What the public sees of each photo."""
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        return [str(client.get(f"/moderation/photos/{each}").json()["state"]) for each in ids]


def decisions_on(url: str, ids: list[str]) -> list[list[str]]:
    """How each photo was decided by people: the kinds of the entries of its history that stand."""
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        histories = [client.get(f"/moderation/photos/{each}/context").json()["history"] for each in ids]
    return [[entry["kind"] for entry in history if entry["kind"] != "policy"] for history in histories]
