"""Every command of the tutorial of a first nightly run works and prints what the page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import running_server

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial" / "first-batch.md").read_text()
BLOCK = re.compile(r"```(sh|text)\n(.*?)```", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is typed, and the lines that are shown below it; none where the page shows none."""

    typed: str
    shown: tuple[str, ...]


def steps() -> Iterator[Step]:
    """The blocks of the page in order."""
    blocks = [*BLOCK.findall(PAGE), ("sh", "")]
    for (language, text), (following, answer) in pairwise(blocks):
        if language == "sh":
            yield Step(typed=text, shown=tuple(answer.splitlines()) if following == "text" else ())


def pattern(line: str) -> re.Pattern[str]:
    """`…` is anything; how many are done and how long ago depends on the machine."""
    text = re.escape(line).replace("…", ".*")
    return re.compile(re.sub(r"\d+(?=\\ (?:done|need\\ review|s\\ ago))", r"\\d+", text))


def test_the_page_has_steps_and_shows_their_outcomes() -> None:
    """The blocks are found at all, and no output stands without its command."""
    found = list(steps())
    assert len(found) >= 10
    assert len([each for each in found if each.shown]) == PAGE.count("```text")


@pytest.mark.timeout(600)
def test_a_newcomer_sees_what_the_page_says(tmp_path: Path, models_dir: Path) -> None:
    """In a folder with an installation and a server, as `make run` leaves it."""
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parent.parent)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOPLENS_")}
    environment["SHOPLENS_MODELS_DIR"] = str(models_dir)
    with running_server(tmp_path / "shoplens-data", models_dir) as server:
        for step in steps():
            if step.typed == "make run\n":
                continue
            done = subprocess.run(
                ["bash", "-euc", step.typed.replace("http://127.0.0.1:8000", server.url)],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=250,
            )
            assert 0 == done.returncode, done.stderr
            lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
            missing = [line for line in step.shown if not any(pattern(line).fullmatch(each) for each in lines)]
            assert [] == missing, f"{step.typed}{done.stdout}{done.stderr}"
    assert "650908_text_3.jpg" in (tmp_path / "report.html").read_text()
