"""Every command of the guide to batches over HTTP works as written."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.acceptance.batch_server import clear_photo, dim_photo
from tests.conftest import RunningServer

GUIDE = Path(__file__).parents[3] / "docs" / "how-to" / "batch-over-http.md"
COMMANDS = re.findall(r"```sh\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


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
