"""The files around the code are consistent: commands, changelog, decisions, licence and locks."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import shoplens
from tools import lock
from tools.project import ROOT, project_files, pyproject

README = ROOT / "README.md"
DECISIONS = ROOT / "docs" / "decisions"
DECISION_PARTS = ["Context", "Decision", "Consequences", "Alternatives"]
PAGES = [path for path in project_files() if path.suffix == ".md"]


def relative(path: Path) -> str:
    """A file's path below the root; it names the test's case."""
    return path.relative_to(ROOT).as_posix()


def decision_records() -> list[Path]:
    """The numbered records, in order."""
    return sorted(path for path in DECISIONS.glob("*.md") if path.name != "README.md")


def make_targets() -> set[str]:
    """The targets that the Makefile declares."""
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_make_command_in_the_documentation_exists(page: Path) -> None:
    """`make something` in a code block or in backticks is a target of the Makefile."""
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert set() == named - make_targets()


def test_every_test_that_the_documentation_names_exists() -> None:
    """Evidence that names a test stays true when tests are renamed."""
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8"))}
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")]
    defined = {name for source in sources for name in re.findall(r"def (test_\w+)\(", source)}
    assert set() == named - defined


def test_every_target_is_explained() -> None:
    """`make` alone says what there is."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    explained = set(re.findall(r"^([a-z]+):.*## \S", makefile, re.MULTILINE))
    declared = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split())
    assert declared == explained == make_targets()


def test_the_readme_starts_with_the_two_commands() -> None:
    """A newcomer needs `make run` and `make test` and finds them in this order."""
    text = README.read_text(encoding="utf-8")
    assert 0 < text.index("make run") < text.index("make test")


def test_the_changelog_has_the_current_version_and_what_is_to_come() -> None:
    """Keep a Changelog: the newest section is Unreleased, and the version of the code has its own."""
    sections = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert "Unreleased" == sections[0]
    assert shoplens.__version__ in sections


def test_decision_records_are_numbered_without_gaps() -> None:
    """0001, 0002 and so on, each with a title in its name."""
    names = [path.name for path in decision_records()]
    assert [f"{number:04d}" for number in range(1, len(names) + 1)] == [name[:4] for name in names]
    assert [] == [name for name in names if not re.fullmatch(r"\d{4}-[a-z0-9]+(-[a-z0-9]+)*\.md", name)]


@pytest.mark.parametrize("record", decision_records(), ids=relative)
def test_a_decision_record_has_all_its_parts(record: Path) -> None:
    """Context, decision, consequences and alternatives, in this order, under a title with the record's number."""
    text = record.read_text(encoding="utf-8")
    assert text.startswith(f"# {int(record.name[:4])}. ")
    assert DECISION_PARTS == re.findall(r"^## (\w+)$", text, re.MULTILINE)
    assert re.search(r"^(Accepted|Proposed|Superseded by \[.+\]\(.+\)), \d{4}-\d{2}-\d{2}\.$", text, re.MULTILINE)


def test_every_decision_record_is_indexed() -> None:
    """The index links each record once, in order."""
    index = (DECISIONS / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in decision_records()] == re.findall(r"^\|.*\]\((\d{4}-[^)]+)\)", index, re.MULTILINE)


def test_the_licence_is_the_declared_one() -> None:
    """Apache-2.0 in words and in the package's metadata."""
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache-2.0" == pyproject()["project"]["license"]
    assert "Apache License" in text
    assert "The Shoplens authors" in text


@pytest.mark.parametrize("name", lock.EXTRAS)
def test_every_locked_package_has_a_hash(name: str) -> None:
    """pip refuses the whole file otherwise, on the machine of a user."""
    requirements = re.split(r"^(?=\w)", lock.lock_file(name).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert requirements
    assert [] == [block.partition(" ")[0] for block in requirements if "--hash=sha256:" not in block]


def test_the_locks_agree_with_each_other() -> None:
    """What runs is what was tested and checked."""
    pins = {
        name: set(re.findall(r"^(\S+==\S+)", lock.lock_file(name).read_text(encoding="utf-8"), re.MULTILINE))
        for name in lock.EXTRAS
    }
    assert pins["run"] <= pins["heic"] <= pins["test"] <= pins["dev"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel that this tree builds."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=100)
    (built,) = folder.iterdir()
    return zipfile.ZipFile(built)


def test_the_wheel_has_the_licence_and_the_notices_of_others(wheel: zipfile.ZipFile) -> None:
    """As the Apache License asks for in section 4, and the licences of the models that NOTICE names."""
    for name in ("LICENSE", "NOTICE"):
        (packed,) = [path for path in wheel.namelist() if path.endswith(f".dist-info/licenses/{name}")]
        assert (ROOT / name).read_bytes() == wheel.read(packed)


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel: zipfile.ZipFile) -> None:
    """Templates, static files and what the models have learned, but no test."""
    package = {path.relative_to(ROOT / "src").as_posix() for path in project_files() if "src" in path.parts}
    packed = {path for path in wheel.namelist() if ".dist-info/" not in path}
    assert package == packed
