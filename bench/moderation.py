"""How quickly a scripted person decides photos on the page Moderation, and the queue among many photos.

    python -m bench.moderation [--photos 120] [--rows 1000000]

The person uses the keyboard alone. Each photo has to be on the screen, loaded, before its key is pressed; two of three
are accepted (one key), the third is rejected with a reason (two keys). `think` is how long they look at each.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
from playwright.sync_api import Page, sync_playwright
from sqlalchemy import insert

from shoplens.bundles.builtin import builtin_names, prepare_builtin
from shoplens.db import open_database
from shoplens.db.tables import make_id, to_row
from shoplens.moderation.entities import PhotoState, QueueReason
from shoplens.moderation.tables import moderation_photos
from tests.acceptance.browser.conftest import ARGUMENTS
from tests.acceptance.moderation_shop import moderating_server, send_photos, states_of
from tests.conftest import RunningServer
from tests.unit.moderation.photos import photo_of
from tools.browser import find_chromium

LOADED = """id => {
  const image = document.querySelector("[data-slot=photo] img");
  return image?.src.includes(id) && image.complete && image.naturalWidth > 0;
}"""
SENT = "() => Object.values(sessionStorage).every((kept) => kept === '[]')"
_CHUNK = 20_000
_PATIENCE_S = 60
_REQUESTS = 200


def wait_until(page: Page, condition: str, argument: str | None = None) -> None:
    """Ask the page again and again; the pages forbid what Playwright's own waiting needs."""
    give_up_at = time.perf_counter() + _PATIENCE_S
    while not page.evaluate(condition, argument):
        assert time.perf_counter() < give_up_at, condition
        time.sleep(0.002)


def decide_all(page: Page, ids: list[str], *, think_s: float) -> float:
    """Decide these photos in their order; decisions per minute until the server has counted all."""
    started = time.perf_counter()
    for number, photo in enumerate(ids):
        wait_until(page, LOADED, photo)
        time.sleep(think_s)
        if number % 3 < 2:
            page.keyboard.press("a")
        else:
            page.keyboard.press("r")
            page.keyboard.press(str(1 + number % 9))
    page.get_by_text("Nothing waits").wait_for()
    wait_until(page, SENT)
    return 60 * len(ids) / (time.perf_counter() - started)


def measure_person(server: RunningServer, executable: str, channel: str, *, photos: int, think_s: float) -> str:
    """A line of the table."""
    ids = send_photos(server.url, channel, photos)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"{server.url}/console/moderation?channel={channel}")
        per_minute = decide_all(page, ids, think_s=think_s)
        browser.close()
    assert "held" not in states_of(server.url, ids)
    most = f"{60 / think_s:.0f}" if think_s else "–"
    return f"| {photos} | {think_s:g} s | {per_minute:.0f} | {most} |"


def fill(server: RunningServer, channel: str, rows: int, *, waiting: int) -> None:
    """So many published photos, and so many that wait."""
    database = open_database(f"sqlite:///{server.data_dir / 'shoplens.db'}")
    plain = replace(photo_of(1, state=PhotoState.PUBLISHED), channel=channel)
    row = to_row(plain)
    for start in range(0, rows, _CHUNK):
        made = [
            row | {"id": make_id(1_700_000_000_000 + n, bytes(10)), "ref_customer": f"c-{n % 50_000}"}
            for n in range(start, min(start + _CHUNK, rows))
        ]
        for each in made[: waiting if start == 0 else 0]:
            each.update(state=PhotoState.HELD, queue=QueueReason.HELD)
        with database.transaction() as tx:
            tx.execute(insert(moderation_photos), made)
    database.close()


def cpu_s(server: RunningServer) -> float:
    """CPU seconds of the server until now."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def timed(server: RunningServer, call: Callable[[], httpx.Response]) -> str:
    """Milliseconds of one request after the other: median, 99th percentile, and CPU time of the server."""
    spans = []
    cpu_before = cpu_s(server)
    for _ in range(_REQUESTS):
        started = time.perf_counter()
        call().raise_for_status()
        spans.append(1e3 * (time.perf_counter() - started))
    cpu_ms = 1e3 * (cpu_s(server) - cpu_before) / _REQUESTS
    return f"{statistics.median(spans):.1f} | {statistics.quantiles(spans, n=100)[98]:.1f} | {cpu_ms:.1f}"


def measure_queue(server: RunningServer, channel: str, rows: int, *, waiting: int) -> list[str]:
    """Lines of the table."""
    fill(server, channel, rows, waiting=waiting)
    lines = []
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        claim = {"channel": channel, "count": 12}
        (first, *_) = client.post("/moderation/claims", json=claim).json()["photos"]
        for name, call in (
            ("page", lambda: client.get(f"/console/moderation?channel={channel}")),
            ("claim 12", lambda: client.post("/moderation/claims", json=claim)),
            ("context of a photo", lambda: client.get(f"/moderation/photos/{first['id']}/context")),
            ("search by customer", lambda: client.get("/console/moderation/search?q=c-77")),
        ):
            lines.append(f"| {rows:,} | {waiting:,} | {name} | {timed(server, call)} |")
    return lines


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--photos", type=int, default=120)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--waiting", type=int, default=5_000)
    options = parser.parse_args()
    executable = find_chromium()
    assert executable is not None, "there is no Chromium"
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        models.mkdir()
        for name in builtin_names():
            prepare_builtin(name, models)
        with moderating_server(Path(folder) / "data", models, "quick", "slow", "full") as server:
            print("| photos | think | decisions per minute | at most |\n|---|---|---|---|")
            print(measure_person(server, executable, "quick", photos=options.photos, think_s=0))
            print(measure_person(server, executable, "slow", photos=options.photos, think_s=1))
            if options.rows:
                print("\n| photos | waiting | request | p50 ms | p99 ms | CPU ms |\n|---|---|---|---|---|---|")
                print("\n".join(measure_queue(server, "full", options.rows, waiting=options.waiting)))


if __name__ == "__main__":
    main()
