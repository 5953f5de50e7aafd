"""Take the pictures of the pages that the README shows: a real server, demo photos, a real browser.

    python -m tools.screenshots [FOLDER]

Photos come from the folder `clothing` of the shared data (CC0) where it is there, and are drawn otherwise.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import httpx
from PIL import Image, ImageDraw, ImageFilter
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from servers.process import free_port, start, stop
from servers.shoplens import wait_for
from tools.browser import require_chromium

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "screenshots"
START_TIMEOUT_S = 180
SHOWN = ("shorts/0e88c86f", "longsleeve/060062e8", "shoes/454fd50e")
LISTED = (
    ("look", "pants/0d0bb91d"),
    ("look", "hat/7b4ca4a5"),
    ("reviews", "dress/35f5fecb"),
    ("look", "shoes/32662cf1"),
    ("look", "outwear/161e35df"),
    ("reviews", "skirt/2459a9ab"),
    ("look", "pants/081b5ec1"),
    ("look", "t-shirt/099de1d5"),
)
REVIEWED = (
    ("Ingrid", "Lovely heavy cloth. The sleeves are a bit long on me, so I roll them up.", ("hat/7b4ca4a5",)),
    ("Tomás", "With these every day since spring. Washed often, still white.", ("pants/0d0bb91d", "shoes/32662cf1")),
    ("Wanda", "Fits as drawn, also under a jacket.", ("outwear/161e35df", "skirt/2459a9ab", "t-shirt/099de1d5")),
)
RETURNED_FROM = ("dress", "hat", "longsleeve", "outwear", "pants", "shirt", "shoes", "shorts", "skirt", "t-shirt")
RETURNED_OF_EACH = 4
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
THRESHOLDS = {"SHOPLENS_CHANNELS__LOOK__ACCEPT_AT": "0.5"}
DESKTOP: ViewportSize = {"width": 1280, "height": 820}
PHONE: ViewportSize = {"width": 390, "height": 844}


def main() -> None:
    """Write every picture."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    program = require_chromium()
    with tempfile.TemporaryDirectory() as data, _server(Path(data)) as url, sync_playwright() as playwright:
        photos = _photos(Path(data))
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        _take_classify(browser, url, folder, [photos[name] for name in SHOWN])
        _fill_records(url, photos)
        _take_lists(browser, url, folder)
        _take_returns(browser, url, folder, _returned_photos(Path(data)))
        take_shop(browser, url, folder, photos)
        browser.close()


def _take_classify(browser: Browser, url: str, folder: Path, shown: list[Path]) -> None:
    for name in ("classify", "classify-dark"):
        scheme: Literal["light", "dark"] = "dark" if name.endswith("dark") else "light"
        page = browser.new_page(viewport=DESKTOP, color_scheme=scheme, reduced_motion="reduce")
        _classify(page, url, shown)
        _save(page, folder / f"{name}.png")
    phone = browser.new_context(
        viewport=PHONE, is_mobile=True, has_touch=True, device_scale_factor=1.5, reduced_motion="reduce"
    )
    page = phone.new_page()
    _classify(page, url, shown)
    _save(page, folder / "phone.png")


def _take_lists(browser: Browser, url: str, folder: Path) -> None:
    page = browser.new_page(viewport=DESKTOP, color_scheme="light")
    for name in ("records", "models"):
        page.goto(f"{url}/console/{name}", wait_until="networkidle")
        _save(page, folder / f"{name}.png")


def _take_returns(browser: Browser, url: str, folder: Path, photos: dict[str, bytes]) -> None:
    """The page of a run, with the first photo that needs review chosen, wide and narrow."""
    address = f"{url}/console/batch/returns/{_run_of(url, photos)}"
    wide = browser.new_page(viewport=DESKTOP, color_scheme="light", reduced_motion="reduce")
    wide.goto(address, wait_until="networkidle")
    wide.keyboard.press("j")
    _save(wide, folder / "returns.png")
    phone = browser.new_context(
        viewport=PHONE, is_mobile=True, has_touch=True, device_scale_factor=1.5, reduced_motion="reduce"
    )
    narrow = phone.new_page()
    narrow.goto(address, wait_until="networkidle")
    narrow.locator(".tile").nth(1).tap()
    _save(narrow, folder / "returns-phone.png")


def take_shop(browser: Browser, url: str, folder: Path, photos: dict[str, Path]) -> None:
    """The demo shop with reviews whose photos were moderated, down to the first review."""
    with tempfile.TemporaryDirectory() as scratch, _shop(url, Path(scratch)) as shop:
        for number, (name, text, shown) in enumerate(REVIEWED):
            files = [("photos", (path.name, path.read_bytes())) for path in (photos[each] for each in shown)]
            form = {"key": f"{number:032x}", "name": name, "stars": str(4 + number % 2), "text": text}
            httpx.post(f"{shop}/reviews", data=form, files=files, timeout=60, trust_env=False)
        page = browser.new_page(viewport={"width": 1280, "height": 1180}, color_scheme="light", reduced_motion="reduce")
        page.goto(shop, wait_until="networkidle")
        _save(page, folder / "shop.png")


@contextmanager
def _shop(url: str, scratch: Path) -> Iterator[str]:
    """The address of a demo shop that sends its photos to `url`."""
    port = free_port()
    program = str(ROOT / "examples" / "shop" / "shop.py")
    process = start([sys.executable, program, "--shoplens", url, "--port", str(port)], folder=scratch)
    try:
        wait_for(f"http://127.0.0.1:{port}", process, scratch)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)


def _run_of(url: str, photos: dict[str, bytes]) -> str:
    """Import the photos, run, and return the id of the run."""
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        sent = [("file", (name, data)) for name, data in photos.items()]
        client.post("/batch/ingest", files=sent).raise_for_status()
        run = client.post("/batch/runs").raise_for_status().json()
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < give_up_at and run["state"] != "finished":
            time.sleep(0.2)
            run = client.get(f"/batch/runs/{run['id']}").raise_for_status().json()
        return str(run["id"])


def _classify(page: Page, url: str, photos: list[Path]) -> None:
    page.goto(url)
    page.set_input_files("#file", list(photos))
    page.get_by_text(f"{len(photos)} of {len(photos)} classified").wait_for()
    answer = page.locator("#answers .label-score").first
    if not answer.is_visible():  # on a phone the list comes first
        page.locator("#results tbody tr").first.click()
    answer.wait_for()
    answer.scroll_into_view_if_needed()
    page.mouse.move(0, 0)
    page.wait_for_load_state("networkidle")


def _save(page: Page, path: Path) -> None:
    page.screenshot(path=path)
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.save(path, optimize=True)
    print(f"{path} ({path.stat().st_size // 1000} kB)")


def _fill_records(url: str, photos: dict[str, Path]) -> None:
    """Predictions for the list, two of them with feedback."""
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        ids = []
        for channel, name in LISTED:
            answer = client.post(f"/predict?channel={channel}", content=photos[name].read_bytes()).raise_for_status()
            ids.append(answer.json()["id"])
        client.post("/feedback", json={"prediction_id": ids[-1], "verdict": "right"}).raise_for_status()
        client.post("/feedback", json={"prediction_id": ids[-4], "label": "anorak"}).raise_for_status()


def _photos(scratch: Path) -> dict[str, Path]:
    """A file per name: a photo of the shared data, or a drawing where there is none."""
    names = (*SHOWN, *(name for _, name in LISTED))
    shared = _shared_photos()
    return {name: next(shared.glob(f"{name}*.jpg"), None) or _drawing(scratch, name) for name in names}


def _returned_photos(scratch: Path) -> dict[str, bytes]:
    """Photos by the names that a depot would give them: order and item."""
    names = [f"{kind}/{number}" for number in range(RETURNED_OF_EACH) for kind in RETURNED_FROM]
    folder = _shared_photos()
    found = [
        path
        for group in zip(
            *(sorted((folder / kind).glob("*.jpg"))[:RETURNED_OF_EACH] for kind in RETURNED_FROM), strict=False
        )
        for path in group
    ]
    photos = found or [_drawing(scratch, name) for name in names]
    return {f"{100_230 + index // 3}_{4_700 + index}.jpg": path.read_bytes() for index, path in enumerate(photos)}


def _shared_photos() -> Path:
    return Path(os.environ.get("SHOPLENS_SHARED_DATA", ROOT.parent / "shared" / "data")) / "clothing" / "validation"


def _drawing(scratch: Path, name: str) -> Path:
    """A soft abstract picture that differs with the name."""
    number = sum(name.encode())
    picture = Image.new("RGB", (640, 800), (235 - number % 40, 225, 210))
    draw = ImageDraw.Draw(picture)
    for step in range(5):
        x, y = (number * (step + 3) * 37) % 520, (number * (step + 5) * 53) % 660
        draw.ellipse(
            (x, y, x + 260, y + 260), fill=((number * step) % 200 + 30, 120 + step * 20, (number + step * 60) % 220)
        )
    path = scratch / f"{name.replace('/', '-')}.jpg"
    picture.filter(ImageFilter.GaussianBlur(6)).save(path, quality=90)
    return path


@contextmanager
def _server(data: Path) -> Iterator[str]:
    """The address of a server on a free port, with a data directory of its own."""
    log = data / "server.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOPLENS_")}
    environment |= {"SHOPLENS_DATA_DIR": str(data / "data"), **THRESHOLDS}
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "shoplens", "serve", "--port", "0"],
            env=environment,
            stderr=sink,
            stdout=sink,
            cwd=data,
        )
    try:
        yield _ready(process, log)
    finally:
        process.terminate()
        process.wait(30)


def _ready(process: subprocess.Popen[bytes], log: Path) -> str:
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up_at and process.poll() is None:
        found = re.search(r"ready at (http://\S+)", log.read_text())
        if found:
            with httpx.Client(trust_env=False) as client:
                _wait(client, found[1], give_up_at)
            return found[1]
        time.sleep(0.1)
    raise SystemExit(f"The server did not start:\n{log.read_text()}")


def _wait(client: httpx.Client, url: str, give_up_at: float) -> None:
    while time.monotonic() < give_up_at:
        try:
            if client.get(f"{url}/health/ready").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)


if __name__ == "__main__":
    main()
