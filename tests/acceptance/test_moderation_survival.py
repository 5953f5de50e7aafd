"""Killed during intake: no photo without a decision, no answer that is not so, nothing half, nothing twice."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from sqlalchemy import select

from servers.seaweed import S3Place
from shoplens.db import Database, open_database
from shoplens.moderation.tables import moderation_decisions, moderation_intakes, moderation_photos
from shoplens.platform.server import Platform
from shoplens.storage import Store, open_store
from tests.acceptance.dying_intake import POINTS
from tests.acceptance.moderation_photos import blurred, sharp
from tests.conftest import ONLY_POSTGRESQL, RunningServer, client_of, running_server

KILLS: Final = int(os.environ.get("SHOPLENS_TEST_KILLS", "1"))
SEED: Final = int(os.environ.get("SHOPLENS_TEST_SEED", "0")) or int.from_bytes(os.urandom(3))
CLIENTS: Final = 4
PHOTOS: Final = [sharp(seed, width=320, height=240) for seed in range(6)] + [blurred(7), b"<html>"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One request of a shop; `answer` is None where the server died before it came."""

    key: str
    photos: tuple[bytes, ...]
    answer: list[dict[str, Any]] | None

    def send(self, client: httpx.Client) -> list[dict[str, Any]]:
        """Send it, or send it again."""
        files = [("file", ("photo.jpg", photo)) for photo in self.photos]
        answer = client.post(
            "/moderation/photos", files=files, data={"customer": self.key}, headers={"Idempotency-Key": self.key}
        )
        assert 201 == answer.status_code, answer.text
        found: list[dict[str, Any]] = answer.json()["photos"]
        return found


def send_until_it_dies(server: RunningServer, sent: list[Sent], chance: random.Random, round_: int) -> None:
    """Several shops send; the server is killed at a random moment."""

    def shop(index: int, chance: random.Random) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            for number in range(10_000):
                photos = tuple(chance.choices(PHOTOS, k=chance.randint(1, 3)))
                request = Sent(key=f"{round_}-{index}-{number}", photos=photos, answer=None)
                try:
                    sent.append(Sent(key=request.key, photos=photos, answer=request.send(client)))
                except httpx.HTTPError:
                    sent.append(request)
                    return

    before = len(sent)
    seeds = [chance.getrandbits(32) for _ in range(CLIENTS)]
    shops = [threading.Thread(target=shop, args=(at, random.Random(seed))) for at, seed in enumerate(seeds)]
    for each in shops:
        each.start()
    while len(sent) < before + 8:
        time.sleep(0.01)
    time.sleep(chance.uniform(0, 0.3))
    os.kill(server.process.pid, signal.SIGKILL)
    for each in shops:
        each.join(60)


def require_whole(database: Database, store: Store, sent: list[Sent]) -> set[str]:
    """Every request is there once, with all that belongs to it; returns the ids of all photos."""
    with database.reading() as tx:
        intakes = {row.id: row for row in tx.execute(select(moderation_intakes))}
        photos = tx.execute(select(moderation_photos)).all()
        decided = Counter((row.photo_id, row.to_state) for row in tx.execute(select(moderation_decisions)))
    assert sorted(each.key for each in sent) == sorted(row.idempotency_key for row in intakes.values())
    assert {(row.id, row.state): 1 for row in photos} == decided
    places: dict[str, list[int]] = {intake: [each.position for each in row.unusable] for intake, row in intakes.items()}
    for row in photos:
        places[row.intake_id].append(row.position)
        data = store.get(f"{row.image_key}/original.jpg")
        assert row.image_sha256 == hashlib.sha256(data).hexdigest()
    expected = {each.key: len(each.photos) for each in sent}
    assert expected == {intakes[intake].idempotency_key: len(set(found)) for intake, found in places.items()}
    return {row.id for row in photos}


@ONLY_POSTGRESQL
def test_killed_at_random_moments_nothing_is_lost_half_or_twice(
    tmp_path: Path, models_dir: Path, database_url: str
) -> None:
    """Whatever was answered is so, whatever was not can be sent again, and files without a row are not shown."""
    chance = random.Random(SEED)
    sent: list[Sent] = []
    for round_ in range(KILLS):
        with running_server(tmp_path / "data", models_dir, database_url=database_url) as server:
            send_until_it_dies(server, sent, chance, round_)
    with (
        running_server(tmp_path / "data", models_dir, database_url=database_url) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        again = [each.send(client) for each in sent]
        assert [] == [(each, now) for each, now in zip(sent, again, strict=True) if each.answer not in (None, now)], (
            f"seed {SEED}"
        )
        store = open_store(str(tmp_path / "data" / "blobs"))
        opened = open_database(database_url)
        ids = require_whole(opened, store, sent)
        opened.close()
        stored = {key.split("/")[2] for key in store.list("moderation")}
        assert ids <= stored
        for photo in (photo for answer in again for photo in answer if photo["id"] is not None):
            assert (200 if photo["state"] == "published" else 404) == client.get(f"/media/{photo['id']}").status_code
        for orphan in stored - ids:
            assert 404 == client.get(f"/media/{orphan}").status_code, f"seed {SEED}"


def die_at(point: str, data_dir: Path, models_dir: Path) -> None:
    """Let a process take in a photo and die there."""
    command = [sys.executable, "-m", "tests.acceptance.dying_intake", point, str(data_dir), str(models_dir)]
    ended = subprocess.run(command, timeout=120, check=False, capture_output=True)
    assert -signal.SIGKILL == ended.returncode, ended.stderr


@pytest.mark.parametrize("point", POINTS)
async def test_killed_at_any_step_the_request_can_be_sent_again(
    point: str, make_platform: Callable[..., Platform], tmp_path: Path, models_dir: Path
) -> None:
    """Files without a row are all that is left of it, or it was done; a photo never has a row without its file."""
    data_dir = tmp_path / "data"
    die_at(point, data_dir, models_dir)
    platform = make_platform()
    store = open_store(str(data_dir / "blobs"))
    with platform.database.reading() as tx:
        rows = tx.execute(select(moderation_photos)).all()
    assert ("after the commit" == point) is bool(rows)
    assert ("before its files" != point) is bool(list(store.list("moderation")))
    assert [sharp(1)] * len(rows) == [store.get(f"{row.image_key}/original.jpg") for row in rows]
    async with client_of(platform) as client:
        form = {"file": ("a.jpg", sharp(1))}
        again = await client.post("/moderation/photos", files=form, headers={"Idempotency-Key": "the key"})
        (photo,) = again.json()["photos"]
        assert 200 == (await client.get(photo["media"])).status_code
    assert bool(rows) is ("idempotent-replayed" in again.headers)
    require_whole(platform.database, store, [Sent(key="the key", photos=(sharp(1),), answer=None)])


def test_photos_of_reviews_are_kept_in_a_bucket(
    s3: S3Place, tmp_path: Path, models_dir: Path, monkeypatch: Any
) -> None:
    """The original and the copies that were shown, in the folder of the photo."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    url = f"{s3.url}/reviews"
    with (
        running_server(tmp_path / "data", models_dir, storage_url=url) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        (photo,) = Sent(key="k", photos=(sharp(1),), answer=None).send(client)
        shown = [client.get(f"{photo['media']}?w=160").content for _ in range(2)]
        assert shown[0] == shown[1]
        assert shown[0].startswith(b"\xff\xd8")
        folder = f"moderation/{photo['id'][-2:]}/{photo['id']}"
        store = open_store(url)
        assert {f"{folder}/original.jpg", f"{folder}/w160.jpg"} == set(store.list("moderation"))
        assert sharp(1) == store.get(f"{folder}/original.jpg")
