"""Models as one archive: out of one registry, into another, and nothing of it if a byte differs."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from shoplens.accounts.entities import SYSTEM
from shoplens.bundles.signing import Trust
from shoplens.errors import BundleError, BundleInvalid, BundleTampered, RequestInvalid, ShoplensError
from shoplens.registry.archive import export_models, import_models
from shoplens.registry.object_registry import ObjectRegistry
from shoplens.registry.publishing import RegistryService
from shoplens.storage import open_store
from shoplens.testing.registry_contract import Make, promote, publish
from tests.registry_bundles import bundle_maker
from tests.unit.registry.test_object_registry import utc_now

Members = dict[str, bytes]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Fruit."""
    return bundle_maker(tmp_path / "made", "fruit")


@pytest.fixture
def archive(tmp_path: Path, make: Make) -> Path:
    """Two versions, of which one is the champion."""
    registry = ObjectRegistry(open_store(str(tmp_path / "here")), "here", clock=utc_now)
    publish(registry, make("1.0"), make("2.0"))
    promote(registry, "fruit", "1.0")
    promote(registry, "fruit", "2.0")
    promote(registry, "fruit", "1.0", "challenger")
    file = tmp_path / "models.tar"
    assert 2 == export_models(registry, ["fruit"], file, Trust())
    return file


@pytest.fixture
def there(tmp_path: Path) -> RegistryService:
    """Another registry, still empty."""
    registry = ObjectRegistry(open_store(str(tmp_path / "there")), "there", clock=utc_now)
    return RegistryService(
        registry, models_dir=tmp_path / "models", trust=Trust(), database=None, audit=None, clock=utc_now
    )


def members(file: Path) -> Members:
    """The content of each file of an archive."""
    with tarfile.open(file) as archive:
        found = {}
        for entry in archive:
            source = archive.extractfile(entry)
            assert source is not None
            found[entry.name] = source.read()
        return found


def packed(file: Path, contents: Members, *, with_sums: bool = False) -> Path:
    """An archive with these files; `with_sums` as one makes it who wants to be believed."""
    if with_sums:
        names = sorted(set(contents) - {"SHA256SUMS"})
        lines = [f"{hashlib.sha256(contents[name]).hexdigest()}  {name}\n" for name in names]
        contents = {**contents, "SHA256SUMS": "".join(lines).encode()}
    with tarfile.open(file, "w") as archive:
        for name, data in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return file


def test_models_travel_with_their_figures_and_aliases(
    archive: Path, there: RegistryService, make: Make, tmp_path: Path
) -> None:
    """Importing again changes nothing."""
    imported = import_models(there, archive, SYSTEM, aliases=True, scratch=tmp_path)
    model = there.model("fruit")
    assert [make("1.0").digest, make("2.0").digest] == [version.digest for version in model.versions]
    assert {"champion": "2.0", "challenger": "1.0"} == model.aliases.by_alias
    assert (2, 2) == (len(imported.published), len(imported.changes))
    assert all("published 20" in version.note and "by ann" in version.note for version in model.versions)
    again = import_models(there, archive, SYSTEM, aliases=True, scratch=tmp_path)
    assert ((), model) == (again.changes, there.model("fruit"))


def test_without_being_asked_nothing_goes_live(archive: Path, there: RegistryService, tmp_path: Path) -> None:
    """The versions are there, and no alias."""
    import_models(there, archive, SYSTEM, aliases=False, scratch=tmp_path)
    assert {} == there.model("fruit").aliases.by_alias


def test_the_checksums_are_those_that_the_usual_tool_reads(archive: Path, tmp_path: Path) -> None:
    """And the tables are CSV."""
    folder = tmp_path / "unpacked"
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    checked = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=False)
    assert 0 == checked.returncode
    assert 3 == len((folder / "metadata.csv").read_text().splitlines())
    assert 4 == len((folder / "history.csv").read_text().splitlines())


def changed(contents: Members, name: str, data: bytes | None) -> Members:
    """With other bytes under a name; None leaves it out."""
    others = {key: value for key, value in contents.items() if key != name}
    return others if data is None else {**others, name: data}


MODEL = "fruit/1.0/model.onnx"


@pytest.mark.parametrize(
    ("harm", "with_sums", "error"),
    [
        (lambda all_: changed(all_, MODEL, all_[MODEL][:-1] + b"x"), False, BundleTampered),
        (lambda all_: changed(all_, MODEL, all_[MODEL][:-1] + b"x"), True, BundleTampered),
        (lambda all_: changed(all_, MODEL, None), False, BundleTampered),
        (lambda all_: changed(all_, MODEL, None), True, BundleError),
        (lambda all_: changed(all_, "fruit/1.0/more.txt", b"more"), False, BundleTampered),
        (lambda all_: changed(all_, "fruit/1.0/more.txt", b"more"), True, BundleError),
        (lambda all_: changed(all_, "../outside.txt", b"more"), True, BundleTampered),
        (lambda all_: changed(all_, "metadata.csv/1/x", b"more"), True, RequestInvalid),
        (lambda all_: changed(all_, "SHA256SUMS", None), False, RequestInvalid),
        (lambda all_: changed(all_, "metadata.csv", b"name,version\nfruit,1.0\n"), True, RequestInvalid),
        (lambda all_: changed(all_, "metadata.csv", all_["metadata.csv"].replace(b"fruit", b"..", 1)), True,
         RequestInvalid),
        (lambda all_: changed(all_, "metadata.csv", all_["metadata.csv"].replace(b"fruit,2.0", b"fruit,1.0", 1)), True,
         BundleTampered),
        (lambda all_: {}, False, RequestInvalid),
    ],
)  # fmt: skip
def test_an_archive_in_which_anything_differs_publishes_nothing(
    archive: Path,
    there: RegistryService,
    tmp_path: Path,
    harm: Callable[[Members], Members],
    with_sums: bool,
    error: type[ShoplensError],
) -> None:
    """Also not the part that is whole, and no file outside its folder."""
    bad = packed(tmp_path / "bad.tar", harm(members(archive)), with_sums=with_sums)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error):
        import_models(there, bad, SYSTEM, aliases=True, scratch=tmp_path)
    assert ([], before) == (there.names(), sorted(tmp_path.iterdir()))


def test_what_is_no_archive_is_refused(there: RegistryService, tmp_path: Path, archive: Path) -> None:
    """Nothing, anything, and the beginning of one."""
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8 no tar")
    (tmp_path / "half.tar").write_bytes(archive.read_bytes()[:5_000])
    for name in ("none.tar", "photo.jpg", "half.tar"):
        with pytest.raises((RequestInvalid, BundleTampered)):
            import_models(there, tmp_path / name, SYSTEM, aliases=False, scratch=tmp_path)
    assert [] == there.names()


def test_a_version_that_is_another_bundle_there_stops_the_import(
    archive: Path, there: RegistryService, make: Make, tmp_path: Path
) -> None:
    """Before the others are published."""
    there.publish(make("2.0", 2.0), SYSTEM, why="our own", figures={})
    with pytest.raises(BundleInvalid, match=r"fruit@2\.0.*Nothing was imported"):
        import_models(there, archive, SYSTEM, aliases=True, scratch=tmp_path)
    assert ["2.0"] == [version.ref.version for version in there.model("fruit").versions]
