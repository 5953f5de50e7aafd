"""What Prometheus asks, when it calls people, and what Grafana shows: of services, ports and metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import pytest

from tests.deploy.files import DEPLOY, load, metrics, metrics_in
from tests.deploy.test_compose import SERVICES, environment
from tools import dashboard

FOLDER = DEPLOY / "prometheus"
RULES = [rule for group in load(FOLDER / "rules.yml")["groups"] for rule in group["rules"]]
BOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboards" / "shoplens.json").read_text(encoding="utf-8"))
NOT_SHOWN: set[str] = set()
"""Metrics that are on no panel, each with its reason."""
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
JOBS: dict[str, dict[str, Any]] = {job["job_name"]: job for job in load(FOLDER / "prometheus.yml")["scrape_configs"]}


def test_prometheus_asks_the_services_at_their_ports() -> None:
    """The web server by a name that it answers to, workers by the addresses behind their name, so all of them."""
    assert [{"targets": ["web:8000"]}] == JOBS["shoplens-web"]["static_configs"]
    (worker,) = JOBS["shoplens-worker"]["dns_sd_configs"]
    assert ["worker"] == worker["names"]
    assert environment("worker")["SHOPLENS_WORKER_PORT"] == str(worker["port"])
    assert {"web", "worker"} <= set(SERVICES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_speaks_of_metrics_that_exist(rule: dict[str, Any]) -> None:
    """And says in sentences what is the matter and what to do."""
    assert metrics_in(rule["expr"])
    assert set() == metrics_in(rule["expr"]) - metrics()
    assert {"summary", "action", "runbook_url"} == set(rule["annotations"])
    assert all(rule["annotations"][name].endswith(".") for name in ("summary", "action"))


def test_every_alert_is_tried() -> None:
    """Each fires in one of the tests and is silent in the first of its file."""
    quick, slow = (load(FOLDER / name)["tests"] for name in ("rules_test.yml", "rules_slow_test.yml"))
    quiet = {
        each["alertname"]
        for first in (quick[0], slow[0])
        for each in first["alert_rule_test"]
        if not each["exp_alerts"]
    }
    fired = set(re.findall(r'alertname="(\w+)",alertstate="firing"', str([*quick[1:], *slow[1:]])))
    assert {rule["alert"] for rule in RULES} == quiet == fired


def test_promtool_agrees() -> None:
    """The alerts fire on the series that they should fire on; Debian has promtool in its package prometheus."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here: apt-get install prometheus")
    for words in (["check", "config", "prometheus.yml"], ["test", "rules", "rules_test.yml", "rules_slow_test.yml"]):
        done = subprocess.run([promtool, *words], cwd=FOLDER, capture_output=True, text=True, check=False, timeout=60)
        assert (0, "") == (done.returncode, done.stdout[-2_000:] + done.stderr if done.returncode else "")


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel['id']} {panel['title']}")
def test_a_panel_shows_metrics_that_exist(panel: dict[str, Any]) -> None:
    """Each says in a sentence what it shows, in a unit, from the data source that a reader chooses."""
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert {"prometheus", "${source}"} == {*panel["datasource"].values()}
    assert panel["targets"]
    for target in panel["targets"]:
        assert set() == metrics_in(target["expr"]) - metrics()


def test_the_dashboard_is_what_its_panels_make() -> None:
    """`make docs` writes it."""
    assert dashboard.text() == dashboard.FILE.read_text(encoding="utf-8")


def test_every_metric_is_on_a_panel() -> None:
    """But for those that say nothing by themselves."""
    shown = {name for panel in PANELS for target in panel["targets"] for name in metrics_in(target["expr"])}
    assert NOT_SHOWN == metrics() - shown


def test_panels_have_their_own_places() -> None:
    """Panel ids and titles are unique, the latter within a row, and no panel overlaps another."""
    titles: list[tuple[str, str]] = []
    row = ""
    for panel in BOARD["panels"]:
        row = panel["title"] if panel["type"] == "row" else row
        titles.append((row, panel["title"]))
    assert len(titles) == len(set(titles))
    assert len(BOARD["panels"]) == len({panel["id"] for panel in BOARD["panels"]})
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in BOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert 24 > max(x for x, _ in cells)


def test_grafana_finds_what_is_provisioned() -> None:
    """The folders are mounted where the files name them."""
    mounts = dict(mount.rsplit(":", 2)[:2] for mount in SERVICES["grafana"]["volumes"] if mount.startswith("."))
    (provider,) = load(DEPLOY / "grafana" / "provisioning" / "dashboards" / "shoplens.yml")["providers"]
    assert provider["options"]["path"] == mounts["./grafana/dashboards"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert f"{mounts['./grafana/dashboards']}/shoplens.json" == home
