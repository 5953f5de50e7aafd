"""Killed during intake: no photo without a decision, no answer that is not so, nothing half, nothing twice."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from servers.seaweed import S3Place
from shoplens.db import Database
from shoplens.moderation.tables import moderation_decisions, moderation_intakes, moderation_photos
from shoplens.platform.server import Platform
from shoplens.storage import Store, open_store
from tests.acceptance.dying_intake import POINTS
from tests.acceptance.moderation_photos import sharp
from tests.conftest import client_of, running_server


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One request of a shop."""

    key: str
    photos: tuple[bytes, ...]

    def send(self, client: httpx.Client) -> list[dict[str, Any]]:
        """What became of its photos."""
        files = [("file", ("photo.jpg", photo)) for photo in self.photos]
        answer = client.post(
            "/moderation/photos", files=files, data={"customer": self.key}, headers={"Idempotency-Key": self.key}
        )
        assert 201 == answer.status_code, answer.text
        found: list[dict[str, Any]] = answer.json()["photos"]
        return found


def require_whole(database: Database, store: Store, sent: list[Sent]) -> None:
    """Every request is there once, with all that belongs to it."""
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
    require_whole(platform.database, store, [Sent(key="the key", photos=(sharp(1),))])


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
        (photo,) = Sent(key="k", photos=(sharp(1),)).send(client)
        shown = [client.get(f"{photo['media']}?w=160").content for _ in range(2)]
        assert shown[0] == shown[1]
        assert shown[0].startswith(b"\xff\xd8")
        folder = f"moderation/{photo['id'][-2:]}/{photo['id']}"
        store = open_store(url)
        assert {f"{folder}/original.jpg", f"{folder}/w160.jpg"} == set(store.list("moderation"))
        assert sharp(1) == store.get(f"{folder}/original.jpg")
