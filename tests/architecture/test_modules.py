"""Every module says its one job, has an honest name and stays quiet."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.architecture.source import MODULES, name_of, tree_of

VAGUE_NAMES = {"utils", "util", "helpers", "helper", "manager", "managers", "common", "misc", "base", "core"}


def job_of(path: Path) -> str:
    """The first line of a module's docstring, empty without one."""
    return (ast.get_docstring(tree_of(path)) or "").partition("\n")[0]


def prints(path: Path) -> bool:
    """Whether a module calls print."""
    calls = (node.func for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call))
    return any(isinstance(call, ast.Name) and call.id == "print" for call in calls)


def test_every_module_says_its_job_in_its_first_line() -> None:
    """A sentence, or the beginning of a drawing; more than the module's name."""
    jobs = {name_of(path): job_of(path) for path in MODULES}
    assert [] == [name for name, job in jobs.items() if not job.endswith((".", ":")) or len(job.split()) < 3]


def test_no_module_has_a_vague_name() -> None:
    """A module called utils collects what has no place."""
    assert [] == [name_of(path) for path in MODULES if VAGUE_NAMES & {path.stem, path.parent.name}]


def test_only_the_command_line_prints() -> None:
    """Everything else logs events."""
    assert [] == [
        name_of(path)
        for path in MODULES
        if prints(path) and not name_of(path).startswith("cli/") and path.stem != "commands"
    ]


def test_every_logger_is_silent_until_logs_are_configured() -> None:
    """Loggers that structlog makes print to standard output by default."""
    makers = [name_of(path) for path in MODULES if "structlog.get_logger" in path.read_text()]
    assert [] == makers


def test_routers_are_made_in_one_place() -> None:
    """FastAPI's own class would make pages that are listed in the API, and operations that ignore unknown names."""
    assert ["web/routing.py"] == [name_of(path) for path in MODULES if "APIRouter(" in path.read_text()]
