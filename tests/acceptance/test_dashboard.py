"""The dashboard of Grafana on a real Prometheus that scraped a web server and a worker at work: no panel is empty."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode
from urllib.request import urlopen

import httpx
import pytest

from servers import prometheus
from servers.prometheus import RunningPrometheus, is_missing, running_prometheus, wait_until
from shoplens.db import open_database
from shoplens.db.tables import new_id
from shoplens.predictions.entities import FeedbackValue
from shoplens.predictions.policy import Decision, Outcome
from shoplens.predictions.repository import FeedbackRepository, add_records
from tests.acceptance.batch_server import clear_photo, dim_photo, models_with_fruit, run_through, send, torn_photo
from tests.acceptance.catalogue_server import colour_photo, models_with_paint
from tests.acceptance.fleet_of_processes import ProcessFleet
from tests.acceptance.moderation_shop import HOLDS_ALL, photo_of
from tests.commands import run_command
from tests.samples import make_record, make_remark
from tools import dashboard
from tools.project import ROOT

MISSING = is_missing(prometheus.PROMETHEUS)
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

CHANNELS: Final = """
[channels.look]
model = "fruit"
keep = "nothing"
[channels.returns]
model = "fruit"
accept_at = 0.9
batch.quiet_s = 0
[channels.catalogue]
model = "paint"
accept_at = 0.6
catalogue.answer_at = 0.55
"""
VARIABLES: Final = {"$channel": ".*", "$catalogue": "catalogue.*", "${returns}": "returns"}
NO_NUMBER: Final = {"Days until the disk is full"}
"""There is none while the disk does not fill."""
QUERIES: Final = [
    (panel["title"], legend["expr"]) for panel in dashboard.dashboard()["panels"] for legend in panel.get("targets", ())
]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[ProcessFleet]:
    """Four days of a shop in the database, then a web server and a worker with small models."""
    root = tmp_path_factory.mktemp("dashboard")
    models = models_with_paint(root / "paint", models_with_fruit(root / "fruit", models_dir))
    (root / "shop.toml").write_text(CHANNELS)
    settings = {
        "SHOPLENS_CONFIG": str(root / "shop.toml"),
        "SHOPLENS_MODELS_URL": f"file://{root}/registry",
        "SHOPLENS_CHANNELS__REVIEWS": json.dumps({**HOLDS_ALL, "moderation": {"general_model": None}}),
    }
    with ProcessFleet(root, models, with_postgres=False, settings=settings) as started:
        environment = {
            **os.environ,
            **settings,
            "SHOPLENS_DATA_DIR": str(root / "web"),
            "SHOPLENS_MODELS_DIR": str(models),
        }
        simulate = [sys.executable, "-m", "examples.simulate_quarter", "--days", "4"]
        subprocess.run(simulate, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=200)
        compared = run_command("monitoring", "drift", environment=environment, folder=root, timeout_s=100)
        assert 0 == compared.returncode, compared.stderr
        add_random_checks(f"sqlite:///{root}/web/shoplens.db")
        started.start_worker("one")
        started.start_web()
        yield started


def add_random_checks(url: str) -> None:
    """Photos of today that went to a person by chance, with the answers: what the accuracy is estimated from."""
    now = datetime.now(UTC)
    database = open_database(url)
    with database.transaction() as tx:
        for number in range(40):
            decision = Decision(outcome=Outcome.REVIEW, policy_version="0123456789ab", check_share=0.1)
            record = make_record(number, id=new_id(now), created_at=now, decision=decision)
            add_records(tx, [record])
            verdict = FeedbackValue.RIGHT if number % 9 else FeedbackValue.WRONG
            FeedbackRepository(tx).add(make_remark(record.id, id=new_id(now), created_at=now, verdict=verdict))
    database.close()


@pytest.fixture(scope="module")
def scraped(fleet: ProcessFleet) -> Iterator[RunningPrometheus]:
    """A Prometheus that saw both processes before, while and after they worked."""
    targets = {
        "shoplens-web": f"127.0.0.1:{fleet.web_port}",
        "shoplens-worker": f"127.0.0.1:{fleet.worker_ports['one']}",
    }
    with (
        running_prometheus(fleet.root / "prometheus", targets, interval_s=1) as started,
        httpx.Client(base_url=fleet.url, timeout=60, trust_env=False) as client,
    ):
        wait_until(lambda: all(each["health"] == "up" for each in started.targets()), "both are scraped")
        for number in range(3):
            work(client, number)
            time.sleep(1.2)  # a scrape between, since a rate needs a change from one to the next
        yield started


def work(client: httpx.Client, number: int) -> None:
    """Something of every job, and what goes wrong."""
    made = client.post("/predict", content=clear_photo(number)).json()
    assert 201 == client.post("/feedback", json={"prediction_id": made["id"], "verdict": "right"}).status_code
    assert 422 == client.post("/predict", content=torn_photo(number)).status_code
    held = client.post("/moderation/photos", files=[("file", ("a.jpg", photo_of(number)))], data={"channel": "reviews"})
    assert 201 == held.status_code, held.text
    (photo,) = held.json()["photos"]
    decided = client.post(f"/moderation/photos/{photo['id']}/decision", json={"decision": "accept"})
    assert decided.is_success, decided.text
    files = [("file", ("a.jpg", colour_photo("red", number)))]
    suggested = client.post("/catalogue/suggest", files=files, data={"designation": "red"})
    assert 200 == suggested.status_code, suggested.text
    if number == 0:
        send(client, {f"{each}.jpg": (clear_photo, dim_photo)[each % 2](100 + each) for each in range(4)})
        run_through(client)


def asked(prometheus_url: str, path: str, **parameters: str) -> Any:
    """What Prometheus answers. Raises HTTPError for a query that it refuses."""
    with urlopen(f"{prometheus_url}/api/v1/{path}?{urlencode(parameters)}", timeout=20) as answer:
        return json.load(answer)["data"]


def test_no_panel_is_empty(scraped: RunningPrometheus) -> None:
    """Every query has numbers, and none is refused."""
    wait_until(lambda: bool(scraped.query("shoplens_alerts_firing")), "alerts are looked at")
    empty = []
    for title, query in QUERIES:
        for name, value in VARIABLES.items():
            query = query.replace(name, value)  # noqa: PLW2901
        values = [float(each["value"][1]) for each in scraped.query(query)]
        if not values or not (title in NO_NUMBER or any(math.isfinite(each) for each in values)):
            empty.append((title, query, values))
    assert [] == empty


def test_the_variable_offers_the_channels(scraped: RunningPrometheus) -> None:
    """Those of the settings."""
    (channel,) = (each for each in dashboard.dashboard()["templating"]["list"] if each["type"] == "query")
    query, label = channel["query"]["query"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
    offered = asked(scraped.url, f"label/{label}/values", **{"match[]": query})
    assert ["catalogue", "look", "returns", "reviews"] == offered


def test_every_link_leads_to_a_page_of_the_console(fleet: ProcessFleet) -> None:
    """Also from panels."""
    board = dashboard.dashboard()
    links = {link["url"] for each in (board, *board["panels"]) for link in each.get("links", ())}
    assert len(links) > 5
    for link in sorted(links):
        url = link.replace("${console}", fleet.url).replace("${returns}", "returns")
        assert 200 == httpx.get(url, headers={"Accept": "text/html"}, timeout=60).status_code, url
