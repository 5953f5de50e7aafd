"""The reference pages say what the code does: settings, errors, metrics, commands, the HTTP interface."""

from __future__ import annotations

from shoplens.settings import Settings
from shoplens.telemetry.metrics import Metrics
from tests.architecture.source import MODULES, imported_packages, name_of
from tools.reference import FOLDER, metric_rows, setting_rows


def test_every_setting_is_described() -> None:
    """A knob without a description is a riddle."""
    assert [] == [row.name for row in setting_rows(Settings) if not row.description.endswith(".")]


def test_every_setting_stands_in_the_reference_with_its_variable() -> None:
    """The page is searched by the name in the file and by the name in the environment."""
    page = (FOLDER / "settings.md").read_text(encoding="utf-8")
    rows = list(setting_rows(Settings))
    assert len(Settings.model_fields) <= len(rows)
    assert [] == [row.name for row in rows if f"`{row.name}`" not in page or f"`{row.variable}`" not in page]


def test_every_metric_that_is_exposed_stands_in_the_reference() -> None:
    """Compared with what a scrape of a fresh process shows, not with the source."""
    page = (FOLDER / "metrics.md").read_text(encoding="utf-8")
    families = [
        family for family in Metrics().registry.collect() if not family.name.startswith(("process_", "python_"))
    ]
    exposed = [f"{family.name}_total" if family.type == "counter" else family.name for family in families]
    assert [] == [name for name in exposed if f"`{name}`" not in page]
    assert sorted(exposed) == [row.name for row in metric_rows()]


def test_metrics_are_declared_in_one_module() -> None:
    """Names and labels that dashboards rely on are in one place; the web edge may only render them."""
    users = [name_of(path) for path in MODULES if "prometheus_client" in imported_packages(path)]
    assert ["telemetry/metrics.py"] == [user for user in users if not user.startswith("web/")]
