"""Read the shipped modules as syntax trees, without importing them."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Final

from tools.project import ROOT

PACKAGE: Final = ROOT / "src" / "shoplens"
MODULES: Final[tuple[Path, ...]] = tuple(sorted(PACKAGE.rglob("*.py")))


def name_of(path: Path) -> str:
    """A module's path below the package, such as `web/api/predict.py`; it names the test's case, too."""
    return path.relative_to(PACKAGE).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def imported_packages(path: Path) -> frozenset[str]:
    """The top-level packages that a module imports anywhere, also inside functions."""
    return frozenset(name.partition(".")[0] for name in _imported_modules(path))


def imports(path: Path, module: str) -> bool:
    """Whether a module imports another one, or one below that."""
    return any(f"{name}.".startswith(f"{module}.") for name in _imported_modules(path))


def imported_from(path: Path, package: str) -> set[str]:
    """The names that a module imports directly from a package; "*" where it imports more of it than names."""
    names: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and node.module == package:
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {"*"} if (node.module or "").startswith(f"{package}.") else set()
        elif isinstance(node, ast.Import):
            names |= {"*" for alias in node.names if alias.name.partition(".")[0] == package}
    return names


@cache
def _imported_modules(path: Path) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)
