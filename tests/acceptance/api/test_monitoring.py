"""Monitoring over HTTP: what was asked for is in the series a minute later, and the page says what nobody saw."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from shoplens.platform.server import Platform
from tests.acceptance.api.guides import run_guide
from tests.conftest import RunningServer, client_of


def test_the_guide_works_as_written(server: RunningServer, tmp_path: Path) -> None:
    """With this server's address in place of the usual one."""
    run_guide("watch-shoplens.md", server, tmp_path)
    assert '"step_s":60' in (tmp_path / "series.json").read_text()
    assert '"step_s":86400' in (tmp_path / "returns.json").read_text()


async def test_what_was_asked_for_is_in_the_series(
    make_platform: Callable[..., Platform], photo: bytes, tmp_path: Path
) -> None:
    """Answers and refusals by channel; before them nobody had looked, and the page says so."""
    platform = make_platform(monitoring={"grafana_url": "https://grafana.example.org/d/shoplens"})
    async with client_of(platform) as client:
        await _ask_and_look(platform, client, photo)
        await _break_the_store(tmp_path / "data" / "blobs", client)


async def _ask_and_look(platform: Platform, client: httpx.AsyncClient, photo: bytes) -> None:
    empty = await client.get("/console/monitoring")
    assert (200, True) == (empty.status_code, "Nothing written down yet" in empty.text)
    assert 200 == (await client.post("/predict?channel=returns", content=photo)).status_code
    assert 415 == (await client.post("/predict?channel=returns", content=b"<html>")).status_code
    product = {"designation": "Blue denim trousers", "channel": "catalogue"}
    assert 200 == (await client.post("/catalogue/suggest", json=product)).status_code
    shopper = {"files": {"file": photo}, "data": {"channel": "reviews"}}
    assert 201 == (await client.post("/moderation/photos", **shopper)).status_code  # type: ignore[arg-type]
    recorder = platform.monitoring.recorder
    assert recorder is not None
    recorder.record(int(datetime.now(UTC).timestamp()))
    recorder.keep_house()
    series = (await client.get("/monitoring/series?range=1h&channel=returns")).json()
    parts = series["parts"]
    seen = [part for part in parts if part["counts"] is not None]
    assert (60, 1, {"clothing"}) == (len(parts), len(seen), {each["model"] for each in series["by_model"]})
    counts = seen[0]["counts"]
    assert (1, 1, 0, 0) == tuple(counts[name] for name in ("answered", "refused", "busy", "failed"))
    assert 0 < counts["p50_ms"] <= 10_000
    assert seen[0]["database_bytes"] > 0
    assert seen[0]["disk_free_bytes"] > 0
    assert ("too_early", 1) == (series["disk"]["trend"], series["days"][-1]["predictions"])
    for channel, model in (("catalogue", "starter-catalogue"), ("reviews", "opennsfw")):
        (alone,) = (await client.get(f"/monitoring/series?range=1h&channel={channel}")).json()["by_model"]
        counts = alone["counts"]
        assert (model, 1) == (alone["model"], counts["answered"])
        assert 1 == counts["accepted"] + counts["to_review"] + counts["rejected"]
    other = (await client.get("/monitoring/series?range=1h&channel=look")).json()
    assert [0] == [part["counts"]["answered"] for part in other["parts"] if part["counts"] is not None]
    page = (await client.get("/console/monitoring?range=1h&channel=returns")).text
    assert "A forecast for the disk needs three days of figures" in page
    assert re.search(r"<dt>Requests</dt><dd>2</dd>", page)
    assert 'href="https://grafana.example.org/d/shoplens"' in page
    assert (True, 0) == (": no data</title>" in page, page.count(": no data</title>") % 59)


async def _break_the_store(folder: Path, client: httpx.AsyncClient) -> None:
    """The page for people says what does not work and since when, and no path of this machine."""
    works = await client.get("/status")
    assert (200, True) == (works.status_code, "Everything works" in works.text)
    shutil.rmtree(folder)
    shutil.copyfile(__file__, folder)
    assert 503 == (await client.get("/health/ready")).status_code
    broken = await client.get("/status")
    assert (503, True) == (broken.status_code, "Something does not work" in broken.text)
    assert (1, 2) == (broken.text.count("Noticed <time"), broken.text.count("Since <time"))
    assert str(folder) not in broken.text


@pytest.mark.parametrize(("query", "status"), [("range=2y", 422), ("channel=shoes", 404), ("month=1", 422)])
def test_what_is_not_there_is_refused_in_a_sentence(server: RunningServer, query: str, status: int) -> None:
    """The same for programs and on the page, but for a parameter, which pages leave alone."""
    found = httpx.get(f"{server.url}/monitoring/series?{query}")
    assert (status, True) == (found.status_code, bool(found.json()["detail"]))
    if "month" not in query:
        assert status == httpx.get(f"{server.url}/console/monitoring?{query}").status_code
