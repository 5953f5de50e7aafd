"""Folders that the user may not change, or not read: what can be taken is taken, and the rest is said."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.project import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="rights are others there")


@pytest.fixture
def place(empty_database_file: Path) -> Iterator[Path]:
    """A folder that any user may enter, with a database and a folder for blobs that any user may write."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        (root / "data").mkdir()
        shutil.copy(empty_database_file, root / "data" / "shoplens.db")
        (root / "data" / "shoplens.db").chmod(0o666)
        (root / "data").chmod(0o777)
        yield root


def visited(place: Path, *sources: Path) -> list[dict[str, Any]]:
    """What visits by a user without rights said."""
    child = [sys.executable, "-m", "tests.integration.batch.unprivileged_child"]
    places = [place / "data" / "shoplens.db", place / "data" / "blobs", *sources]
    done = subprocess.run([*child, *map(str, places)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_a_source_that_may_only_be_read_is_read_once(place: Path) -> None:
    """Its photos are items, a warning says that they could not be removed, and no visit takes them again."""
    drop = place / "drop"
    drop.mkdir()
    (drop / "a.jpg").write_bytes(b"a photo")
    (drop / "b.jpg").write_bytes(b"a photo that may not be read")
    (drop / "b.jpg").chmod(0o000)
    drop.chmod(0o555)
    first, second = visited(place, drop, drop)
    drop.chmod(0o755)
    assert [(1, 0, 1, 1), (0, 1, 1, 1)] == [
        (each["taken"], each["known"], each["not_removed"], each["unreadable"]) for each in (first, second)
    ]
    assert first["notes"][0].startswith("1 file could not be removed from the source")
    assert "b.jpg could not be read: Permission denied." == first["notes"][1]
    assert 0 == second["byte_count"]
    assert {"a.jpg", "b.jpg"} == {path.name for path in drop.iterdir()}


def test_a_source_that_may_not_be_read_is_refused(place: Path) -> None:
    """In a sentence; a sub-folder that may not be read costs only itself."""
    closed, half = place / "closed", place / "half"
    for folder in (closed, half, half / "closed", half / "open"):
        folder.mkdir()
    (half / "open" / "a.jpg").write_bytes(b"a photo")
    for folder in (half, half / "open"):
        folder.chmod(0o777)
    for folder in (closed, half / "closed"):
        folder.chmod(0o000)
    refused, visit = visited(place, closed, half)
    for folder in (closed, half / "closed"):
        folder.chmod(0o755)
    assert ("source_unavailable", f"The folder {closed} cannot be read: Permission denied.") == (
        refused["code"],
        refused["text"],
    )
    assert (1, 1, ["closed/ could not be read: Permission denied."]) == (
        visit["taken"],
        visit["unreadable"],
        visit["notes"],
    )
