"""The photos of a load test."""

from __future__ import annotations

import io
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from load.photos import SHARES, Album, form, unlike_others
from tests.conftest import colourful, jpeg_of


def test_photos_of_a_folder_are_described_by_their_pixels(tmp_path: Path) -> None:
    """Whatever lies beside them, and however deep they lie."""
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "a.JPG").write_bytes(jpeg_of(colourful(1)))
    (tmp_path / "b.jpeg").write_bytes(jpeg_of(colourful(2, width=1200, height=900)))
    (tmp_path / "notes.txt").write_text("no photo")
    album = Album.read(tmp_path)
    assert {"1 MP": 1, "224 px": 1} == {name: len(photos) for name, photos in album.by_size.items()}


def test_a_folder_without_photos_is_reported(tmp_path: Path) -> None:
    """Before anything is started."""
    with pytest.raises(ValueError, match="no JPEG below"):
        Album.read(tmp_path)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Photos are made once and used by later load tests."""
    album = Album(by_size={"224 px": (jpeg_of(colourful(1)), jpeg_of(colourful(2)))})
    album.write(tmp_path)
    assert album == Album.read(tmp_path)


def test_sizes_come_in_their_shares() -> None:
    """Within what chance does to ten thousand."""
    album = Album(by_size=dict.fromkeys(SHARES, (jpeg_of(colourful(1)),)))
    chance = random.Random(5)
    counted = Counter(album.pick(chance)[0] for _ in range(10_000))
    assert SHARES == pytest.approx({name: count / 10_000 for name, count in counted.items()}, abs=0.02)


def test_no_two_photos_are_the_same_and_all_look_the_same() -> None:
    """Else the store would keep the first one only."""
    photo = jpeg_of(colourful(1))
    first, second = unlike_others(photo), unlike_others(photo)
    assert 3 == len({photo, first, second})
    assert np.array_equal(_pixels(photo), _pixels(first))


def test_a_form_is_as_a_browser_sends_it() -> None:
    """Boundary, name of the file, and the photo untouched."""
    body, headers = form(b"\xff\xd8photo", "a.jpg")
    boundary = headers["Content-Type"].partition("boundary=")[2].encode()
    assert (b"", b"--\r\n") == (body.split(b"--" + boundary)[0], body.split(b"--" + boundary)[-1])
    assert b'name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8photo\r\n' in body


def _pixels(jpeg: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(jpeg)))
