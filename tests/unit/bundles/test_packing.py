"""Bundles are packed into one file; packed bundles are verified when they are installed."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from shoplens.bundles.bundle import MAX_BYTES, MAX_FILES, Bundle, write_bundle
from shoplens.bundles.store import pack_bundle, unpack_bundle
from shoplens.errors import BundleError, BundleIncomplete, BundleInvalid, BundleTampered
from tests.unit.bundles.conftest import CARD, LABELS, MANIFEST, small_model


def archive_of(entries: list[tuple[tarfile.TarInfo, bytes]], file: Path) -> Path:
    """A tar archive of any entries."""
    with tarfile.open(file, "w") as tar:
        for entry, data in entries:
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return file


def test_packing_and_unpacking_gives_the_same_bundle(bundle: Bundle, tmp_path: Path) -> None:
    """The digest is the same."""
    packed = pack_bundle(bundle.root, tmp_path / "fruit.shoplens")

    unpacked = unpack_bundle(packed, tmp_path / "elsewhere")

    assert bundle.digest == unpacked.digest
    assert tmp_path / "elsewhere" / "fruit" / "1.2.0" == unpacked.root


def test_packing_twice_gives_the_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    """It contains no time, no user and no order of the file system."""
    one, other = (pack_bundle(bundle.root, tmp_path / name) for name in ("one", "other"))

    assert one.read_bytes() == other.read_bytes()


def test_a_damaged_bundle_is_not_packed(bundle: Bundle, tmp_path: Path) -> None:
    """No file is written."""
    (bundle.root / "card.json").write_bytes(b"{}")

    with pytest.raises(BundleTampered):
        pack_bundle(bundle.root, tmp_path / "out" / "fruit.shoplens")

    assert not (tmp_path / "out").exists()


def test_unpacking_again_changes_nothing(bundle: Bundle, tmp_path: Path) -> None:
    """The same bundle may be installed twice."""
    packed = pack_bundle(bundle.root, tmp_path / "fruit.shoplens")

    assert unpack_bundle(packed, tmp_path / "m") == unpack_bundle(packed, tmp_path / "m")
    assert ["fruit"] == [path.name for path in (tmp_path / "m").iterdir()]


def test_another_bundle_of_the_same_name_and_version_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    """A version never changes."""
    other = write_bundle(tmp_path / "b", manifest=MANIFEST, labels=LABELS, card=CARD, model=small_model(weight=3.0))
    packed = pack_bundle(other.root, tmp_path / "fruit.shoplens")

    with pytest.raises(BundleInvalid, match="another version"):
        unpack_bundle(packed, tmp_path / "models")


@pytest.mark.parametrize("name", ["../bundle.json", "/etc/bundle.json", "folder/bundle.json", "..", "a\\b"])
def test_an_archive_that_reaches_outside_is_refused(tmp_path: Path, name: str) -> None:
    """Nothing is written anywhere."""
    file = archive_of([(tarfile.TarInfo(name), b"{}")], tmp_path / "evil.shoplens")

    with pytest.raises(BundleError):
        unpack_bundle(file, tmp_path / "models")

    assert [] == list((tmp_path / "models").iterdir())


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_an_archive_with_anything_but_plain_files_is_refused(tmp_path: Path, kind: bytes) -> None:
    """Links, folders, pipes and devices have no place in a bundle."""
    entry = tarfile.TarInfo("model.onnx")
    entry.type, entry.linkname = kind, "/etc/passwd"

    with pytest.raises(BundleTampered, match="not a plain file"):
        unpack_bundle(archive_of([(entry, b"")], tmp_path / "evil.shoplens"), tmp_path / "models")


def test_an_archive_of_too_many_files_is_refused(tmp_path: Path) -> None:
    """A bundle has five."""
    entries = [(tarfile.TarInfo(f"file{number}"), b"") for number in range(MAX_FILES + 1)]

    with pytest.raises(BundleInvalid, match="more than"):
        unpack_bundle(archive_of(entries, tmp_path / "evil.shoplens"), tmp_path / "models")


def test_an_archive_with_a_huge_size_in_its_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """The size in the header is checked."""
    entry = tarfile.TarInfo("model.onnx")
    entry.size = MAX_BYTES + 1
    (tmp_path / "evil.shoplens").write_bytes(entry.tobuf(tarfile.GNU_FORMAT))

    with pytest.raises(BundleInvalid, match="more than"):
        unpack_bundle(tmp_path / "evil.shoplens", tmp_path / "models")


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    """The second would replace the first."""
    entries = [(tarfile.TarInfo("card.json"), b"{}"), (tarfile.TarInfo("card.json"), b"[]")]

    with pytest.raises(BundleInvalid, match="damaged"):
        unpack_bundle(archive_of(entries, tmp_path / "evil.shoplens"), tmp_path / "models")


@pytest.mark.parametrize("length", [0, 1, 100, 700, 5000])
def test_a_truncated_archive_is_refused(bundle: Bundle, tmp_path: Path, length: int) -> None:
    """At any length."""
    data = pack_bundle(bundle.root, tmp_path / "fruit.shoplens").read_bytes()
    (tmp_path / "half.shoplens").write_bytes(data[:length])

    with pytest.raises(BundleError):
        unpack_bundle(tmp_path / "half.shoplens", tmp_path / "elsewhere")


@pytest.mark.parametrize("data", [b"<html>", b"PK\x03\x04", b"\x1f\x8b\x08" + bytes(50), bytes(2000)])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, data: bytes) -> None:
    """Compressed archives too: they can expand."""
    (tmp_path / "odd.shoplens").write_bytes(data)

    with pytest.raises(BundleError):
        unpack_bundle(tmp_path / "odd.shoplens", tmp_path / "models")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """With the path in the message."""
    with pytest.raises(BundleIncomplete, match="no file"):
        unpack_bundle(tmp_path / "nothing", tmp_path)
