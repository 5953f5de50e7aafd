"""Blobs by URL: the contract for each kind, and what is particular to local directories."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shoplens.errors import BlobNotFound, Misconfigured, StorageUnavailable, StorageUnusable
from shoplens.storage import Store, image_key, open_store
from shoplens.testing.store_contract import KEY, StoreContract


class TestMemoryStore(StoreContract):
    """In this process only."""

    @pytest.fixture
    def store(self) -> Store:
        """Empty."""
        return open_store("memory://")


class TestLocalStore(StoreContract):
    """Files below a directory."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        """In a directory that is made on opening."""
        return open_store(str(tmp_path / "new" / "images"))


def test_a_local_blob_is_a_file_that_others_can_read(tmp_path: Path) -> None:
    """Under its key, so that a backup is a copy."""
    open_store(str(tmp_path)).put(KEY, b"photo")
    assert b"photo" == (tmp_path / KEY).read_bytes()


def test_a_file_url_is_the_same_as_its_path(tmp_path: Path) -> None:
    """With its escapes undone."""
    open_store(f"file://{tmp_path}/with%20space").put(KEY, b"photo")
    assert b"photo" == open_store(str(tmp_path / "with space")).get(KEY)


def test_an_existing_blob_is_not_written_again(tmp_path: Path) -> None:
    """The file stays the very same one."""
    store = open_store(str(tmp_path))
    store.put(KEY, b"photo")
    before = (tmp_path / KEY).stat().st_ino
    store.put(KEY, b"photo")
    assert before == (tmp_path / KEY).stat().st_ino


def test_what_a_crash_left_is_invisible_and_goes_after_an_hour(tmp_path: Path) -> None:
    """A young file may belong to another process that writes now."""
    open_store(str(tmp_path))
    old, young = tmp_path / ".staging" / "old#1", tmp_path / ".staging" / "young"
    for file in (old, young):
        file.write_bytes(b"half a pho")
    two_hours_ago = time.time() - 7200
    os.utime(old, (two_hours_ago, two_hours_ago))
    store = open_store(str(tmp_path))
    assert ([], ["young"]) == (list(store.list("")), [file.name for file in (tmp_path / ".staging").iterdir()])


def test_a_killed_writer_leaves_no_half_file(tmp_path: Path) -> None:
    """SIGKILL at any moment: whatever can be listed is whole."""
    program = (
        "import sys; from shoplens.storage import open_store\n"
        "store = open_store(sys.argv[1]); data = bytes(3_000_000); print('ready', flush=True)\n"
        "for number in range(100_000): store.put(f'images/{number}.jpg', data)\n"
    )
    for pause_s in (0.003, 0.011, 0.023):
        directory = tmp_path / str(pause_s)
        with subprocess.Popen([sys.executable, "-c", program, str(directory)], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert b"ready\n" == child.stdout.readline()
            time.sleep(pause_s)
            child.kill()
        store = open_store(str(directory))
        assert {3_000_000} >= {len(store.get(key)) for key in store.list("images")}


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_only_regular_files_are_blobs(tmp_path: Path, kind: str) -> None:
    """A link could lead out of the store, and a pipe would block its reader; a put replaces both."""
    (tmp_path / "secret").write_bytes(b"secret")
    store = open_store(str(tmp_path / "store"))
    path = tmp_path / "store" / KEY
    path.parent.mkdir(parents=True)
    match kind:
        case "link":
            path.symlink_to(tmp_path / "secret")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
    for read in (store.get, lambda key: list(store.pieces(key)), lambda key: store.move(key, "moved.jpg")):
        with pytest.raises(BlobNotFound):
            read(KEY)
    assert (False, None, []) == (store.exists(KEY), store.version(KEY), list(store.list("")))
    if kind != "folder":
        store.put(KEY, b"secret", durable=True)
        assert (b"secret", [KEY]) == (store.get(KEY), list(store.list("")))
        assert not path.is_symlink()
    assert b"secret" == (tmp_path / "secret").read_bytes()


def test_a_linked_lock_is_refused(tmp_path: Path) -> None:
    """It would lock, or create, a file of somebody else."""
    store = open_store(str(tmp_path / "store"))
    (tmp_path / "store" / ".staging" / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageUnusable, match="symbolic link, which is not followed"):
        store.put_if(KEY, b"photo", seen=None)
    assert not (tmp_path / "elsewhere").exists()


def test_a_directory_that_vanished_is_made_again(tmp_path: Path) -> None:
    """Somebody cleaned up while the server ran."""
    store = open_store(str(tmp_path / "images"))
    (tmp_path / "images" / ".staging").rmdir()
    (tmp_path / "images").rmdir()
    store.put(KEY, b"photo")
    assert b"photo" == store.get(KEY)


def test_a_store_that_is_a_file_is_reported(tmp_path: Path) -> None:
    """On opening, with the path."""
    (tmp_path / "images").touch()
    with pytest.raises(StorageUnusable, match="images for images cannot be used"):
        open_store(str(tmp_path / "images"))


def test_a_place_that_cannot_be_written_fails_the_check_and_the_put(tmp_path: Path) -> None:
    """A file stands where a folder is needed, which not even an administrator can write below."""
    store = open_store(str(tmp_path))
    (tmp_path / ".staging").rmdir()
    (tmp_path / ".staging").touch()
    for attempt in (store.check, lambda: store.put(KEY, b"photo")):
        with pytest.raises(StorageUnavailable, match="did not do what was asked"):
            attempt()
    with pytest.raises(BlobNotFound):
        store.get(KEY)


def test_a_full_disk_is_reported_and_leaves_no_file(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk."""
    program = (
        "import resource, signal, sys; from shoplens.storage import open_store\n"
        "from shoplens.errors import StorageUnavailable\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "store = open_store(sys.argv[1])\n"
        "store.put('images/small', bytes(50_000))\n"
        "try: store.put('images/large', bytes(200_000))\n"
        "except StorageUnavailable as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "did not do what was asked" in done.stdout
    assert ["images/small"] == list(open_store(str(tmp_path)).list(""))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/images", "cannot be stored at ftp://"),
        ("file://host/images", "names another machine"),
        ("s3://", "cannot be set up"),
    ],
)
def test_a_url_of_no_use_is_misconfigured(url: str, message: str) -> None:
    """With a sentence that says what it should be."""
    with pytest.raises(Misconfigured, match=message):
        open_store(url)


def test_a_remote_store_that_is_away_is_opened_and_fails_the_check() -> None:
    """A server starts while its bucket is away, and readiness tells."""
    options = {
        "region": "eu-central-1",
        "endpoint": "http://127.0.0.1:9",
        "access_key_id": "a",
        "secret_access_key": "b",
    }
    store = open_store("s3://shop/prefix", options=options)
    with pytest.raises(StorageUnavailable, match="s3://shop/prefix did not do what was asked"):
        store.check()


def test_a_key_spreads_photos_over_folders() -> None:
    """Two levels of 256."""
    assert "images/ab/cd/abcdef.jpg" == image_key("abcdef", "jpg")


def test_what_must_survive_a_loss_of_power_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content before its name, then every folder that got a new name: written, written again, and moved."""
    store = open_store(str(tmp_path))
    forced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: forced.append(os.fstat(descriptor).st_ino))

    def drain() -> list[int]:
        drained, forced[:] = forced[:], []
        return drained

    def inodes(*names: str) -> list[int]:
        return [(tmp_path / name).stat().st_ino for name in names]

    store.put("a/b/photo", b"photo", durable=True)
    assert inodes("a/b/photo", "", "a", "a/b") == drain()
    store.put("a/b/photo", b"photo", durable=True)
    assert inodes("a/b/photo", "a/b") == drain()
    store.move("a/b/photo", "c/photo")
    assert inodes("", "c", "a/b") == drain()
    store.put("d", b"photo")
    assert [] == drain()
