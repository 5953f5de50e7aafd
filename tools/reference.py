"""Write the reference pages under docs/reference from the code, or say which no longer fit it."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args, get_origin

from prometheus_client import Counter, Gauge, Histogram
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from shoplens.monitoring.alerts.rules import RULES, Rule
from shoplens.telemetry.metrics import Metrics
from tools.project import ROOT

FOLDER: Final = ROOT / "docs" / "reference"
RUNBOOKS: Final = ROOT / "docs" / "runbooks"
PLAIN_TYPES: Final[dict[Any, str]] = {
    bool: "true or false",
    float: "number",
    int: "whole number",
    str: "text",
    Path: "path",
}
GENERATED: Final = "<!-- Written by `make docs` from the code. -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingRow:
    """One setting: its dotted name in shoplens.toml, its type, default and description."""

    name: str
    type: str
    default: str
    description: str

    @property
    def variable(self) -> str:
        """The environment variable of the setting."""
        return "SHOPLENS_" + self.name.replace(".", "__").replace("*", "NAME").upper()


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow:
    """One metric as Prometheus sees it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


def setting_rows(model: type[BaseModel], prefix: str = "") -> Iterator[SettingRow]:
    """Every field of a settings model, nested ones after the field that holds them; `*` stands for a name."""
    for name, field in model.model_fields.items():
        yield _setting_row(f"{prefix}{name}", field)
        for nested, step in _nested_models(field.annotation):
            yield from setting_rows(nested, f"{prefix}{name}{step}.")


def _setting_row(name: str, field: FieldInfo) -> SettingRow:
    return SettingRow(
        name=name,
        type=_type_name(field.annotation),
        default=_default(field),
        description=field.description or "",
    )


def _nested_models(annotation: Any) -> Iterator[tuple[type[BaseModel], str]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation, ""
    for argument in get_args(annotation):
        if inspect.isclass(argument) and issubclass(argument, BaseModel):
            yield argument, ".*" if getattr(annotation, "__origin__", None) is dict else ""


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        return " or ".join(f"`{choice.value}`" for choice in annotation)
    if inspect.isclass(annotation) and not get_args(annotation):
        return PLAIN_TYPES.get(annotation, "table")
    if get_origin(annotation) is dict:
        return "table"
    if get_origin(annotation) is tuple:
        return "list"
    return " or ".join(_type_name(choice) for choice in get_args(annotation) if choice is not type(None))


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "empty" if inspect.isclass(field.default_factory) else "computed"
    if field.default is PydanticUndefined:
        return "required"
    if field.default is None:
        return "unset"
    plain = getattr(field.default, "value", field.default)
    if isinstance(plain, (bool, tuple, list)):
        return json.dumps(plain)
    return f"{plain:,}" if isinstance(plain, int) and plain >= 10_000 and plain % 1_000 == 0 else str(plain)


def settings_page() -> str:
    """Every setting with its variable."""
    from shoplens.settings import Settings

    rows = [
        f"| `{row.name}` | `{row.variable}` | {_cell(row.type)} | {_cell(row.default)} | {_cell(row.description)} |"
        for row in setting_rows(Settings)
    ]
    return _page(
        "Settings",
        "Read once at the start, from arguments of the command, the environment and `shoplens.toml`, in this order; "
        "`SHOPLENS_CONFIG` names another file. A list in a variable has commas between its values, or is JSON. "
        "`*` and `NAME` stand for a name of your own, such as a channel's.",
        ["| name | variable | type | default | what it is |", "|---|---|---|---|---|", *rows],
    )


def errors_page() -> str:
    """Every error with its code and HTTP status."""
    from shoplens.errors import ShoplensError
    from shoplens.web.problems import status_of

    for module in sorted((ROOT / "src" / "shoplens").glob("*/errors.py")):
        import_module(f"shoplens.{module.parent.name}.errors")

    rows = [
        f"| `{error.code}` | {status_of(error)} | `{error.__name__}` | {_first_line(error)} |"
        for error in _family(ShoplensError)
    ]
    return _page(
        "Errors",
        "The `code` is stable: programs may rely on it. Over HTTP it is in a problem+json body (RFC 9457) with a "
        "`detail` for people; the command line prints the same sentence; Python raises the class.",
        ["| code | status | class | what it means |", "|---|---|---|---|", *rows],
    )


def _family(error: type[Any]) -> Iterator[type[Any]]:
    yield error
    for child in error.__subclasses__():
        yield from _family(child)


def metric_rows() -> list[MetricRow]:
    """Every metric that a process declares, by name."""
    declared = (value for value in vars(Metrics()).values() if isinstance(value, (Counter, Gauge, Histogram)))
    return sorted(map(_metric_row, declared), key=lambda row: row.name)


def _metric_row(metric: Counter | Gauge | Histogram) -> MetricRow:
    (family,) = metric.describe()
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return MetricRow(name=name, kind=family.type, labels=tuple(metric._labelnames), help=family.documentation)  # noqa: SLF001  # no public name


def metrics_page() -> str:
    """Every metric at /metrics."""
    rows = [
        f"| `{row.name}` | {row.kind} | {', '.join(f'`{label}`' for label in row.labels)} | {_cell(row.help)} |"
        for row in metric_rows()
    ]
    return _page(
        "Metrics",
        "At `/metrics`, in the text format of Prometheus, with the usual `process_*` and `python_*` of its client.",
        ["| name | kind | labels | what it counts |", "|---|---|---|---|", *rows],
    )


def cli_page() -> str:
    """The options before a command, the exit statuses, and every command with its arguments and examples."""
    from typer.main import get_command

    from shoplens.cli.app import app
    from shoplens.cli.command import KINDS, OTHER_STATUSES

    root = cast(Any, get_command(app))
    statuses = sorted([*OTHER_STATUSES, *((status, meaning) for status, meaning, _ in KINDS)])
    rows = ["## Options before the command", "", "`shoplens [OPTIONS] COMMAND …`; `--data-dir` and `--json` may also "]
    rows[-1] += "stand after a command that has them."
    rows += ["", *_parameters(root), "", "## Exit statuses", ""]
    rows += ["| status | what it means |", "|---|---|", *(f"| {status} | {_cell(text)} |" for status, text in statuses)]
    rows += [
        "",
        "An error is one line on standard error, `error (CODE): sentence`, with the code of [Errors](errors.md),",
    ]
    rows += ["and where it helps a second line, `hint: …`.", ""]
    for section, names in _sections(root):
        rows += [f"## {section}", ""]
        for name, command in (found for each in names for found in _commands(f"shoplens {each}", root, each)):
            rows += [f"### {name}", "", _help(command), "", *_parameters(command), ""]
            if command.epilog:
                rows += ["```console", *(f"$ {line}" for line in command.epilog.splitlines()), "```", ""]
    return _page("Command line", "`shoplens -h` and `shoplens COMMAND -h` say the same.", rows[:-1])


def _sections(root: Any) -> Iterator[tuple[str, list[str]]]:
    sections: dict[str, list[str]] = {}
    for name, section, _ in root.listed(None):
        sections.setdefault(section, []).append(name)
    yield from sections.items()


def _commands(name: str, group: Any, child: str) -> Iterator[tuple[str, Any]]:
    """A command, or those of a group; a group that does something by itself comes first."""
    command = group.get_command(None, child)
    if not hasattr(command, "list_commands"):
        yield name, command
        return
    if command.invoke_without_command:
        yield name, command
    for each in sorted(command.list_commands(None)):
        yield from _commands(f"{name} {each}", command, each)


def _help(command: Any) -> str:
    return inspect.cleandoc(command.help or "")


def _parameters(command: Any) -> list[str]:
    rows = [
        f"| `{' '.join(parameter.opts)}` | {_cell(getattr(parameter, 'help', None) or '')} |"
        for parameter in command.params
        if not getattr(parameter, "hidden", False)
    ]
    return ["| argument | what it is |", "|---|---|", *rows] if rows else ["No arguments."]


class _NeverAsked:
    """Stands where the platform would: the routes are described here, and none is called."""

    def __init__(self, **known: object) -> None:
        self.__dict__.update(known)

    def __getattr__(self, name: str) -> _NeverAsked:
        return self


def openapi_page() -> str:
    """The OpenAPI description as the server sends it."""
    from shoplens.platform.server import WebLimits
    from shoplens.settings import read_settings
    from shoplens.web.app import create_app

    platform = _NeverAsked(limits=WebLimits.of(read_settings()))
    description = create_app(cast(Any, platform)).openapi()
    return json.dumps(description, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _first_line(thing: Any) -> str:
    return _cell(inspect.cleandoc(thing.__doc__ or "").partition("\n")[0])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _page(title: str, introduction: str, lines: list[str]) -> str:
    return "\n".join([f"# {title}", "", GENERATED, "", introduction, "", *lines]).rstrip("\n") + "\n"


def runbook_page(rule: Rule) -> str:
    """What to do when an alert fires; the console shows the same."""
    book = rule.runbook
    steps = {"What to look at": book.look, "What to do": book.do}
    lines = ["## What it means", "", book.means, ""]
    for heading, each in steps.items():
        lines += [f"## {heading}", "", *(f"{number}. {step}" for number, step in enumerate(each, 1)), ""]
    kind = rule.severity.value if rule.find else f"{rule.severity.value}; only Prometheus sees it"
    return _page(
        rule.title,
        f"`{rule.name}` ({kind}).",
        [*lines, "## When it is over", "", book.over, "", "[All runbooks](index.md)"],
    )


def runbooks_page() -> str:
    """Every alert with its waiting time."""
    rows = [
        f"| [{rule.name}]({rule.name}.md) | {rule.severity.value} | {_wait(rule.wait_s)} | {rule.title} |"
        for rule in RULES
    ]
    return _page(
        "Runbooks",
        "A page for each alert: what it means, what to look at, what to do, and when it is over. "
        "[Get alerts](../how-to/get-alerts.md) says how they reach you.",
        ["| alert | severity | fires after | what is wrong |", "|---|---|---|---|", *rows],
    )


def _wait(seconds: int) -> str:
    if seconds == 0:
        return "at once"
    return f"{seconds // 3_600} h" if seconds % 3_600 == 0 else f"{seconds // 60} min"


PAGES: Final[dict[str, Callable[[], str]]] = {
    "settings.md": settings_page,
    "errors.md": errors_page,
    "metrics.md": metrics_page,
    "cli.md": cli_page,
    "openapi.json": openapi_page,
    "../runbooks/index.md": runbooks_page,
    **{f"../runbooks/{rule.name}.md": partial(runbook_page, rule) for rule in RULES},
}


def stale_pages() -> list[Path]:
    """The pages that are missing or no longer fit the code."""
    return [path for name, page in PAGES.items() if not _fits(path := FOLDER / name, page())]


def _fits(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def main(arguments: list[str]) -> int:
    """Run `check` or `write`."""
    if arguments == ["write"]:
        for folder in (FOLDER, RUNBOOKS):
            folder.mkdir(parents=True, exist_ok=True)
        for name, page in PAGES.items():
            (FOLDER / name).write_text(page(), encoding="utf-8")
        return 0
    if arguments == ["check"]:
        old = stale_pages()
        for path in old:
            print(f"{path.relative_to(ROOT)} does not fit the code. Run `make docs`.", file=sys.stderr)
        return 1 if old else 0
    print("usage: python -m tools.reference check|write", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
