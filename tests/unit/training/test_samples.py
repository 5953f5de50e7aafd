"""Labelled photos are read from folders, CSVs and archives; what cannot be used is reported."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shoplens.images.decoder import decode
from shoplens.images.picture import Limits
from shoplens.training.errors import DatasetInvalid
from shoplens.training.samples import UnreadableFile, read_dataset
from tests.conftest import colourful, jpeg_of
from tests.unit.training.colours import write_photos


def small_arrays(file: Path, **changes: Any) -> Path:
    """A NumPy archive of 6 + 3 grey pictures in three classes; an array set to None is left out."""
    random = np.random.default_rng(0)
    arrays: dict[str, NDArray[Any] | None] = {
        "x_train": random.integers(0, 256, (6, 12, 10), np.uint8), "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": random.integers(0, 256, (3, 12, 10), np.uint8), "y_test": np.array([2, 1, 0]),
    }  # fmt: skip
    arrays |= changes
    kept: dict[str, Any] = {name: array for name, array in arrays.items() if array is not None}
    np.savez(file, **kept)
    return file


def test_a_folder_per_class_gives_its_labels(photos: Path) -> None:
    """Sorted by name, with the size and both hashes of each photo."""
    dataset = read_dataset(photos, threads=2)
    assert ("blue", "green", "red") == dataset.classes
    assert 90 == len(dataset.samples) == len({sample.sha256 for sample in dataset.samples})
    first = dataset.samples[0]
    assert ("blue/000.jpg", 0, 48, 40, 16) == (first.name, first.label, first.width, first.height, len(first.phash))
    assert (photos / "blue" / "000.jpg").read_bytes() == first.data()
    assert (40, 48, 3) == first.picture().pixels.shape


def test_the_hash_of_a_folder_is_what_sha256sum_says(photos: Path) -> None:
    """It can be checked without Shoplens."""
    command = "find * -type f | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum"
    said = subprocess.run(["bash", "-c", command], cwd=photos, capture_output=True, text=True, check=True).stdout
    assert said.split()[0] == read_dataset(photos).sha256


def test_hidden_and_system_files_are_ignored(photos: Path) -> None:
    """So are files beside the folders; photos in folders below a class are read."""
    (photos / "blue" / ".DS_Store").write_bytes(b"x")
    (photos / "blue" / "Thumbs.db").write_bytes(b"x")
    (photos / "LICENSE").write_text("free")
    (photos / ".git" / "objects").mkdir(parents=True)
    (photos / "red" / "more").mkdir()
    (photos / "red" / "more" / "x.jpg").write_bytes(jpeg_of(colourful(7)))
    dataset = read_dataset(photos)
    assert (91, ()) == (len(dataset.samples), dataset.unreadable)
    assert "red/more/x.jpg" == dataset.samples[-1].name


def test_unreadable_files_are_reported_with_the_reason(photos: Path) -> None:
    """Truncated, a PDF named .jpg, empty, too large, a text."""
    whole = (photos / "red" / "000.jpg").read_bytes()
    (photos / "red" / "a-cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "red" / "b-document.jpg").write_bytes(b"%PDF-1.7 ...")
    (photos / "red" / "c-empty.jpg").touch()
    (photos / "red" / "d-large.jpg").write_bytes(bytes(50_000))
    (photos / "red" / "e-note.txt").write_text("These are red.")
    dataset = read_dataset(photos, limits=Limits(max_bytes=40_000))
    assert 90 == len(dataset.samples)
    assert [
        ("red/a-cut.jpg", "image_corrupt"),
        ("red/b-document.jpg", "image_unsupported"),
        ("red/c-empty.jpg", "image_missing"),
        ("red/d-large.jpg", "image_too_large"),
        ("red/e-note.txt", "image_unsupported"),
    ] == [(file.name, file.code) for file in dataset.unreadable]
    assert "PDF" in dataset.unreadable[1].reason


def test_progress_is_reported_for_every_photo(photos: Path) -> None:
    """In order, up to all of them."""
    progress: list[tuple[int, int]] = []
    read_dataset(photos, on_progress=lambda done, total: progress.append((done, total)))
    assert [(done, 90) for done in range(1, 91)] == progress


def test_a_photo_that_changes_after_the_check_is_refused(photos: Path) -> None:
    """The hash on the card must be that of the training data."""
    dataset = read_dataset(photos)
    (photos / "blue" / "000.jpg").write_bytes(jpeg_of(colourful(5)))
    (photos / "blue" / "001.jpg").unlink()
    with pytest.raises(DatasetInvalid, match="has changed"):
        dataset.samples[0].picture()
    with pytest.raises(DatasetInvalid, match="can no longer be read"):
        dataset.samples[1].picture()


def test_a_csv_lists_photos_relative_to_itself(photos: Path) -> None:
    """Labels may have quotes, commas, line ends of any system and letters of any script; other columns are ignored."""
    rows = ['"Schal, ""lang""",a,red/000.jpg', " 👗 ,b,blue/000.jpg", "", "👗,c,gone.jpg"]
    (photos / "list.csv").write_bytes("\r\n".join(["\ufeffLabel,shop,path", *rows]).encode())
    dataset = read_dataset(photos / "list.csv")
    assert ('Schal, "lang"', "👗") == dataset.classes
    assert [("red/000.jpg", 0), ("blue/000.jpg", 1)] == [(sample.name, sample.label) for sample in dataset.samples]
    assert [("gone.jpg", "image_missing")] == [(file.name, file.code) for file in dataset.unreadable]


@pytest.mark.parametrize("mark", [";", "\t"])
def test_semicolons_and_tabs_separate_columns_too(photos: Path, mark: str) -> None:
    """Spreadsheets of some countries write them."""
    (photos / "list.csv").write_text(f"path{mark}label\nred/000.jpg{mark}a, b\nblue/000.jpg{mark}c\n")
    assert ("a, b", "c") == read_dataset(photos / "list.csv").classes


def test_a_repeated_row_counts_once(photos: Path) -> None:
    """The same path under the same label."""
    (photos / "list.csv").write_text("path,label\nred/000.jpg,a\nred/000.jpg,a\nred/000.jpg,b\n")
    assert [0, 1] == [sample.label for sample in read_dataset(photos / "list.csv").samples]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("file,label\na.jpg,x\n", "one column `path` and one column `label`"),
        ("path,label,label\na.jpg,x,y\n", "one column `path` and one column `label`"),
        ("", "Its columns are: none"),
        ("path,label\n../a.jpg,x\n", "line 2.*below the folder"),
        ("path,label\n/etc/passwd,x\n", "line 2.*below the folder"),
        ("path,label\nC:/a.jpg,x\n", "line 2.*below the folder"),
        ("path,label\n,x\n", "line 2.*below the folder"),
        ("path,label\nred/000.jpg,\n", "line 2: the label is empty"),
        ("path,label\nred/000.jpg\n", "line 2: 1 cells are too few"),
        ("path,label\nred/000.jpg,a\x07b\n", "control characters"),
        ("path,label\nred/000.jpg," + "x" * 201 + "\n", "1 to 200 characters"),
        ('path,label\nred/000.jpg,"x\n', "is not a CSV"),
        ("path,label\nred/000.jpg,Shoes\nred/001.jpg,shoes\n", "too similar"),
        ("path,label\n", "lists no photos"),
        ("path,label\na.jpg,x\nb.jpg,y\n", "None of the 2 photos"),
    ],
)
def test_an_invalid_csv_is_refused_with_the_line(photos: Path, text: str, reason: str) -> None:
    """No file outside its folder is opened."""
    (photos / "list.csv").write_text(text)
    with pytest.raises(DatasetInvalid, match=reason):
        read_dataset(photos / "list.csv")


def test_a_link_out_of_the_folder_of_a_csv_is_refused(photos: Path, tmp_path: Path) -> None:
    """A CSV must not give access to other files."""
    (tmp_path / "secret.jpg").write_bytes(jpeg_of(colourful(1)))
    (photos / "inside.jpg").symlink_to(tmp_path / "secret.jpg")
    (photos / "list.csv").write_text("path,label\ninside.jpg,x\n")
    with pytest.raises(DatasetInvalid, match="leads out"):
        read_dataset(photos / "list.csv")


def test_a_csv_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """It must be UTF-8."""
    (tmp_path / "list.csv").write_bytes(b"path,label\n\xff\xfe,x\n")
    with pytest.raises(DatasetInvalid, match="UTF-8"):
        read_dataset(tmp_path / "list.csv")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda root: root.mkdir(), "no folders"),
        (lambda root: [(root / name).mkdir(parents=True) for name in ("a", "b")], "lists no photos"),
        (lambda root: root.write_text("x"), "neither a folder"),
        (lambda root: None, "nothing at"),
        (lambda root: [(root / name).mkdir(parents=True) for name in ("train", "Test")], "--test"),
        (lambda root: [(root / name).mkdir(parents=True) for name in ("Hat", "hat ")], "lists no photos"),
    ],
)
def test_a_source_without_photos_is_refused(tmp_path: Path, make: Any, reason: str) -> None:
    """An empty folder, a wrong file, the parts of a dataset."""
    make(tmp_path / "source")
    with pytest.raises(DatasetInvalid, match=reason):
        read_dataset(tmp_path / "source")


def test_folders_whose_names_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    """They are hard to distinguish on a page."""
    for name in ("Hat", "hat"):
        (tmp_path / "s" / name).mkdir(parents=True)
        (tmp_path / "s" / name / "a.jpg").write_bytes(jpeg_of(colourful(len(name))))
    with pytest.raises(DatasetInvalid, match="too similar"):
        read_dataset(tmp_path / "s")


def test_labels_that_the_training_data_lacks_are_refused(photos: Path, tmp_path: Path) -> None:
    """Validation and test share the classes of the training data."""
    other = write_photos(tmp_path / "other", each=1)
    (other / "green").rename(other / "grün")
    with pytest.raises(DatasetInvalid, match=r"not among.*'grün'"):
        read_dataset(other, classes=("blue", "green", "red"))
    assert ("blue", "grün", "red", "x") == read_dataset(other, classes=("blue", "grün", "red", "x")).classes


def test_an_archive_gives_views_into_its_arrays(tmp_path: Path) -> None:
    """Two parts with numbers as class names; no pixel is copied."""
    dataset = read_dataset(small_arrays(tmp_path / "a.npz"))
    assert (("0", "1", "2"), 6, 3) == (dataset.classes, len(dataset.samples), len(dataset.test))
    assert [2, 1, 0] == [sample.label for sample in dataset.test]
    first, second = (sample.origin.pixels for sample in dataset.samples[:2])  # type: ignore[attr-defined]
    assert first.base is second.base
    assert 9 == len({sample.sha256 for sample in (*dataset.samples, *dataset.test)})
    assert {""} == {sample.phash for sample in dataset.samples}


@pytest.mark.parametrize("shape", [(6, 12, 10), (6, 12, 10, 3)])
def test_training_and_serving_get_the_same_small_picture(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Training reads it from the array, serving decodes it from a PNG."""
    pixels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    sample = read_dataset(small_arrays(tmp_path / "a.npz", x_train=pixels)).samples[3]
    direct, served = sample.picture(224), decode(sample.data(), limits=Limits())
    assert ((12, 10, 3), "png", 10, 12) == (direct.pixels.shape, direct.format, direct.width, direct.height)
    assert (direct.pixels == served.pixels).all()


def test_class_names_of_an_archive_come_from_the_file_the_archive_or_the_numbers(tmp_path: Path) -> None:
    """In that order."""
    (tmp_path / "names.txt").write_text("T-shirt/top\nTrouser\nAnkle boot\n")
    plain = small_arrays(tmp_path / "plain.npz")
    named = small_arrays(tmp_path / "named.npz", labels=np.array(["x", "y", "z"]))
    assert ("T-shirt/top", "Trouser", "Ankle boot") == read_dataset(named, labels=tmp_path / "names.txt").classes
    assert ("x", "y", "z") == read_dataset(named).classes
    assert ("0", "1", "2") == read_dataset(plain).classes


def test_arrays_can_have_short_names(tmp_path: Path) -> None:
    """Xtr, ytr, Xte and yte."""
    whole = np.load(small_arrays(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", Xtr=whole["x_train"], ytr=whole["y_train"][:, None], Xte=whole["x_test"],
             yte=whole["y_test"])  # fmt: skip
    short = read_dataset(tmp_path / "b.npz")
    assert [sample.sha256 for sample in read_dataset(tmp_path / "a.npz").samples] == [s.sha256 for s in short.samples]
    assert 3 == len(short.test)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"y_train": None}, "must contain the arrays"),
        ({"x_train": np.zeros((6, 12, 10), np.float32)}, "must be uint8"),
        ({"x_train": np.zeros((6, 120), np.uint8)}, "must be uint8"),
        ({"x_train": np.zeros((6, 4, 4, 4), np.uint8)}, "must be uint8"),
        ({"x_train": np.zeros((6, 0, 4), np.uint8)}, "sides of 1 to"),
        ({"x_train": np.zeros((6, 4, 600), np.uint8)}, "sides of 1 to"),
        ({"y_train": np.zeros(5, np.int64)}, "one integer per picture"),
        ({"y_train": np.zeros(6)}, "one integer per picture"),
        ({"y_train": np.full(6, -1)}, "between 0 and"),
        ({"y_train": np.full(6, 10**6)}, "between 0 and"),
        ({"labels": np.array(["a", "b"])}, "2 different names for 3 classes"),
        ({"labels": np.array(["a", "a", "b"])}, "2 different names for 3 classes"),
        ({"labels": np.array(["a", "A", "b"])}, "too similar"),
        ({"labels": np.arange(3)}, "list of names"),
        ({"x_train": np.array([{}] * 6, dtype=object)}, "cannot be read"),
    ],
)
def test_an_invalid_archive_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    """The message names the arrays. Pickled content is never loaded."""
    with pytest.raises(DatasetInvalid, match=reason):
        read_dataset(small_arrays(tmp_path / "a.npz", **changes))


def test_a_file_that_is_not_an_archive_is_refused(tmp_path: Path) -> None:
    """Its suffix does not matter."""
    (tmp_path / "a.npz").write_bytes(b"nothing of the kind")
    with pytest.raises(DatasetInvalid, match="cannot be read"):
        read_dataset(tmp_path / "a.npz")


def test_a_file_of_class_names_is_for_archives_only(photos: Path, tmp_path: Path) -> None:
    """A missing file is refused."""
    with pytest.raises(DatasetInvalid, match="--labels is for"):
        read_dataset(photos, labels=tmp_path / "names.txt")
    with pytest.raises(DatasetInvalid, match="no file of labels"):
        read_dataset(small_arrays(tmp_path / "a.npz"), labels=tmp_path / "names.txt")


def test_an_unreadable_file_has_the_code_and_message_of_the_server(tmp_path: Path) -> None:
    """An SVG, as an example."""
    root = write_photos(tmp_path / "p", each=1)
    (root / "red" / "x.jpg").write_bytes(b"<svg/>")
    (unreadable,) = read_dataset(root).unreadable
    expected = "Unsupported file type. This is an SVG drawing. Use JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC."
    assert UnreadableFile(name="red/x.jpg", code="image_unsupported", reason=expected) == unreadable
