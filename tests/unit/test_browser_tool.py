"""`make test` finds a browser, or says in one sentence that there is none before any test runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.browser import find_chromium
from tools.project import ROOT


def test_a_machine_without_a_browser_is_told_in_one_sentence(tmp_path: Path) -> None:
    """Where none is installed and none can be downloaded."""
    nothing = {
        "PATH": str(tmp_path),
        "HOME": str(tmp_path),
        "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path / "browsers"),
        "PLAYWRIGHT_DOWNLOAD_HOST": "http://127.0.0.1:9",
        "PLAYWRIGHT_SKIP_BROWSER_GC": "1",
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tools.browser"], cwd=ROOT, env=nothing, capture_output=True, text=True, check=False
    )
    assert 1 == done.returncode
    assert "Traceback" not in done.stderr
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("There is no browser for the browser tests: install one"), done.stderr


def test_a_browser_that_does_not_start_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whose libraries are missing; the name in the environment counts alone."""
    broken = tmp_path / "chromium"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    monkeypatch.setenv("SHOPLENS_TEST_CHROMIUM", str(broken))
    assert find_chromium() is None
    broken.write_text("#!/bin/sh\nexit 0\n")
    assert str(broken) == find_chromium()
