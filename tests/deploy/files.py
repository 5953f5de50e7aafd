"""Read the files of deploy/ as data, with the settings, commands and metrics that they name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, get_args, get_origin

import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel

from shoplens.setting_sources import ENVIRONMENT_PREFIX
from shoplens.settings import Settings
from tools.project import ROOT

DEPLOY: Final = ROOT / "deploy"
REFERENCE: Final = ROOT / "docs" / "reference"
_OF_EVERY_PROCESS: Final = {
    "up", "process_cpu_seconds_total", "process_max_fds", "process_open_fds", "process_resident_memory_bytes",
}  # fmt: skip
_METRIC_ENDINGS: Final = ("_bucket", "_sum", "_count")


def load(path: Path) -> Any:
    """The only document of a YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def load_all(path: Path) -> list[Any]:
    """The documents of a YAML file."""
    return [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each is not None]


def unknown_settings(names: Mapping[str, Any] | Iterator[str]) -> list[str]:
    """The variables with the prefix of settings that name no setting."""
    return [name for name in names if name.startswith(ENVIRONMENT_PREFIX) and not is_setting(name)]


def is_setting(variable: str) -> bool:
    """Whether SHOPLENS_A__B names a field; a table with free names may have any."""
    model: Any = Settings
    for part in variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"):
        if get_origin(model) is UnionType:
            model = next(choice for choice in get_args(model) if choice is not NoneType)
        if get_origin(model) is dict:
            model = get_args(model)[1]
        elif isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            model = model.model_fields[part].annotation
        else:
            return False
    return True


def commands() -> set[str]:
    """The commands of the program, such as `batch run`."""
    return set(re.findall(r"^#{2,3} shoplens (.+)$", (REFERENCE / "cli.md").read_text(encoding="utf-8"), re.MULTILINE))


def command_of(words: list[str]) -> str:
    """The command in the arguments of a container."""
    return " ".join(words[: next((n for n, word in enumerate(words) if word.startswith("-")), len(words))])


def metrics() -> set[str]:
    """The metrics that the processes expose, with those that come with every Python process."""
    text = (REFERENCE / "metrics.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `(\w+)`", text, re.MULTILINE)) | _OF_EVERY_PROCESS


def metrics_in(expression: str) -> set[str]:
    """The metrics that a query of Prometheus names, without the endings of histograms."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\bby \([^)]*\)', " ", expression)
    names = set(re.findall(r"[a-z_]{2,}(?![a-z_]*\s*\()", bare)) - {"and", "or", "by", "without", "vector"}
    return {_whole(name) for name in names}


def _whole(name: str) -> str:
    known = metrics()
    return next((name.removesuffix(end) for end in _METRIC_ENDINGS if name.removesuffix(end) in known), name)
