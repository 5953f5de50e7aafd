"""Killed at random, or when an answer arrives, while photos come in, people decide and events go out: all is kept.

`SHOPLENS_TEST_KILLS_S` makes it longer than the checks have time for, `SHOPLENS_TEST_SEED` draws otherwise.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
from sqlalchemy import func, select, update

from shoplens.db import Database, open_database
from shoplens.moderation.entities import DecisionKind, PhotoState
from shoplens.moderation.files import PhotoFiles
from shoplens.moderation.photos import PhotoService
from shoplens.moderation.repository import PhotoFilter, PhotoRepository
from shoplens.moderation.tables import moderation_intakes, moderation_photos
from shoplens.settings import Settings
from shoplens.storage import open_store
from shoplens.webhooks.entities import DeliveryState
from shoplens.webhooks.tables import webhook_deliveries, webhook_events
from tests.acceptance.moderation_load import Answers, Crowd, Trap, listening, picture_fault
from tests.conftest import RunningServer, running_server

LASTS_S = float(os.environ.get("SHOPLENS_TEST_KILLS_S", "9"))
SEED = int(os.environ.get("SHOPLENS_TEST_SEED") or 1)
SETTINGS = {"webhook_networks": "127.0.0.0/8", "log_level": "warning"}
PATIENCE_S = 120
LEAST = 5
"""So many photos and decisions are there at least, however slow the machine is."""


def test_nothing_is_lost_or_half_when_the_server_is_killed(
    tmp_path: Path, models_dir: Path, make_settings: Callable[..., Settings]
) -> None:
    """Every promise of an answer holds after the last kill, and what was never answered is whole or not there."""
    chance = random.Random(SEED)
    where: list[str | None] = [None]
    trap = Trap()
    crowd = Crowd(SEED, urls=lambda: where[0], trap=trap)
    kills: list[str] = []
    with listening(trap) as (hooks, received, _):
        ends_at = time.monotonic() + LASTS_S
        while (
            time.monotonic() < ends_at or crowd.answers.decisions.total() < LEAST or len(crowd.answers.photos) < LEAST
        ):
            with running_server(tmp_path / "data", models_dir, **SETTINGS) as server:
                if not kills:
                    httpx.post(f"{server.url}/webhooks", json={"url": hooks}).raise_for_status()
                    crowd.start()
                where[0] = server.url
                when = chance.choice(("intake", "decision", "event", "any"))
                time.sleep(chance.uniform(0.5, 1.5))
                trap.set(when, partial(server.process.send_signal, signal.SIGKILL))
                if not trap.sprung.wait(1.0 if when == "any" else 10.0):
                    trap.set(None, lambda: None)
                    server.process.send_signal(signal.SIGKILL)
                where[0] = None
                server.process.wait()
                kills.append(when)
        _end_leases(tmp_path / "data")
        with running_server(tmp_path / "data", models_dir, **SETTINGS) as server:
            where[0] = server.url
            crowd.stop()
            _wait_for_events(server)
            store = open_store(make_settings(data_dir=tmp_path / "data").effective_storage_url)
            _require_public_view(server, crowd.answers, {key.split("/")[2] for key in store.list("moderation")})
    answers = crowd.answers
    settings = make_settings(data_dir=tmp_path / "data")
    database = open_database(settings.effective_database_url)
    _require_rows(database, answers)
    _require_files(database, PhotoFiles(store))
    events = _require_events(database, received, answers.photos)
    database.close()
    sys.stderr.write(
        f"\nseed {SEED}: {len(kills)} kills {dict(Counter(kills))}, {len(answers.intakes)} intakes with "
        f"{len(answers.photos)} photos, {answers.decisions.total()} decisions ({answers.unsure.total()} unsure), "
        f"{answers.reports} reports, {answers.pictures} pictures, {events} events, "
        f"{received.total() - len(received)} repeated\n"
    )


def _end_leases(data_dir: Path) -> None:
    """As time would do within a minute."""
    database = open_database(f"sqlite:///{data_dir / 'shoplens.db'}")
    with database.transaction() as tx:
        tx.execute(update(webhook_deliveries).values(lease_until=None))
    database.close()


def _wait_for_events(server: RunningServer) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while (counts := httpx.get(f"{server.url}/webhooks").json()[0]["counts"]).get("pending"):
        assert time.monotonic() < give_up_at, counts
        time.sleep(0.1)


def _require_public_view(server: RunningServer, answers: Answers, stored: set[str]) -> None:
    """The public sees exactly the published photos, whole, and no files that have no row."""
    assert [] == answers.wrong, f"seed {SEED}"
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        for photo_id in answers.photos:
            state = client.get(f"/moderation/photos/{photo_id}").raise_for_status().json()["state"]
            for _ in range(2):  # the second one is what was stored of the first
                picture = client.get(f"/media/{photo_id}", params={"w": 160})
                if state == PhotoState.PUBLISHED:
                    assert None is picture_fault(picture, width=160), photo_id
                else:
                    assert 404 == picture.status_code, photo_id
        assert set(answers.photos) <= stored
        for orphan in stored.difference(answers.photos):
            assert 404 == client.get(f"/media/{orphan}").status_code, f"seed {SEED}"


def _require_rows(database: Database, answers: Answers) -> None:
    """No state without its decision, no answer without its rows, no decision lost or twice."""
    with database.reading() as tx:
        intakes = {
            key: intake_id
            for intake_id, key in tx.execute(select(moderation_intakes.c.id, moderation_intakes.c.idempotency_key))
        }
        stored = tx.execute(select(moderation_photos.c.id, moderation_photos.c.intake_id)).all()
    assert set(answers.intakes) == set(intakes)
    of_intake = Counter(photo.intake_id for photo in stored)
    assert answers.usable == {key: of_intake[intake_id] for key, intake_id in intakes.items()}
    assert set(answers.photos) == {photo.id for photo in stored}
    photos = PhotoService(database)
    decided: Counter[tuple[str, str, str]] = Counter()
    for photo_id in answers.photos:
        photo, history = photos.history(photo_id)
        assert (photo.state, None) == (history[-1].to_state, history[0].from_state), photo_id
        assert [each.to_state for each in history[:-1]] == [each.from_state for each in history[1:]], photo_id
        decided.update(
            (photo_id, each.by_id, each.to_state.value) for each in history if each.kind is DecisionKind.PERSON
        )
    lost = answers.decisions - decided
    assert not lost, f"seed {SEED}"
    more = Counter(photo_id for photo_id, _, _ in (decided - answers.decisions).elements())
    assert not more - answers.unsure, f"seed {SEED}"


def _require_files(database: Database, files: PhotoFiles) -> None:
    """Every photo has the file that was sent."""
    with database.reading() as tx:
        found = PhotoRepository(tx).page(PhotoFilter(), limit=1_000_000)
    for photo in found:
        files.original(photo)  # raises unless the bytes are those of the intake


def _require_events(database: Database, received: Counter[str], known: list[str]) -> int:
    """Each change of a state has one event, and each event came at least once."""
    with database.reading() as tx:
        events = {row.id: row.data["id"] for row in tx.execute(select(webhook_events))}
        undelivered = tx.scalar(select(func.count()).where(webhook_deliveries.c.state != DeliveryState.DELIVERED.value))
    assert 0 == undelivered
    assert set(events) == set(received), f"seed {SEED}"
    photos = PhotoService(database)
    per_photo = Counter(events.values())
    for photo_id in known:
        _, history = photos.history(photo_id)
        assert per_photo[photo_id] == sum(each.from_state is not each.to_state for each in history), photo_id
    return len(events)
