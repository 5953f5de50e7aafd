"""The guide to drift and accuracy against a real server, and what its pages say before there is anything."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from tests.acceptance.api.guides import run_guide
from tests.conftest import RunningServer


def test_the_guide_to_drift_works_as_written(server: RunningServer, tmp_path: Path) -> None:
    """Every command of it; the answers name the channel that was asked for."""
    printed = run_guide("notice-drift.md", server, tmp_path)
    assert 3 == printed.count('"channel":"returns"')
    assert '"choice":null' in printed


def test_the_guide_to_alerts_works_as_written(server: RunningServer, tmp_path: Path) -> None:
    """And a healthy server has nothing to say; each alert has its page, and an unknown one is named."""
    run_guide("get-alerts.md", server, tmp_path)
    found = json.loads((tmp_path / "alerts.json").read_text())
    assert ([], []) == (found["firing"], found["resolved"])
    with httpx.Client(base_url=server.url) as http:
        shown = http.get("/console/monitoring/alerts")
        assert "Nothing is wrong" in shown.text
        assert "Nobody. Set" in shown.text
        assert "What to do" in http.get("/console/monitoring/alerts/ShoplensNoWorker").text
        assert 404 == http.get("/console/monitoring/alerts/Nothing").status_code
        browser = {"sec-fetch-site": "same-origin"}
        silenced = http.post(
            "/console/monitoring/alerts/silence", data={"key": "ShoplensDrift/look", "hours": "4"}, headers=browser
        )
        assert (303, True) == (silenced.status_code, "for%204%20hours" in silenced.headers["location"])
        ended = http.post("/console/monitoring/alerts/unsilence", data={"key": "ShoplensDrift/look"}, headers=browser)
        assert 303 == ended.status_code


def test_pages_without_any_day_say_what_to_wait_for(server: RunningServer) -> None:
    """Empty pages are explained, for every channel, and an unknown one is named."""
    with httpx.Client(base_url=server.url) as http:
        drift = http.get("/console/monitoring/drift", params={"channel": "returns"})
        accuracy = http.get("/console/monitoring/accuracy", params={"channel": "returns"})
        assert (200, 200) == (drift.status_code, accuracy.status_code)
        assert "No day was compared yet" in drift.text
        assert "Nothing was decided in this channel yet" in accuracy.text
        assert 404 == http.get("/monitoring/drift", params={"channel": "attic"}).status_code
