"""Every command of the guide to batches over HTTP works as written."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.batch_server import FRUIT, clear_photo, dim_photo, models_with_fruit
from tests.conftest import RunningServer, running_server

GUIDE = Path(__file__).parents[3] / "docs" / "how-to" / "batch-over-http.md"
COMMANDS = re.findall(r"```sh\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def fruit_server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[RunningServer]:
    """A server whose returns are classified by the tiny model."""
    root = tmp_path_factory.mktemp("guide")
    with running_server(root / "data", models_with_fruit(root / "models", models_dir), **FRUIT) as started:
        yield started


def test_the_guide_works_as_written(fruit_server: RunningServer, tmp_path: Path) -> None:
    """With this server's address in place of the usual one, and the photos that it names."""
    (fruit_server.data_dir / "drop" / "returns" / "100233_1.jpg").write_bytes(clear_photo(1))
    (tmp_path / "100234_4711.jpg").write_bytes(clear_photo(2))
    (tmp_path / "100234_4712.jpg").write_bytes(dim_photo(3))
    script = "\n".join(COMMANDS).replace("http://127.0.0.1:8000", fruit_server.url)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    assert '"taken":1' in done.stdout
    assert 4 == len((tmp_path / "returns.csv").read_text().splitlines())
    assert (tmp_path / "photo.jpg").read_bytes().startswith(b"\xff\xd8")
    assert "<html" in (tmp_path / "report.html").read_text()
