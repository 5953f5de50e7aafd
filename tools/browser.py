"""The Chromium that the browser tests and the screenshots drive: find one, else download Playwright's.

Run as a program (`make test` does), it ends with one sentence and status 1 where neither is possible.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

VARIABLE: Final = "SHOPLENS_TEST_CHROMIUM"
NONE_FOUND: Final = (
    "There is no browser for the browser tests: install one (on Debian: apt install chromium), set "
    f"{VARIABLE} to its program, or run `playwright install --with-deps chromium`."
)
_NAMES: Final = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The first has no window and no graphics process: the browser tests take 40 % less CPU with it."""
_DOWNLOAD_TIMEOUT_S: Final = 600
_START_TIMEOUT_S: Final = 60


def find_chromium() -> str | None:
    """The program: named by the environment, on the path, or Playwright's own. None where there is none that starts."""
    if named := os.environ.get(VARIABLE):
        return named if _starts(named) else None
    candidates = [*filter(None, map(shutil.which, _NAMES)), _bundled()]
    return next(filter(_starts, candidates), None)


def require_chromium() -> str:
    """A Chromium that starts, downloaded where there is none. Raises SystemExit with one sentence."""
    if found := find_chromium():
        return found
    if VARIABLE in os.environ:
        raise SystemExit(f"{VARIABLE} is {os.environ[VARIABLE]!r}, which is no browser that starts.")
    sys.stderr.write("No Chromium found. Downloading Playwright's.\n")
    command = [sys.executable, "-m", "playwright", "install", "chromium"]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S)
        detail = done.stderr
    except subprocess.TimeoutExpired:
        detail = f"no end within {_DOWNLOAD_TIMEOUT_S} s"
    if found := find_chromium():
        return found
    reason = next((line.strip() for line in detail.splitlines() if line.strip()), "")
    raise SystemExit(f"{NONE_FOUND} The download failed{': ' if reason else ''}{reason[:200]}")


def _bundled() -> str:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        return playwright.chromium.executable_path


def _starts(program: str) -> bool:
    """Whether it runs here at all: a download may lack libraries of the system."""
    if shutil.which(program) is None and not Path(program).is_file():
        return False
    try:
        done = subprocess.run([program, "--version"], check=False, capture_output=True, timeout=_START_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


if __name__ == "__main__":
    require_chromium()
