"""Label names are read from text and JSON files."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoplens.bundles.manifest import Label, labels_from
from shoplens.errors import BundleIncomplete, BundleInvalid


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("labels.txt", "red apple\npear\n"),
        ("labels.txt", "\ufeffred apple\r\n\r\n pear \r\n"),
        ("labels.json", '["red apple", "pear"]'),
        ("labels.JSON", '[{"id": "red apple", "name": "red apple"}, {"id": "pear", "name": "pear"}]'),
    ],
)
def test_lines_and_lists_are_read(tmp_path: Path, file: str, text: str) -> None:
    """Empty lines, byte order marks and spaces around a name are ignored."""
    (tmp_path / file).write_text(text, "utf-8")

    expected = (Label(id="red apple", name="red apple"), Label(id="pear", name="pear"))
    assert expected == labels_from(str(tmp_path / file))


def test_names_that_repeat_get_the_number_of_their_class(tmp_path: Path) -> None:
    """All of them, so that none looks like the only one."""
    (tmp_path / "labels.txt").write_text("crane\ntench\ncrane\n")
    assert ["crane (0)", "tench", "crane (2)"] == [each.name for each in labels_from(str(tmp_path / "labels.txt"))]


@pytest.mark.parametrize(
    ("file", "data", "reason"),
    [
        ("labels.txt", b"", "empty"),
        ("labels.txt", b"\xff\xfe\x00", "UTF-8"),
        ("labels.json", b'[{"id": "a", "name": "pear"}, {"id": "b", "name": "pear"}]', "appears 2 times"),
        ("labels.txt", b"pear\npear\npear (0)\n", "appears 2 times"),
        ("labels.json", b"{", "not JSON"),
        ("labels.json", b"[]", "labels.json"),
        ("labels.json", b'{"0": "pear"}', "labels.json"),
        ("labels.json", b'["pear", 7]', "labels.json"),
    ],
)
def test_files_without_labels_are_refused(tmp_path: Path, file: str, data: bytes, reason: str) -> None:
    """With the reason."""
    (tmp_path / file).write_bytes(data)

    with pytest.raises(BundleInvalid, match=reason):
        labels_from(str(tmp_path / file))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """With the path in the message."""
    with pytest.raises(BundleIncomplete, match="no file of labels"):
        labels_from(str(tmp_path / "nothing.txt"))


def test_the_thousand_names_of_imagenet_are_unique_and_in_the_order_of_their_synsets() -> None:
    """The order of the models' outputs is that of the sorted ids."""
    labels = labels_from("imagenet")

    assert 1000 == len({label.name.casefold() for label in labels})
    assert sorted(label.id for label in labels) == [label.id for label in labels]


@pytest.mark.parametrize(
    ("index", "name"),
    [(0, "tench"), (134, "crane (bird)"), (517, "crane (machine)"), (264, "Cardigan Welsh corgi"), (474, "cardigan"),
     (638, "maillot (one-piece swimsuit)"), (639, "maillot (tank suit)"), (998, "ear of maize"), (999, "toilet paper")],
)  # fmt: skip
def test_ambiguous_names_are_distinguished(index: int, name: str) -> None:
    """Two cranes, two cardigans, two maillots."""
    assert name == labels_from("imagenet")[index].name
