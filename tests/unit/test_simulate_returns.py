"""The example that simulates a day of returns creates realistic files, and the same ones for the same seed."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from examples.simulate_returns import GARMENTS, draw, drawn_photos, main, photos_in, simulate
from tests.conftest import colourful, jpeg_of

NOW = datetime.now(UTC).astimezone()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten photos in two folders, and a text file."""
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


def test_a_day_has_orders_sidecars_and_two_deliveries(photos: Path, tmp_path: Path) -> None:
    """The files are old enough to be imported at once."""
    made = simulate(photos_in(photos), tmp_path / "drop", count=80, seed=1, messy=False, now=NOW)
    files = list((tmp_path / "drop").iterdir())
    pictures = [path for path in files if path.suffix == ".jpg"]
    assert (80, 80, made.sidecars) == (made.photos, len(pictures), len(files) - len(pictures))
    assert all(re.fullmatch(r"\d{6}_T\d{4}_\d\.jpg", path.name) for path in pictures)
    assert 80 > len({path.name.split("_")[0] for path in pictures}) > 20
    assert 0 < made.sidecars < 80
    sidecars = [json.loads(path.read_bytes()) for path in files if path.suffix == ".json"]
    assert all({"order", "item", "reason"} == set(each) for each in sidecars)
    moments = [datetime.fromtimestamp(path.stat().st_mtime, NOW.tzinfo) for path in files]
    assert {8, 20} == {moment.hour for moment in moments}
    assert all(timedelta(minutes=40) < NOW - moment < timedelta(days=2) for moment in moments)
    assert 80 == len({path.read_bytes() for path in pictures})


def test_the_same_seed_creates_the_same_files(photos: Path, tmp_path: Path) -> None:
    """Another seed creates other files."""
    days = []
    for number, seed in enumerate((7, 7, 8)):
        simulate(photos_in(photos), tmp_path / str(number), count=12, seed=seed, messy=True, now=NOW)
        days.append(contents(tmp_path / str(number)))
    assert (True, False) == (days[0] == days[1], days[0] == days[2])


def test_the_program_draws_photos_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And prints what it created."""
    assert 0 == main(["--into", str(tmp_path / "drop"), "--count", "5", "--seed", "7", "--messy"])
    sidecars = len(list((tmp_path / "drop").glob("*.json")))
    assert capsys.readouterr().out == (
        f"{tmp_path / 'drop'}: created 5 photos, {sidecars} sidecar files, 6 broken files (seed 7).\n"
    )
    assert 5 + 6 + sidecars == len(contents(tmp_path / "drop"))


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [("empty", "drop", "no photos"), ("missing", "drop", "no photos"), ("photos", "photos/readme.txt", "readme.txt")],
)
def test_the_program_reports_what_it_cannot_do(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, target: str, words: str
) -> None:
    """A folder without photos, and a target that is a file."""
    (tmp_path / "empty").mkdir()
    assert 1 == main([str(tmp_path / source), "--into", str(tmp_path / target)])
    assert words in capsys.readouterr().err


def test_every_garment_can_be_drawn() -> None:
    """As a different photo for each seed, and the same photo for the same seed."""
    drawn = [draw(garment, Random(1)) for garment in GARMENTS]
    assert 9 == len(set(drawn))
    assert drawn[0] == draw(GARMENTS[0], Random(1)) != draw(GARMENTS[0], Random(2))
    with Image.open(io.BytesIO(drawn[0])) as picture:
        assert ("JPEG", (480, 480)) == (picture.format, picture.size)


def test_drawn_photos_differ() -> None:
    """Their item numbers name the garment."""
    photos = drawn_photos(18, seed=5)
    assert 18 == len({photo.read() for photo in photos})
    assert set(GARMENTS) == {re.sub(r"\d+$", "", each.item) for each in photos}
