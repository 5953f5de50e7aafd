"""Every command of the guide to batches over HTTP works as written."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.api.guides import run_guide
from tests.acceptance.batch_server import clear_photo, dim_photo
from tests.conftest import RunningServer


def test_the_guide_works_as_written(fruit_server: RunningServer, tmp_path: Path) -> None:
    """With this server's address in place of the usual one, and the photos that it names."""
    (fruit_server.data_dir / "drop" / "returns" / "100233_1.jpg").write_bytes(clear_photo(1))
    (tmp_path / "100234_4711.jpg").write_bytes(clear_photo(2))
    (tmp_path / "100234_4712.jpg").write_bytes(dim_photo(3))
    assert '"taken":1' in run_guide("batch-over-http.md", fruit_server, tmp_path)
    assert 4 == len((tmp_path / "returns.csv").read_text().splitlines())
    assert (tmp_path / "photo.jpg").read_bytes().startswith(b"\xff\xd8")
    assert "<html" in (tmp_path / "report.html").read_text()
