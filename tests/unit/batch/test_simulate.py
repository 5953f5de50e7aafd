"""A simulated day looks like a real one, and the same seed makes the same day."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from shoplens.batch.sample_photos import draw, garments
from shoplens.batch.simulate import drawn_samples, photos_below, simulate
from shoplens.db import Database
from shoplens.errors import SourceUnavailable
from shoplens.storage import open_store
from tests.conftest import colourful, jpeg_of
from tests.unit.batch.drop_folder import make_ingest

NOW = datetime.now(UTC).astimezone()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten photos in two folders, and a file that is none."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    (folder / "readme.txt").write_text("no photo")
    for number in range(10):
        place = folder / "sub" if number % 2 else folder
        (place / f"{number}.jpg").write_bytes(jpeg_of(colourful(number, width=64, height=48)))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by its name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_day_has_orders_sidecars_and_two_waves(photos: Path, tmp_path: Path) -> None:
    """Long enough ago to be taken at once."""
    made = simulate(photos_below(photos), tmp_path / "drop", count=80, seed=1, messy=False, now=NOW)
    files = list((tmp_path / "drop").iterdir())
    pictures = [path for path in files if path.suffix == ".jpg"]
    assert (80, 80, made.sidecars) == (made.photos, len(pictures), len(files) - len(pictures))
    assert all(re.fullmatch(r"\d{6}_T\d{4}_\d\.jpg", path.name) for path in pictures)
    assert 80 > len({path.name.split("_")[0] for path in pictures}) > 20
    assert 0 < made.sidecars < 80
    told = [json.loads(path.read_bytes()) for path in files if path.suffix == ".json"]
    assert all({"order", "item", "reason"} == set(each) for each in told)
    moments = [datetime.fromtimestamp(path.stat().st_mtime, NOW.tzinfo) for path in files]
    assert {8, 20} == {moment.hour for moment in moments}
    assert all(timedelta(minutes=40) < NOW - moment < timedelta(days=2) for moment in moments)
    assert 80 == len({path.read_bytes() for path in pictures})


def test_the_same_seed_makes_the_same_day(photos: Path, tmp_path: Path) -> None:
    """And another seed another one."""
    days = []
    for number, seed in enumerate((7, 7, 8)):
        simulate(photos_below(photos), tmp_path / str(number), count=12, seed=seed, messy=True, now=NOW)
        days.append(contents(tmp_path / str(number)))
    assert (True, False) == (days[0] == days[1], days[0] == days[2])


def test_a_messy_day_is_brought_in_whole(photos: Path, tmp_path: Path, database: Database) -> None:
    """One copy, one empty file, and everything else waits for the night."""
    made = simulate(photos_below(photos), tmp_path / "drop", count=10, seed=3, messy=True, now=NOW)
    ingest = make_ingest(database, open_store(str(tmp_path / "blobs")), str(tmp_path / "drop"))
    summary = ingest()
    assert (6, 14, 1, 1) == (made.messy, summary.taken, summary.duplicates, summary.quarantined)
    assert [] == list((tmp_path / "drop").iterdir())
    with database.read_uow() as work:
        assert 14 == work.batch_items.count_waiting("returns")


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    """Also one that is not there."""
    (tmp_path / "text.txt").touch()
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(SourceUnavailable, match="no photos"):
            photos_below(folder)


def test_a_folder_that_cannot_be_filled_is_told(photos: Path, tmp_path: Path) -> None:
    """Here a file stands in its place."""
    (tmp_path / "drop").touch()
    with pytest.raises(SourceUnavailable, match="could not be made"):
        simulate(photos_below(photos), tmp_path / "drop", count=1, seed=0, messy=False, now=NOW)


def test_every_garment_can_be_drawn() -> None:
    """As a photo of its own for each seed, the same for the same seed."""
    drawn = [draw(garment, Random(1)) for garment in garments()]
    assert 9 == len(set(drawn))
    assert drawn[0] == draw(next(garments()), Random(1)) != draw(next(garments()), Random(2))
    with Image.open(io.BytesIO(drawn[0])) as picture:
        assert ("JPEG", (480, 480)) == (picture.format, picture.size)


def test_drawn_samples_are_all_different(tmp_path: Path) -> None:
    """Their articles say what they are."""
    samples = drawn_samples(18, seed=5)
    assert 18 == len({sample.read() for sample in samples})
    assert set(garments()) == {re.sub(r"\d+$", "", each.item) for each in samples}
