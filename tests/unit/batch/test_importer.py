"""Photos are imported from a folder: each content once, no half-written file, and none is lost."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from shoplens.batch.entities import ItemState, References
from shoplens.batch.sources import Candidate, FileSkipped, LocalFile, LocalFolder, LocalSource
from shoplens.db import Database, open_database
from shoplens.errors import DatabaseUnavailable, SourceUnavailable, StorageUnavailable
from shoplens.storage import open_store
from tests.unit.batch.drop_folder import LARGEST, Drop, make_importer
from tests.unit.db.blocker import blocked

JPEG = b"\xff\xd8\xff\xe0 a photo "


@pytest.fixture
def drop(database: Database, tmp_path: Path) -> Drop:
    """An empty folder."""
    folder = tmp_path / "drop"
    folder.mkdir()
    store = open_store(str(tmp_path / "blobs"))
    return Drop(folder=folder, database=database, store=store, importer=make_importer(database, store, str(folder)))


def test_photos_become_items_and_leave_the_folder(drop: Drop) -> None:
    """From every sub-folder, with the references in their names, in several batches."""
    sent = {f"{number}_A{number}_1.jpg": JPEG + bytes([number]) for number in range(20)}
    sent |= {"monday/late/4711_B1_1.jpg": JPEG + b"deep"}
    for name, data in sent.items():
        drop.put(name, data)
    summary = drop.ingest()
    assert (21, 21, 0) == (summary.taken, summary.seen, summary.not_removed)
    assert sent == drop.contents()
    assert [] == drop.left()
    item = drop.items()["monday/late/4711_B1_1.jpg"]
    assert References(order="4711", item="B1") == item.references
    assert (ItemState.WAITING, len(JPEG) + 4) == (item.state, item.byte_count)
    assert f"returns/incoming/{item.id}-4711_B1_1.jpg" == item.key
    assert hashlib.sha256(JPEG + b"deep").hexdigest() == item.sha256


def test_a_second_import_finds_nothing(drop: Drop) -> None:
    """The folder is empty after the first."""
    drop.put("1_A_1.jpg", JPEG)
    drop.ingest()
    assert 0 == drop.ingest().seen


def test_each_content_is_stored_once(drop: Drop) -> None:
    """Under another name it is a duplicate, under the same name it is known; in one batch and across imports."""
    for name in ("a.jpg", "b.jpg", "sub/a.jpg"):
        drop.put(name, JPEG)
    first = drop.ingest()
    for name in ("a.jpg", "c.jpg"):
        drop.put(name, JPEG)
    second = drop.ingest()
    assert [(1, 2, 0), (0, 1, 1)] == [(each.taken, each.duplicates, each.known) for each in (first, second)]
    items = drop.all_items()
    original = next(item for item in items if item.state is ItemState.WAITING)
    later = [item for item in items if item.state is ItemState.DUPLICATE]
    assert ([original.id] * 3, [None] * 3) == ([item.duplicate_of for item in later], [item.key for item in later])
    assert [original.key] == drop.stored()
    assert [] == drop.left()


def test_new_content_under_an_old_name_is_a_new_item(drop: Drop) -> None:
    """Cameras reuse file names."""
    for data in (JPEG + b"1", JPEG + b"2"):
        drop.put("IMG_0001.jpg", data)
        assert 1 == drop.ingest().taken
    drop.require_nothing_lost_or_doubled([JPEG + b"1", JPEG + b"2"])


def test_ignored_files_stay(drop: Drop, tmp_path: Path) -> None:
    """Hidden, unfinished and new files, links, pipes, sockets and hidden folders."""
    for name in (".hidden.jpg", "a.part", "b.TMP", "c.filepart", "d.crdownload", "e.jpg~", ".cache/f.jpg"):
        drop.put(name, JPEG + name.encode())
    drop.put("young.jpg", JPEG, age_s=1)
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "secret.jpg").write_bytes(b"secret")
    (drop.folder / "link.jpg").symlink_to(secret / "secret.jpg")
    (drop.folder / "folder").symlink_to(secret)
    os.mkfifo(drop.folder / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(drop.folder)  # the path of a socket is short
        listener.bind("socket.jpg")
        os.chdir(here)
        before = drop.left()
        summary = drop.ingest()
    assert (0, 1, 5) == (summary.taken, summary.not_ready, summary.seen)
    special = {"link.jpg": "symbolic link", "folder": "symbolic link", "pipe.jpg": "named pipe", "socket.jpg": "socket"}
    notes = [f"{name} could not be read: it is a {kind}; only regular files are" for name, kind in special.items()]
    assert all(any(note.startswith(each) for note in summary.notes) for each in notes), summary.notes
    assert before == drop.left()
    assert (secret / "secret.jpg").exists()
    assert {} == drop.items()


def test_a_file_with_a_future_time_is_imported_after_the_quiet_time(drop: Drop) -> None:
    """Copied files keep their times; then the time of copying counts, which is now."""
    drop.put("a.jpg", JPEG, age_s=-86_400)
    assert 1 == drop.ingest().not_ready
    much_later = time.time() + 3_600
    importer = make_importer(
        drop.database,
        drop.store,
        "",
        open_source=lambda _: LocalSource(drop.folder, quiet_s=10, now=lambda: much_later),
    )
    assert 1 == importer.run().taken


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who has a file open")
def test_a_file_that_is_open_for_writing_stays(drop: Drop) -> None:
    """However old its modification time is. It is imported after it was closed."""
    path = drop.put("slow.jpg", JPEG + b"first half")
    with path.open("ab") as writer:
        old = path.stat()
        assert 1 == drop.ingest().not_ready
        writer.write(b"second half")
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert 1 == drop.ingest().taken
    assert {"slow.jpg": JPEG + b"first halfsecond half"} == drop.contents()


def test_a_file_that_changed_after_it_was_listed_is_neither_read_nor_removed(drop: Drop) -> None:
    """Even if size and modification time are the same."""
    path = drop.put("a.jpg", JPEG + b"1")
    listed = LocalSource(drop.folder, quiet_s=0, now=time.time).root().file("a.jpg")
    assert isinstance(listed, LocalFile)
    old = path.stat()
    path.write_bytes(JPEG + b"2")
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    with pytest.raises(FileSkipped, match="it is being changed"):
        list(listed.chunks())
    assert (True, ["a.jpg"]) == (listed.remove(), drop.left())


def test_a_folder_that_is_replaced_by_a_link_does_not_lead_elsewhere(drop: Drop, tmp_path: Path) -> None:
    """Otherwise a user who may write to the source could have other files of this machine imported and removed."""
    drop.put("sub/a.jpg", JPEG)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.jpg").write_bytes(b"not yours")
    folders = list(LocalSource(drop.folder, quiet_s=0, now=time.time).folders())
    found = [each for folder in folders if isinstance(folder, LocalFolder) for each in folder.candidates()]
    (drop.folder / "sub").rename(tmp_path / "away")
    (drop.folder / "sub").symlink_to(elsewhere)
    (photo,) = [each.photo for each in found if isinstance(each, Candidate)]
    assert JPEG == b"".join(photo.chunks())
    assert photo.remove()
    assert ([], b"not yours") == (list((tmp_path / "away").iterdir()), (elsewhere / "a.jpg").read_bytes())


@pytest.mark.parametrize(
    "name",
    [
        "'quoted\" `name`; rm -rf $HOME &.jpg",
        "new\nline.jpg",
        "\x1b[31mred.jpg",
        "jpg..jpg.",
        "😀👗.jpg",
        "%2e%2e%2fetc%2fpasswd",
        "-rf",
        "x" * 240 + ".jpg",
        b"caf\xe9 \xff\xfe.jpg",
        "/".join(["deep" * 50] * 4) + "/a.jpg",
        "back\\slash.jpg",
        "CON.jpg",
        "<script>alert(1)</script>.html",
    ],
)
def test_every_file_name_is_imported_safely(drop: Drop, name: str | bytes) -> None:
    """The photo has a plain key, and its name is text that can be stored and printed."""
    drop.put(name, JPEG)
    assert (1, ()) == ((summary := drop.ingest()).taken, summary.notes)
    ((source_name, item),) = drop.items().items()
    assert source_name.isprintable()
    source_name.encode()
    assert (JPEG, []) == (drop.store.get(item.key or ""), drop.left())


def test_a_file_that_is_no_photo_becomes_an_item(drop: Drop) -> None:
    """The run will quarantine it. It is not stored with the extension of a photo."""
    drop.put("4711_A_1.jpg", "<html><script>alert(1)</script>")
    drop.put("invoice.pdf", b"%PDF-1.7")
    assert 2 == drop.ingest().taken
    assert {".bin"} == {Path(key).suffix for key in drop.stored()}


def test_every_empty_file_is_quarantined(drop: Drop) -> None:
    """Each is a photo that was not sent correctly, so none is a duplicate."""
    for name in ("1_A_1.jpg", "2_B_1.jpg"):
        drop.put(name, b"")
    drop.put("1_A_1.jpg", b"")
    summary = drop.ingest()
    drop.put("2_B_1.jpg", b"")
    again = drop.ingest()
    assert ((2, 0), (0, 1)) == ((summary.quarantined, summary.known), (again.quarantined, again.known))
    items = drop.all_items()
    assert {("quarantined", "image_missing", "The file is empty.")} == {
        (item.state.value, item.failure_code, item.failure) for item in items
    }
    assert drop.stored() == sorted(item.key or "" for item in items)
    assert all(key.startswith("returns/quarantine/") for key in drop.stored())


def test_a_file_that_is_too_large_is_quarantined_unchanged(drop: Drop) -> None:
    """It is read in chunks."""
    data = JPEG + bytes(5 * (1 << 20))
    drop.put("huge.jpg", data)
    drop.put("same.jpg", data)
    drop.put("limit.jpg", bytes(LARGEST))
    summary = drop.ingest()
    assert (1, 1, 1) == (summary.quarantined, summary.duplicates, summary.taken)
    huge = next(item for item in drop.items().values() if item.state is ItemState.QUARANTINED)
    assert ("image_too_large", data) == (huge.failure_code, drop.store.get(huge.key or ""))
    assert [] == drop.left()


def test_sidecars_and_lists_are_used_and_removed_with_their_photos(drop: Drop) -> None:
    """The sidecar has precedence over the list, the list over the name."""
    drop.put("4711_A_1.jpg", JPEG + b"1")
    drop.put("4711_A_1.jpg.json", '{"reason": "torn"}')
    drop.put("4711_B_1.jpg", JPEG + b"2")
    drop.put("photo.jpg", JPEG + b"3")
    drop.put("monday/photo.jpg", JPEG + b"4")
    drop.put("list.csv", "file,order,item,reason\n4711_A_1.jpg,1,C,no\nphoto.jpg,12,D,\n")
    drop.put("monday/list.json", '[{"file": "photo.jpg", "order": 13}]')
    assert (4, ()) == ((summary := drop.ingest()).taken, summary.notes)
    assert {
        "4711_A_1.jpg": References(order="1", item="C", reason="torn"),
        "4711_B_1.jpg": References(order="4711", item="B"),
        "photo.jpg": References(order="12", item="D"),
        "monday/photo.jpg": References(order="13"),
    } == {name: item.references for name, item in drop.items().items()}
    assert [] == drop.left()


def test_a_list_stays_until_all_its_photos_are_imported(drop: Drop) -> None:
    """Even if one of its names is known from an earlier day."""
    drop.put("b.jpg", JPEG + b"yesterday")
    drop.ingest()
    drop.put("list.csv", "file,order\na.jpg,1\nb.jpg,2\n")
    drop.put("a.jpg", JPEG + b"a")
    drop.ingest()
    assert ["list.csv"] == drop.left()
    drop.put("b.jpg", JPEG + b"today")
    drop.ingest()
    assert [] == drop.left()
    assert {"1", "2", None} == {item.references.order for item in drop.all_items()}


def test_a_photo_waits_for_a_sidecar_that_is_being_written(drop: Drop) -> None:
    """So no sidecar is missed."""
    drop.put("a.jpg", JPEG)
    sidecar = drop.put("a.jpg.json", '{"order": "1', age_s=1)
    assert 1 == drop.ingest().not_ready
    sidecar.unlink()
    drop.put("a.jpg.json", '{"order": "1"}')
    drop.ingest()
    assert (["1"], []) == ([item.references.order for item in drop.items().values()], drop.left())


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("list.csv", b"\xff\xd8\xff\xe0\0\0"),
        ("list.json", b"{"),
        ("a.jpg.json", b"not json"),
        ("a.jpg.json", b" " * 1_000_001),
        ("list.csv", b"file\n" + b"x" * 20_000_001),
    ],
)
def test_an_unusable_sidecar_is_noted_and_stays(drop: Drop, name: str, data: bytes) -> None:
    """The photo is imported without it."""
    drop.put("a.jpg", JPEG)
    drop.put(name, data)
    summary = drop.ingest()
    assert (1, [name]) == (summary.taken, drop.left())
    assert [True] == [note.startswith(f"{name} was not used: it ") for note in summary.notes]


def test_files_that_are_kept_are_read_once(drop: Drop) -> None:
    """An unchanged file is recognised by its stamp; an import without keeping removes it."""
    drop.put("a.jpg", JPEG)
    drop.put("a.jpg.json", '{"order": "1"}')
    before = drop.left()
    assert 1 == drop.ingest(keep_source=True).taken
    again = drop.ingest(keep_source=True)
    assert (0, 1, 0, before) == (again.taken, again.known, again.byte_count, drop.left())
    assert (1, []) == (drop.ingest().known, drop.left())


def test_files_that_cannot_be_removed_are_reported_and_not_imported_twice(
    drop: Drop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system that is mounted read-only."""

    def refuse(name: str, **_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", name)

    for name in ("a.jpg", "b.jpg"):
        drop.put(name, JPEG + name.encode())
    drop.put("a.jpg.json", '{"order": "1"}')
    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refuse)
        first, second = drop.ingest(), drop.ingest()
    assert [(2, 0, 2), (0, 2, 2)] == [(each.taken, each.known, each.not_removed) for each in (first, second)]
    assert all(each.notes[0].startswith("2 files could not be removed") for each in (first, second))
    assert (2, 3) == (len(drop.items()), len(drop.left()))
    assert (2, []) == (drop.ingest().known, drop.left())


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_source_that_is_no_folder_is_refused(drop: Drop, tmp_path: Path, kind: str) -> None:
    """Before anything is imported."""
    place = tmp_path / "place"
    if kind == "file":
        place.touch()
    with pytest.raises(SourceUnavailable, match="place"):
        drop.ingest(str(place))


def test_an_error_of_the_store_ends_the_import_and_nothing_is_removed(drop: Drop, tmp_path: Path) -> None:
    """A file is where the folder of the store should be."""
    for number in range(5):
        drop.put(f"{number}.jpg", JPEG + bytes([number]))
    before = drop.left()
    (tmp_path / "blobs" / "returns").touch()
    with pytest.raises(StorageUnavailable):
        drop.ingest()
    assert (before, {}) == (drop.left(), drop.items())
    (tmp_path / "blobs" / "returns").unlink()
    assert 5 == drop.ingest().taken
    drop.require_nothing_lost_or_doubled(JPEG + bytes([number]) for number in range(5))


def test_a_locked_database_ends_the_import_and_nothing_is_stored_twice(drop: Drop, database_url: str) -> None:
    """The next import stores the same content under the same keys."""
    sent = [JPEG + bytes([number]) for number in range(5)]
    for number, data in enumerate(sent):
        drop.put(f"{number}.jpg", data)
    impatient = open_database(database_url, busy_timeout_s=0.05)
    importer = make_importer(impatient, drop.store, str(drop.folder))
    with blocked(database_url), pytest.raises(DatabaseUnavailable, match="locked"):
        importer.run()
    assert (5, 5, {}) == (len(drop.left()), len(drop.stored()), drop.items())
    assert 5 == importer.run().taken
    impatient.close()
    drop.require_nothing_lost_or_doubled(sent)


def test_several_imports_at_once_import_everything_once(drop: Drop) -> None:
    """With threads; an acceptance test does the same with processes."""
    sent = [JPEG + number.to_bytes(2) for number in range(120)]
    for number, data in enumerate(sent):
        drop.put(f"{number % 7}/{number}.jpg", data)
        drop.put(f"again/{number}.jpg", data)
    imports = [threading.Thread(target=drop.ingest) for _ in range(4)]
    for each in imports:
        each.start()
    for each in imports:
        each.join(60)
    drop.require_nothing_lost_or_doubled(sent)
    assert (240, []) == (len(drop.items()), drop.left())


def test_progress_is_reported_after_each_commit(drop: Drop) -> None:
    """As the summary so far."""
    for number in range(20):
        drop.put(f"{number}.jpg", JPEG + bytes([number]))
    taken: list[int] = []
    drop.ingest(on_progress=lambda summary: taken.append(summary.taken))
    assert [8, 16, 20] == taken


def test_a_single_photo_can_be_imported(drop: Drop) -> None:
    """Its references have precedence over those in its name. Sent again, it is the same item."""
    first = drop.importer.import_photo(JPEG, name="4711_A_1.jpg", references=References(item="B", reason="torn"))
    assert References(order="4711", item="B", reason="torn") == first.references
    assert (ItemState.WAITING, JPEG) == (first.state, drop.store.get(first.key or ""))
    assert first == drop.importer.import_photo(JPEG, name="4711_A_1.jpg")
    other = drop.importer.import_photo(JPEG, name="")
    assert (ItemState.DUPLICATE, first.id, "photo") == (other.state, other.duplicate_of, other.source_name)
    empty = drop.importer.import_photo(b"", name="x" * 5_000)
    assert ItemState.QUARANTINED is empty.state
