"""The Dockerfile keeps what it promises: the plain builder can do it, hashes, no root, nothing private is sent."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY, unknown_settings
from tools.project import ROOT

FOLDER = DEPLOY / "docker"
SHOPLENS = FOLDER / "Dockerfile"
DOCKERFILES = sorted(FOLDER.glob("*Dockerfile"))


def instructions(path: Path) -> list[tuple[str, str]]:
    """Each instruction with its words; comments are gone and continued lines joined."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    parts = [line.partition(" ") for line in joined.splitlines() if line.strip()]
    return [(name, words.strip()) for name, _, words in parts]


def stages(path: Path) -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage by its name; a last one without a name has the name `last`."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, words in instructions(path):
        if name == "FROM":
            found[words.partition(" AS ")[2] or "last"] = []
        if found:
            found[list(found)[-1]].append((name, words))
    return found


def arguments(stage: str, name: str) -> list[str]:
    """What the instructions `name` of a stage of ours say."""
    return [words for instruction, words in stages(SHOPLENS)[stage] if instruction == name]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_plain_builder_can_do_it(path: Path) -> None:
    """No image of a syntax is pulled, nothing is mounted, and no here-documents."""
    assert [] == re.findall(r"^#\s*syntax|--mount|<<", path.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_every_stage_stands_on_the_base_or_on_an_earlier_stage(path: Path) -> None:
    """So one argument names the only image that is pulled, and it is no `latest`."""
    known = {"${BASE}"}
    for name, own in stages(path).items():
        assert own[0][1].partition(" AS ")[0] in known
        known.add(name)
    base = dict(instructions(path))["ARG"] if path != SHOPLENS else instructions(path)[0][1]
    assert re.fullmatch(r"BASE=[\w/]+:\d[\w.-]+", instructions(path)[0][1]), base


def test_the_stages_stand_in_the_right_order() -> None:
    """The plain builder makes all above its target: no test for a runtime; and who names no target gets the runtime."""
    assert ["build", "installed", "runtime", "test", "last"] == list(stages(SHOPLENS))
    assert [("FROM", "runtime")] == stages(SHOPLENS)["last"]


def test_every_package_is_installed_with_its_hash() -> None:
    """From the locks; our own code is installed without asking any index."""
    installs = re.findall(r"pip install [^&;]*", SHOPLENS.read_text(encoding="utf-8"))
    assert 5 == len(installs)
    for each in installs:
        assert "--require-hashes" in each or "--no-deps --no-build-isolation ." in each
    locks = re.findall(r"requirements/(\w+)\.lock", SHOPLENS.read_text(encoding="utf-8"))
    assert [] == [name for name in locks if not (ROOT / "requirements" / f"{name}.lock").is_file()]


def test_the_runtime_is_nobody_special() -> None:
    """A user by number, which Kubernetes can check, both numbers as arguments of the build, and not root."""
    assert ["${UID}:${GID}"] == arguments("runtime", "USER")
    assert {"UID=10001", "GID=10001"} <= set(arguments("runtime", "ARG"))
    assert ["10001"] == arguments("test", "USER")


def test_the_runtime_says_what_it_is() -> None:
    """Health, labels, a program and its usual argument."""
    assert ['["shoplens"]'] == arguments("runtime", "ENTRYPOINT")
    assert ['["serve"]'] == arguments("runtime", "CMD")
    assert "/health/live" in arguments("runtime", "HEALTHCHECK")[0]
    labels = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", arguments("runtime", "LABEL")[0]))
    assert {"title", "description", "licenses", "version", "revision", "created"} == labels


def test_no_secret_and_no_unknown_setting_is_in_the_image() -> None:
    """Only folders and the form of the log; and nothing that a library might tell its maker."""
    variables = dict(re.findall(r"(\w+)=(\S+)", " ".join(arguments("runtime", "ENV"))))
    assert [] == unknown_settings(variables)
    assert [] == [name for name in variables if re.search(r"PASSWORD|SECRET|KEY|TOKEN|URL", name)]
    assert "1" == variables["ORT_DISABLE_TELEMETRY"]


def test_what_is_private_is_not_sent_to_the_builder() -> None:
    """History, environments, data, and every file that may hold a secret."""
    ignored = set((ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines())
    assert {".git", ".venv", "shoplens-data", "**/.env", "**/.env.*", "**/shoplens.toml"} <= ignored


def test_the_image_has_a_sqlite_without_the_wal_reset_bug() -> None:
    """That of its Debian has it; the lock that is installed brings another one."""
    lock = (ROOT / "requirements" / "scale.lock").read_text(encoding="utf-8")
    found = re.search(r"^pysqlite3==(\d+)\.(\d+)\.(\d+) ;.*linux", lock, flags=re.MULTILINE)
    assert found is not None
    assert (0, 6, 1) <= tuple(map(int, found.groups()))
