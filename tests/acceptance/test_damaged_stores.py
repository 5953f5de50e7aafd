"""Real processes whose database goes away, is replaced or is none: they end or answer at once, and say what to do."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import orjson
import pytest

from shoplens.db import upgrade
from tests.acceptance.batch_shop import BatchShop, tiny_photo
from tests.commands import run_command
from tests.conftest import RunningServer, colourful, jpeg_of, running_server

AT_ONCE_S = 30.0
"""Far below the ten minutes for which a run waits for a database that may come back."""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[BatchShop]:
    """Its database, its photos and its model."""
    made = BatchShop(tmp_path / "shop").set_up()
    yield made
    made.close()


def removed(database: Path) -> None:
    """With its log, as an `rm shoplens.db*` does."""
    for path in database.parent.glob("shoplens.db*"):
        path.unlink()


def replaced(database: Path) -> None:
    """By an empty one, as a restore over a running server does."""
    other = database.with_name("other.db")
    upgrade(f"sqlite:///{other}")
    other.replace(database)


@pytest.mark.parametrize("harm", [removed, replaced])
def test_a_run_whose_database_goes_away_ends_at_once(shop: BatchShop, harm: Callable[[Path], None]) -> None:
    """Not after ten minutes of attempts, and without a traceback."""
    shop.settings.update({"SHOPLENS_BATCH__COMMIT_ITEMS": "2", "SHOPLENS_THREADS": "1"})
    for number in range(400):
        shop.bring(f"{number}_1.jpg", tiny_photo(number))
    assert 0 == run_command("batch", "ingest", environment=shop.environment(), folder=shop.root).returncode
    run = shop.start("batch", "run")
    assert run.stderr is not None
    assert any("run.started" in line for line in iter(run.stderr.readline, ""))
    harm(shop.data / "shoplens.db")
    began = time.monotonic()
    _, said = run.communicate(timeout=AT_ONCE_S)
    assert 5 == run.returncode, said
    assert time.monotonic() - began < AT_ONCE_S
    assert "Traceback" not in said
    last = said.partition("hint: ")[0].strip().splitlines()[-1]
    assert last.startswith("error (database_unusable): The database "), said
    assert "start this program again" in last.lower()


@pytest.mark.parametrize("command", ["batch status", "batch run", "batch ingest", "serve --port 0", "db upgrade"])
@pytest.mark.parametrize("damage", ["text", "torn"])
def test_what_is_no_database_ends_a_command_at_once(shop: BatchShop, command: str, damage: str) -> None:
    """A text file, or a database whose pages were overwritten."""
    database = shop.data / "shoplens.db"
    if damage == "text":
        database.write_text("Dear customer,\n" * 1_000)
    else:
        with database.open("r+b") as file:
            file.seek(200)
            file.write(b"\xa5" * (database.stat().st_size - 200))
    done = run_command(*command.split(), environment=shop.environment(), folder=shop.root, timeout_s=AT_ONCE_S)
    assert 5 == done.returncode
    assert "Traceback" not in done.stdout + done.stderr
    last = done.stderr.partition("hint: ")[0].strip().splitlines()[-1]
    assert last.startswith("error (database_unusable): "), done.stderr
    assert "restore it from a backup" in last


@pytest.fixture
def own_server(tmp_path: Path, models_dir: Path) -> Iterator[RunningServer]:
    """A server whose database this test may harm."""
    with running_server(tmp_path / "data", models_dir) as started:
        yield started


@pytest.mark.parametrize("harm", [removed, replaced])
def test_a_server_whose_database_goes_away_answers_503_at_once(
    own_server: RunningServer, photo: bytes, harm: Callable[[Path], None]
) -> None:
    """Photos are not answered as if they had been recorded; readiness says it; the log says what to do."""
    with httpx.Client(base_url=own_server.url, timeout=10, trust_env=False) as client:
        send = partial(client.post, "/predict", files={"file": ("a.jpg", photo, "image/jpeg")})
        first = send()
        assert 200 == first.status_code, first.text
        harm(own_server.data_dir / "shoplens.db")
        for _ in range(3):
            answer = send()
            assert (503, "database_unusable") == (answer.status_code, answer.json()["code"])
        assert 503 == client.get(f"/predictions/{first.json()['id']}").status_code
        ready = client.get("/health/ready")
        assert 503 == ready.status_code
        assert 200 == client.get("/health/live").status_code
    assert "Traceback" not in own_server.log.read_text()
    found = [event for event in own_server.events() if event.get("code") == "database_unusable"]
    assert "start this program again" in str(found).lower()


def test_a_database_that_is_put_back_is_used_again(own_server: RunningServer, photo: bytes) -> None:
    """Nothing was lost, so no restart is needed."""
    database = own_server.data_dir / "shoplens.db"
    with httpx.Client(base_url=own_server.url, timeout=10, trust_env=False) as client:
        send = partial(client.post, "/predict", files={"file": ("a.jpg", photo, "image/jpeg")})
        away = shutil.move(database, own_server.data_dir / "away.db")
        assert 503 == send().status_code
        shutil.move(away, database)
        assert 200 == send().status_code


def test_the_doctor_finds_lost_photos_and_a_damaged_database(own_server: RunningServer, photo: bytes) -> None:
    """Each with what to do; the first is a caution, the second a fault."""
    data = own_server.data_dir
    with httpx.Client(base_url=own_server.url, timeout=60, trust_env=False) as client:
        answer = client.post("/predict", files={"file": ("a.jpg", photo, "image/jpeg")})
        assert 200 == answer.status_code

    def doctor() -> dict[str, dict[str, str]]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOPLENS_")}
        environment |= {"SHOPLENS_DATA_DIR": str(data), "SHOPLENS_MODELS_DIR": str(data / "none")}
        done = run_command("doctor", "--json", environment=environment, folder=data)
        return {finding["part"]: finding for finding in orjson.loads(done.stdout)}

    before = doctor()
    assert "every row has its photo" in before["photos and rows"]["text"]
    assert "its structure is sound" in before["database"]["text"]
    assert not before["SQLite"]["caution"], before["SQLite"]["text"]
    shutil.rmtree(data / "blobs" / "images")
    assert "1 photo of rows is not in the store" in doctor()["photos and rows"]["text"]
    own_server.process.kill()
    own_server.process.wait()
    database = data / "shoplens.db"
    with database.open("r+b") as file:
        file.seek(database.stat().st_size // 2)
        file.write(b"\xff" * 20_000)
    for path in data.glob("shoplens.db-*"):
        path.unlink()
    found = doctor()["database"]
    assert "database_unusable" == found["fault"], found
    assert "restore it from a backup" in found["text"]


def test_a_record_whose_photo_was_changed_answers_with_an_error(tmp_path: Path, models_dir: Path, photo: bytes) -> None:
    """Somebody wrote into the store; a valid photo of somebody else is not shown as if it were the one."""
    with (
        running_server(tmp_path / "data", models_dir, channels__look__keep="original") as server,
        httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client,
    ):
        record = client.post("/predict", files={"file": ("a.jpg", photo, "image/jpeg")}).json()["id"]
        address = f"/predictions/{record}/image?size="
        assert photo == client.get(f"{address}original").content
        [stored] = (server.data_dir / "blobs" / "images").rglob("*.jpg")
        stored.write_bytes(jpeg_of(colourful(77)))
        for size in ("original", "view", "thumbnail"):
            answer = client.get(address + size)
            assert (410, "image_changed") == (answer.status_code, answer.json()["code"]), size
