"""Names that others chose are judged and written down without harm."""

from __future__ import annotations

import os

import pytest

from shoplens.batch.names import is_ignored, is_sidecar, readable, told_photo


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("4711_A12_1.jpg", "4711_A12_1.jpg"),
        ("Größe 'M' \"😀\".jpg", "Größe 'M' \"😀\".jpg"),
        ("a\nb\t\x1b[31m.jpg", "a\\nb\\t\\x1b[31m.jpg"),
        (os.fsdecode(b"caf\xe9.jpg"), "caf\\xe9.jpg"),
        ("half \ud800 pair", "half \\ud800 pair"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("../../etc/passwd", "../../etc/passwd"),
        ("", ""),
    ],
)
def test_any_name_can_be_written_down(name: str, expected: str) -> None:
    """Nothing in it moves a cursor, breaks a line or fails to be stored."""
    assert expected == readable(name)


def test_a_very_long_name_keeps_both_ends_and_stays_different() -> None:
    """Within what an index can hold."""
    names = [readable("a" * 5_000 + middle + "é" * 5_000 + ".jpg") for middle in "xy"]
    assert 2 == len(set(names))
    assert all(len(name.encode()) <= 1_000 and name.endswith("é.jpg") and name.startswith("aaa") for name in names)


@pytest.mark.parametrize(
    "name", [".a.jpg", "a.jpg.part", "A.JPG.PART", "a.tmp", "a.filepart", "a.crdownload", "a.jpg~", ".nfs0001"]
)
def test_hidden_and_unfinished_files_are_not_looked_at(name: str) -> None:
    """Their names are what upload programs use for them."""
    assert is_ignored(name)


def test_a_sidecar_belongs_to_the_photo_whose_name_it_begins_with() -> None:
    """Everything else that ends so is a list."""
    told = {name: told_photo(name) for name in ("a.jpg.json", "A.HEIC.JSON", "a.json", "a.csv.json", "a.csv", "a.jpg")}
    assert {"a.jpg": "a.jpg.json", "A.HEIC": "A.HEIC.JSON"} == {photo: name for name, photo in told.items() if photo}
    assert [True, True, False] == [is_sidecar(name) for name in ("a.jpg.json", "b.CSV", "c.jpg")]
