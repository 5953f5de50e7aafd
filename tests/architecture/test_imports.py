"""Imports go one way, and each foreign package is known to one part only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source import MODULES, PACKAGE, imported_packages, name_of
from tools.project import ROOT

# Which part of the tree may import a package. A prefix is a folder or a module.
HOMES: dict[str, tuple[str, ...]] = {
    "alembic": ("db/",),
    "arro3": ("services/",),
    "concurrent_log_handler": ("telemetry/",),
    "fastapi": ("web/",),
    "jinja2": ("web/console/", "services/returns/"),
    "obstore": ("storage/",),
    "onnxruntime": ("inference/", "bundles/"),
    "pillow_heif": ("imaging/",),
    "prometheus_client": ("telemetry/", "web/"),
    "pydantic_settings": ("settings.py",),
    "ray": ("inference/cluster/",),
    "sqlalchemy": ("db/",),
    "starlette": ("web/",),
    "torch": ("training/",),
    "typer": ("cli/",),
    "uvicorn": ("cli/",),
}


@pytest.mark.parametrize("path", sorted((PACKAGE / "domain").glob("*.py")), ids=name_of)
def test_the_domain_imports_no_third_party(path: Path) -> None:
    """Rules are plain Python: the standard library and our own modules."""
    foreign = set(imported_packages(path)) - set(sys.stdlib_module_names) - {"shoplens"}
    assert set() == foreign


@pytest.mark.parametrize("package", HOMES)
def test_a_foreign_package_is_known_to_one_part_only(package: str) -> None:
    """Whoever replaces a package finds all of its users in one place."""
    users = [name_of(path) for path in MODULES if package in imported_packages(path)]
    assert [] == [user for user in users if not user.startswith(HOMES[package])]


def test_shipped_code_imports_no_test_tools() -> None:
    """pytest and its friends are not installed with the product; `testing` may use them."""
    tools = {"hypothesis", "psutil", "pytest", "schemathesis", "playwright"}
    users = [name_of(path) for path in MODULES if tools & set(imported_packages(path))]
    assert [] == [user for user in users if not user.startswith("testing/")]


def test_importing_the_package_loads_nothing_heavy() -> None:
    """`import shoplens` costs nothing: numpy, ONNX Runtime and the web framework wait until they are needed."""
    program = (
        "import sys, shoplens; print(*sorted({'numpy', 'onnxruntime', 'fastapi', 'PIL', 'pydantic'} & {*sys.modules}))"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "" == result.stdout.strip()


def test_the_layers_of_import_linter_hold(capfd: pytest.CaptureFixture[str]) -> None:
    """The contracts in pyproject.toml, run as `make check` runs them, where import-linter is installed."""
    pytest.importorskip("importlinter", reason="import-linter comes with the extra `dev`; `make check` runs it too")
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert 0 == result.returncode, result.stdout
