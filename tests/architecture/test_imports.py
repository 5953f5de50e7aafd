"""Third-party packages are imported only where they belong. The order of our own packages is in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from tests.architecture.source import MODULES, PACKAGE, imported_from, imported_packages, imports, name_of
from tools.project import ROOT

_ACCOUNTS = ("accounts/audit.py", "accounts/keys.py")
# The files that may import a package: a folder, a file, or a name that a file has in every feature.
HOMES: dict[str, tuple[str, ...]] = {
    "alembic": ("db/",),
    "arro3": ("batch/export.py", "catalogue/export.py", "labels/manifest.py"),
    "concurrent_log_handler": ("telemetry/",),
    "croniter": ("batch/schedule.py", "setting_groups.py"),
    "fastapi": ("web/", "*/*api.py", "*/*pages.py", "accounts/access.py"),
    "jinja2": ("web/", "batch/report.py", "messages/page_texts.py"),
    "babel": ("messages/",),
    "obstore": ("storage/",),
    "onnxruntime": ("serving/", "bundles/"),
    "pillow_heif": ("images/",),
    "prometheus_client": ("telemetry/", "web/"),
    "pydantic_settings": ("settings.py", "setting_groups.py"),
    "ray": ("batch/ray.py",),
    "redis": ("serving/redis/", "platform/"),
    "sklearn": ("training/", "retraining/label_errors.py", "retraining/product_trainer.py"),
    # Two copies of SQLite in one process would drop each other's locks. A process that completes a line opens one only.
    "pysqlite3": ("db/sqlite.py",),
    "sqlite3": ("db/sqlite.py", "cli/completion.py"),
    "sqlalchemy": (
        "db/",
        "*/tables.py",
        "*/*repository.py",
        "*/outbox.py",
        "batch/looks.py",
        "catalogue/search.py",
        "predictions/confusion.py",
        "predictions/views.py",
        *_ACCOUNTS,
    ),
    "starlette": ("web/", "*/*api.py", "*/*pages.py", "accounts/access.py"),
    "tenacity": ("batch/",),
    "torch": ("training/",),
    "typer": ("cli/", "*/*commands.py"),
    "uvicorn": ("cli/", "web/connections.py"),
}
# The same of our own packages that a feature's edges use.
EDGES: dict[str, tuple[str, ...]] = {
    "shoplens.web": ("web/", "cli/", "*/*api.py", "*/*pages.py", "*/access.py", "*/*charts.py"),
    "shoplens.cli": ("cli/", "*/*commands.py", "__main__.py"),
    "shoplens.platform": ("platform/", "web/", "cli/", "*/*commands.py", "*/doctor.py", "__init__.py"),
}
# A service hands the transaction that it opened to repositories: it names its type, and makes no query itself.
HANDED_ON = {"sqlalchemy": {"Connection"}}
# Values and rules of a feature: the standard library and our own modules only.
PURE = sorted(path for name in ("entities.py", "policy.py") for path in PACKAGE.rglob(name))


def lives_at(name: str, home: str) -> bool:
    """Whether the module `name` is, or lies in, `home`."""
    return name.startswith(home) if home.endswith("/") else PurePosixPath(name).match(home)


@pytest.mark.parametrize("path", PURE, ids=name_of)
def test_entities_import_no_third_party(path: Path) -> None:
    """Rules are plain Python."""
    foreign = set(imported_packages(path)) - set(sys.stdlib_module_names) - {"shoplens"}
    assert set() == foreign


@pytest.mark.parametrize("package", HOMES)
def test_a_package_is_imported_only_where_it_belongs(package: str) -> None:
    """So that all users of a package are found in one place."""
    users = [
        name_of(path)
        for path in MODULES
        if package in imported_packages(path) and not imported_from(path, package) <= HANDED_ON.get(package, set())
    ]
    assert [] == [user for user in users if not any(lives_at(user, home) for home in HOMES[package])]


@pytest.mark.parametrize("package", EDGES)
def test_only_the_edges_of_a_feature_import_the_edges(package: str) -> None:
    """Routes and pages what `web` shares, commands what builds the parts."""
    users = [name_of(path) for path in MODULES if imports(path, package)]
    assert [] == [user for user in users if not any(lives_at(user, home) for home in EDGES[package])]


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
