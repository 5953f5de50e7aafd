"""Photos that tests of training share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.training.colours import write_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """30 photos of each of three colours."""
    return write_photos(tmp_path / "photos", each=30)
