"""Folders that the user cannot write to or read: what can be imported is imported, the rest is reported."""

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
    """A folder that every user can read, with a database and a store that every user can write."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        (root / "data").mkdir()
        shutil.copy(empty_database_file, root / "data" / "shoplens.db")
        (root / "data" / "shoplens.db").chmod(0o666)
        (root / "data").chmod(0o777)
        yield root


def imported(place: Path, *sources: Path) -> list[dict[str, Any]]:
    """The summaries of imports by a user without rights."""
    child = [sys.executable, "-m", "tests.integration.batch.unprivileged_child"]
    places = [place / "data" / "shoplens.db", place / "data" / "blobs", *sources]
    done = subprocess.run([*child, *map(str, places)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_a_read_only_source_is_imported_once(place: Path) -> None:
    """A note says that the photos could not be removed, and no import repeats them."""
    drop = place / "drop"
    drop.mkdir()
    (drop / "a.jpg").write_bytes(b"a photo")
    (drop / "a.jpg").chmod(0o644)
    (drop / "b.jpg").write_bytes(b"a photo that may not be read")
    (drop / "b.jpg").chmod(0o000)
    drop.chmod(0o555)
    first, second = imported(place, drop, drop)
    drop.chmod(0o755)
    assert [(1, 0, 1, 1), (0, 1, 1, 1)] == [
        (each["taken"], each["known"], each["not_removed"], each["unreadable"]) for each in (first, second)
    ]
    assert first["notes"][0].startswith("1 file could not be removed from the source: a.jpg. They will not")
    assert "b.jpg could not be read: Permission denied." == first["notes"][1]
    assert ["a.jpg", "b.jpg"] == first["stuck"]
    assert 0 == second["byte_count"]
    assert {"a.jpg", "b.jpg"} == {path.name for path in drop.iterdir()}


def test_an_unreadable_source_is_refused(place: Path) -> None:
    """An unreadable sub-folder does not affect the others."""
    closed, half = place / "closed", place / "half"
    for folder in (closed, half, half / "closed", half / "open"):
        folder.mkdir()
    (half / "open" / "a.jpg").write_bytes(b"a photo")
    (half / "open" / "a.jpg").chmod(0o644)
    for folder in (half, half / "open"):
        folder.chmod(0o777)
    for folder in (closed, half / "closed"):
        folder.chmod(0o000)
    refused, summary = imported(place, closed, half)
    for folder in (closed, half / "closed"):
        folder.chmod(0o755)
    assert ("source_unavailable", f"The folder {closed} cannot be read: Permission denied.") == (
        refused["code"],
        refused["text"],
    )
    assert ["closed"] == summary["stuck"]
    assert (1, 1, ["closed/ could not be read: Permission denied."]) == (
        summary["taken"],
        summary["unreadable"],
        summary["notes"],
    )
