"""The commands and programs in the README and the tutorial work as written."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import RunningServer, colourful, jpeg_of

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/tutorial/index.md")
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
COMMANDS = [
    pytest.param(line.partition("  #")[0].strip(), id=f"{page}: {line.strip()[:60]}")
    for page in PAGES
    for language, text in BLOCK.findall((ROOT / page).read_text())
    for line in text.splitlines()
    if language == "sh" and line.strip() and not line.startswith(("make ", "#"))
]
PROGRAMS = [
    pytest.param(text, id=page)
    for page in PAGES
    for language, text in BLOCK.findall((ROOT / page).read_text())
    if language == "python"
]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder with the files that the commands use."""
    (tmp_path / "photo.jpg").write_bytes(jpeg_of(colourful(1)))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(jpeg_of(colourful(2)))
    (tmp_path / "README.md").write_text("# no picture\n")
    (tmp_path / "shoplens-data" / "drop" / "returns").mkdir(parents=True)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def test_there_is_something_to_type() -> None:
    """There are blocks to execute."""
    assert len(COMMANDS) >= 5
    assert PROGRAMS


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_works_as_written(command: str, workspace: Path, server: RunningServer, models_dir: Path) -> None:
    """With this server's address in place of the default one."""
    here = command.replace("http://127.0.0.1:8000", server.url)
    python = shlex.quote(sys.executable)  # its path may itself end with .venv/bin/python
    here = re.sub(
        r"\.venv/bin/(shoplens|python)",
        lambda match: f"{python} -m shoplens" if match[1] == "shoplens" else python,
        here,
    )
    environment = {**os.environ, "SHOPLENS_MODELS_DIR": str(models_dir)}
    done = subprocess.run(
        ["bash", "-euc", here], cwd=workspace, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert 0 == done.returncode, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_works_as_written(program: str, workspace: Path, models_dir: Path) -> None:
    """And prints a label with its score."""
    environment = {**os.environ, "SHOPLENS_MODELS_DIR": str(models_dir)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=workspace, env=environment, capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stderr
    assert re.search(r"\d\.\d+", done.stdout)
