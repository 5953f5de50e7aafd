"""Photos are imported from a CSV manifest: by path or key, safely, with a report for each bad line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shoplens.batch.entities import ItemState, References
from shoplens.batch.import_stats import ImportSummary
from shoplens.batch.manifest import ManifestSource
from shoplens.db import Database
from shoplens.errors import SourceUnavailable
from shoplens.storage import ObjectPrefix, open_prefix, open_store
from tests.conftest import ONLY_SQLITE
from tests.unit.batch.drop_folder import LARGEST, Drop, make_importer

pytestmark = ONLY_SQLITE  # what the importer writes is tested on both in test_importer.py

JPEG = b"\xff\xd8\xff\xe0 a photo "
Import = Callable[[bytes | str], ImportSummary]


@pytest.fixture
def objects() -> ObjectPrefix:
    """The bucket of the channel's source."""
    return open_prefix("memory://")


@pytest.fixture
def drop(database: Database, tmp_path: Path, objects: ObjectPrefix) -> Drop:
    """A folder for the photos and the manifest."""
    folder = tmp_path / "photos"
    folder.mkdir()

    def open_source(url: str) -> ManifestSource:
        own = folder / "shoplens-data"
        return ManifestSource(Path(url), objects=objects, protected=[own], quiet_s=10, now=time.time)

    store = open_store(str(tmp_path / "blobs"))
    importer = make_importer(database, store, str(folder / "manifest.csv"), open_source=open_source)
    return Drop(folder=folder, database=database, store=store, importer=importer)


@pytest.fixture
def import_manifest(drop: Drop) -> Import:
    """Write the manifest and import it."""

    def run(content: bytes | str) -> ImportSummary:
        drop.put("manifest.csv", content)
        return drop.ingest()

    return run


def bad_lines(drop: Drop, summary: ImportSummary) -> list[str]:
    """The notes on lines of the manifest, without its name. Pages show them, so that no folder is named."""
    prefix = "manifest.csv, "
    assert str(drop.folder) not in "".join(summary.notes)
    return [note.removeprefix(prefix).replace(" could not be read: ", ": ") for note in summary.notes]


def test_listed_photos_are_imported_and_stay(drop: Drop, import_manifest: Import) -> None:
    """With their references; what a line leaves out is taken from the name. Files that are not listed are ignored."""
    drop.put("4711_A_1.jpg", JPEG + b"1")
    drop.put("monday/b.jpg", JPEG + b"2")
    drop.put("other.jpg", JPEG + b"3")
    before = [*drop.left(), "manifest.csv"]
    summary = import_manifest("path,item,order,reason\n4711_A_1.jpg,B,,torn\nmonday/b.jpg,,12,\n")
    assert (2, 2, 0, ()) == (summary.taken, summary.seen, summary.not_removed, summary.notes)
    assert {
        "4711_A_1.jpg": References(order="4711", item="B", reason="torn"),
        "monday/b.jpg": References(order="12"),
    } == {name: item.references for name, item in drop.items().items()}
    assert sorted(before) == drop.left()


def test_a_second_import_knows_the_photos(drop: Drop, import_manifest: Import) -> None:
    """And imports only the lines that were added."""
    drop.put("a.jpg", JPEG + b"1")
    drop.put("b.jpg", JPEG + b"2")
    import_manifest("path\na.jpg\n")
    summary = import_manifest("path\na.jpg\nb.jpg\n")
    assert (1, 1) == (summary.taken, summary.known)


def test_objects_are_imported_by_key_and_stay(drop: Drop, objects: ObjectPrefix, import_manifest: Import) -> None:
    """From the bucket of the channel's source."""
    objects.put("monday/a.jpg", JPEG)
    summary = import_manifest("key,order\nmonday/a.jpg,12\nmonday/gone.jpg,13\n../a.jpg,14\n")
    assert (1, 2) == (summary.taken, summary.unreadable)
    assert References(order="12") == drop.items()["monday/a.jpg"].references
    assert ["monday/a.jpg"] == [found.name for found in objects.list()]
    assert [
        "line 3: there is no object monday/gone.jpg.",
        "line 4: ../a.jpg is no plain key below the channel's source.",
    ] == sorted(bad_lines(drop, summary))


@pytest.mark.parametrize(
    "content",
    [
        "path,item,order,reason\na.jpg,A-12,4711,too small\n".encode("utf-8-sig"),
        b"path;item;order;reason\r\na.jpg;A-12;4711;too small\r\n",
        b"path\titem\torder\treason\na.jpg\tA-12\t4711\ttoo small",
        b'"reason","Order"," ITEM ","path"\n"too small","4711","A-12","a.jpg"\n',
        "path,item,order,reason\na.jpg,A-12,4711,too small\n".encode("utf-16"),
        b"path,key,item,order,reason\na.jpg,,A-12,4711,too small\n",
    ],
    ids=["byte order mark", "semicolon", "tab", "quotes", "utf-16", "path and key"],
)
def test_a_manifest_may_have_any_usual_format(drop: Drop, import_manifest: Import, content: bytes) -> None:
    """Separators, quotes, encodings and the order of the columns."""
    drop.put("a.jpg", JPEG)
    assert (1, ()) == ((summary := import_manifest(content)).taken, summary.notes)
    assert References(item="A-12", order="4711", reason="too small") == drop.items()["a.jpg"].references


def test_a_quoted_field_may_have_separators_and_line_breaks(drop: Drop, import_manifest: Import) -> None:
    """Lines are counted as a text editor counts them."""
    drop.put("a, b.jpg", JPEG)
    summary = import_manifest('path,reason\n"a, b.jpg","first line\nsecond line"\n\n"no\nfile.jpg",\n')
    assert (1, 1) == (summary.taken, summary.unreadable)
    assert "first line\\nsecond line" == drop.items()["a, b.jpg"].references.reason
    assert ["line 5: there is no regular file no\\nfile.jpg; links are not followed."] == bad_lines(drop, summary)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("/etc/passwd", "/etc/passwd is no plain path below the folder of the manifest"),
        ("../secret.jpg", "../secret.jpg is no plain path below the folder of the manifest"),
        ("sub/../../secret.jpg", "sub/../../secret.jpg is no plain path below the folder of the manifest"),
        ("./a.jpg", "./a.jpg is no plain path below the folder of the manifest"),
        ("link.jpg", "there is no regular file link.jpg; links are not followed"),
        ("linked/secret.jpg", "linked/secret.jpg cannot be opened: Not a directory"),
        ("pipe.jpg", "there is no regular file pipe.jpg; links are not followed"),
        ("sub", "there is no regular file sub; links are not followed"),
        ("gone/a.jpg", "there is no regular file gone/a.jpg; links are not followed"),
        ("a.jpg/b.jpg", "a.jpg/b.jpg cannot be opened: Not a directory"),
        ("shoplens-data/shoplens.db", "shoplens-data/shoplens.db belongs to the data of Shoplens itself"),
        (f"{'x' * 300}.jpg", "x.jpg cannot be opened: File name too long"),
        ("a.jpg,surplus", "it has more fields than the header has columns"),
        ('""', "it must have exactly one of a path, a key and a url"),
        ("good.jpg", "the same photo is in line 2"),
    ],
)
def test_a_bad_line_is_reported_and_does_not_stop_the_import(
    drop: Drop, tmp_path: Path, import_manifest: Import, line: str, reason: str
) -> None:
    """No file outside the folder of the manifest can be reached, neither by `..` nor by links."""
    secret = tmp_path / "secret"
    secret.mkdir()
    for path in (secret / "secret.jpg", tmp_path / "secret.jpg"):
        path.write_bytes(b"secret")
    for name in ("good.jpg", "late.jpg", "a.jpg", "sub/a.jpg", "shoplens-data/shoplens.db"):
        drop.put(name, JPEG + name.encode())
    (drop.folder / "link.jpg").symlink_to(secret / "secret.jpg")
    (drop.folder / "linked").symlink_to(secret)
    os.mkfifo(drop.folder / "pipe.jpg")
    summary = import_manifest(f"path\ngood.jpg\n{line}\nlate.jpg\n")
    assert (2, 1) == (summary.taken, summary.unreadable)
    assert {"good.jpg", "late.jpg"} == set(drop.items())
    (note,) = bad_lines(drop, summary)
    assert note.startswith("line 3: ")
    assert reason in note


def test_a_field_that_is_too_long_is_reported(drop: Drop, import_manifest: Import) -> None:
    """The lines after it are imported."""
    drop.put("a.jpg", JPEG)
    summary = import_manifest(f"path,reason\nb.jpg,{'x' * 200_000}\na.jpg,\n")
    assert (1, 1) == (summary.taken, summary.unreadable)
    assert ["line 2: field larger than field limit (131072)."] == bad_lines(drop, summary)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it has none of the columns path, key and url"),
        (b"item,order\nA,1\n", "it has none of the columns path, key and url"),
        (b"path,colour,item,size\na.jpg,red,A,1\n", "unknown columns colour, size; the columns are path, key, url"),
        (b"a.jpg\nb.jpg\n", "unknown columns a.jpg"),
        (b"path,\na.jpg,\n", r"unknown columns \(empty\)"),
        (b"path,item,item\na.jpg,A,B\n", "a column occurs twice"),
        (b"\xff\xd8\xff\xe0\0\0", "it is not text"),
        (b"x" * 200_000, "it is not CSV"),
        (b"path\n" + b"x" * 50_000_000, "it has more than 50 MB; split it"),
    ],
)
def test_an_unusable_manifest_is_refused(drop: Drop, import_manifest: Import, content: bytes, words: str) -> None:
    """With one clear sentence, before anything is imported."""
    drop.put("a.jpg", JPEG)
    with pytest.raises(SourceUnavailable, match=f"manifest.csv cannot be used: {words}"):
        import_manifest(content)
    assert {} == drop.items()


def test_a_missing_manifest_is_refused(drop: Drop) -> None:
    """With the reason."""
    with pytest.raises(SourceUnavailable, match=r"manifest\.csv cannot be read: No such file or directory"):
        drop.ingest()


def test_keys_need_a_bucket(drop: Drop) -> None:
    """A channel whose source is a folder has no keys."""
    manifest = drop.put("manifest.csv", "key\na.jpg\n")
    source = ManifestSource(manifest, objects=None, quiet_s=0, now=time.time)
    with pytest.raises(SourceUnavailable, match="which is no bucket; use the column path"):
        list(source.candidates())


def test_listed_files_are_checked_like_those_of_a_folder(drop: Drop, import_manifest: Import) -> None:
    """New files wait, empty and too large ones are quarantined, equal ones are duplicates."""
    drop.put("young.jpg", JPEG, age_s=1)
    drop.put("empty.jpg", b"")
    drop.put("large.jpg", bytes(LARGEST + 1))
    drop.put("a.jpg", JPEG + b"1")
    drop.put("b.jpg", JPEG + b"1")
    summary = import_manifest("path\nyoung.jpg\nempty.jpg\nlarge.jpg\na.jpg\nb.jpg\n")
    assert (1, 1, 2, 1) == (summary.taken, summary.duplicates, summary.quarantined, summary.not_ready)
    assert {ItemState.WAITING, ItemState.QUARANTINED, ItemState.DUPLICATE} == {item.state for item in drop.all_items()}


def test_many_lines_are_imported_in_batches(drop: Drop, import_manifest: Import) -> None:
    """In the order of their lines."""
    names = [f"{number % 3}/{number}.jpg" for number in range(150)]
    for name in names:
        drop.put(name, JPEG + name.encode())
    assert 150 == import_manifest("\n".join(["path", *names])).taken
    items = sorted(drop.all_items(), key=lambda item: item.seq)
    assert set(names[:8]) == {item.source_name for item in items[:8]}
