"""The pages of the catalogue in a real browser: suggest, the queue by keys, bulk acceptance, import, plain forms."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.acceptance.browser.conftest import PHONE, VisitMaker
from tests.acceptance.browser.test_looks import LEAST_CONTRAST
from tests.conftest import RunningServer, jpeg_of, running_server
from tests.support.fusion import write_fusion_bundle

CHANNELS = ("single", "queue", "taken", "bulk", "table", "plain", "looks", "heat")
HOME = "/console/catalogue"
NARROW = {"viewport": {"width": 320, "height": 640}, "is_mobile": True, "has_touch": True}
PAGES = ("", "/review", "/products", "/products/A-1", "/accept", "/imports", "/runs", "/numbers", "/tree")
TABLE = """sku;title;kategorie;photo
T-1;Red shirt;Colours > Red;
T-2;Blue hat;;blue.jpg
T-3;;;
T-4;Green scarf;nothing at all;
"""


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[RunningServer]:
    """A server with a catalogue for each test, whose model tells three colours by a word."""
    root = tmp_path_factory.mktemp("catalogue")
    models = root / "models"
    models.mkdir()
    for each in models_dir.iterdir():
        (models / each.name).symlink_to(each)
    write_fusion_bundle(models)
    channel = json.dumps({"model": "paint", "accept_at": 0.98, "keep": "original", "catalogue": {}})
    settings = {f"channels__{name}": channel for name in CHANNELS}
    with running_server(root / "data", models, **settings) as started:
        yield started


def call(server: RunningServer, method: str, path: str, **more: Any) -> Any:
    """What the API answers."""
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        answer = client.request(method, path, **more)
    assert answer.is_success, answer.text
    return answer.json()


def add(server: RunningServer, channel: str, **titles: str) -> list[str]:
    """The ids of new products with suggestions, by reference."""
    return [
        str(
            call(
                server, "POST", "/catalogue/products",
                json={"channel": channel, "reference": name.replace("_", "-"), "designation": title},
            )["id"]
        )
        for name, title in titles.items()
    ]  # fmt: skip


def categories(server: RunningServer, channel: str) -> dict[str, str | None]:
    """What is decided, by reference."""
    found = call(server, "GET", f"/catalogue/products?channel={channel}&limit=100")
    return {each["reference"]: each["category"] for each in found["items"]}


def title(page: Page) -> str:
    """Of the product that is to be decided."""
    return page.locator("[data-slot=title]").inner_text()


def test_a_product_is_typed_accepted_and_taken_back_by_the_keyboard(
    visit: VisitMaker, catalogue: RunningServer
) -> None:
    """Why it is what it is, is marked in the title; the second choice is saved after the first was taken back."""
    page = visit(at=catalogue).page(f"{HOME}?channel=single")
    page.keyboard.type("Bright red shirt")
    page.keyboard.press("Enter")
    expect(page.locator("[data-options] .option-take").first).to_be_focused()
    expect(page.locator("[data-options] .option").first).to_contain_text("Colours › Red")
    page.keyboard.press("w")
    expect(page.locator("[data-why-words] mark.for-4")).to_have_text("red")
    page.keyboard.press("Enter")
    expect(page.locator("[data-slot=kept]")).to_contain_text("Saved: Colours › Red")
    (reference,) = categories(catalogue, "single")
    assert {reference: "Colours > Red"} == categories(catalogue, "single")
    page.keyboard.press("u")
    expect(page.locator("[data-slot=kept]")).to_contain_text("Taken back")
    assert {reference: None} == categories(catalogue, "single")
    page.keyboard.press("/")
    page.keyboard.type("gre")
    expect(page.get_by_role("main").get_by_role("option")).to_have_text("Colours › Green")
    page.keyboard.press("Enter")
    expect(page.locator("[data-slot=kept]")).to_contain_text("Saved: Colours › Green")
    assert {reference: "Colours > Green"} == categories(catalogue, "single")
    page.keyboard.press("n")
    expect(page.locator("[data-title]")).to_have_value("")


def test_the_queue_is_decided_by_keys_and_a_wrong_key_is_taken_back(
    visit: VisitMaker, catalogue: RunningServer
) -> None:
    """Least sure first; suggestions by number, others by typing, and every decision can be undone."""
    titles = {f"A_{number}": f"Red or blue {'thing ' * number}" for number in range(1, 6)}
    add(catalogue, "queue", **titles, B_1="Red shirt")
    page = visit(at=catalogue).page(f"{HOME}/review?channel=queue")
    expect(page.locator("[data-slot=place]")).to_have_text("1 of 5")
    first = title(page)
    best = page.locator("[data-slot=options] .path-leaf").first.inner_text()
    page.keyboard.press("2")
    expect(page.locator("[data-slot=place]")).to_have_text("2 of 5")
    page.keyboard.press("/")
    page.keyboard.type("blue")
    page.keyboard.press("Enter")
    expect(page.locator("[data-slot=place]")).to_have_text("3 of 5")
    expect(page.locator("[data-slot=recent] li")).to_have_count(2)
    for _ in range(2):
        page.keyboard.press("Control+z")
    expect(page.locator("[data-slot=place]")).to_have_text("1 of 5")
    assert first == title(page)
    assert {None} == set(categories(catalogue, "queue").values())
    for place in range(1, 6):
        expect(page.locator("[data-slot=place]")).to_have_text(f"{place} of 5")
        with page.expect_response(re.compile("/category")):
            page.keyboard.press("Enter")
    expect(page.get_by_text("Nothing to review")).to_be_visible()
    page.keyboard.press("1")  # nothing is there
    page.reload()
    expect(page.get_by_text("Nothing to review")).to_be_visible()
    found = categories(catalogue, "queue")
    assert found.pop("B-1") is None
    assert None not in found.values()
    first_reference = next(name.replace("_", "-") for name, each in titles.items() if each.strip() == first)
    assert f"Colours > {best}" == found[first_reference]


def test_a_decision_of_somebody_else_is_said_and_stands(visit: VisitMaker, catalogue: RunningServer) -> None:
    """The page names who was first and goes on."""
    (product,) = add(catalogue, "taken", A_1="Red or blue")
    page = visit(at=catalogue, expected={409}).page(f"{HOME}/review?channel=taken")
    expect(page.locator("[data-slot=place]")).to_have_text("1 of 1")
    call(
        catalogue, "POST", f"/catalogue/products/{product}/category?channel=taken",
        json={"action": "correct", "category": "Colours > Blue"},
    )  # fmt: skip
    page.keyboard.press("1")
    expect(page.get_by_role("alert")).to_contain_text("someone set the category of A-1")
    assert {"A-1": "Colours > Blue"} == categories(catalogue, "taken")


def test_the_heat_map_lies_over_the_photo_and_leaves_with_it(visit: VisitMaker, catalogue: RunningServer) -> None:
    """For the first category, of which the red half of the photo speaks."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :32, 0] = 255
    photo = {"file": ("half.jpg", jpeg_of(pixels))}
    data = {"channel": "heat", "reference": "A-1"}
    product = call(catalogue, "POST", "/catalogue/products", data=data, files=photo)
    with httpx.Client(base_url=catalogue.url, trust_env=False, timeout=60) as client:
        path = f"/catalogue/products/{product['id']}/photos/0/heatmap?channel=heat&category=Colours"
        heat = np.asarray(Image.open(io.BytesIO(client.get(f"{path}%20%3E%20Red").content)))
        assert 404 == client.get(path.replace("Colours", "Nothing")).status_code
        form = {"channel": "heat", "category": "Colours > Red"}
        unsaved = client.post("/catalogue/heatmap", data=form, files=photo)
        assert (200, heat.tolist()) == (
            unsaved.status_code,
            np.asarray(Image.open(io.BytesIO(unsaved.content))).tolist(),
        )
        assert 422 == client.post("/catalogue/heatmap", data=form, files={"file": ("", b"")}).status_code
    left, right = heat[:, :280, 3].mean(), heat[:, 360:, 3].mean()
    assert left > 100
    assert right < 10
    page = visit(at=catalogue).page(f"{HOME}?channel=heat")
    page.set_input_files("#file", {"name": "half.jpg", "mimeType": "image/jpeg", "buffer": photo["file"][1]})
    expect(page.locator("[data-options] .option").first).to_contain_text("Red")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Heat map").click()
    expect(page.locator("[data-heat-box] [data-heat]")).to_be_visible()
    page.get_by_role("button", name="Heat map").click()
    expect(page.locator("[data-heat-box]")).to_be_hidden()
    page.goto(f"{catalogue.url}{HOME}/review?channel=heat")
    expect(page.locator("[data-slot=photos] img")).to_be_visible()
    page.keyboard.press("h")
    expect(page.locator("[data-heat]")).to_be_visible()
    page.keyboard.press("1")
    expect(page.get_by_text("Nothing to review")).to_be_visible()
    page.keyboard.press("u")
    expect(page.locator("[data-slot=place]")).to_have_text("1 of 1")
    expect(page.locator("[data-heat]")).to_be_hidden()


def test_many_are_accepted_above_a_confidence_and_undone_as_one(visit: VisitMaker, catalogue: RunningServer) -> None:
    """The count follows the slider and is what is accepted; numbers agree with the API."""
    add(catalogue, "bulk", A_1="Red shirt", A_2="Blue hat", A_3="Red or blue")
    page = visit(at=catalogue).page(f"{HOME}/accept?channel=bulk")
    expect(page.locator("[data-slot=count]")).to_have_text("3 of 3")
    page.locator("#at-least").fill("0.99")
    curve = call(catalogue, "GET", "/catalogue/numbers?channel=bulk")["curve"]
    expect(page.locator("[data-slot=count]")).to_have_text(f"{curve[99]['waiting']} of 3")
    page.get_by_role("button", name="Accept 2 products").click()
    expect(page.get_by_text("2 products accepted together")).to_be_visible()
    assert {"A-1": "Colours > Red", "A-2": "Colours > Blue", "A-3": None} == categories(catalogue, "bulk")
    page.get_by_role("button", name="Undo all 2").click()
    expect(page.get_by_text("Taken back.")).to_be_visible()
    assert {None} == set(categories(catalogue, "bulk").values())
    expect(page.locator(".tabs [aria-current]")).to_have_text("Accept many")
    expect(page.locator("[data-word=waiting]")).to_have_text("1")


def test_a_table_is_looked_at_imported_and_its_faults_are_listed(
    visit: VisitMaker, catalogue: RunningServer, tmp_path: Path
) -> None:
    """Its columns are guessed and can be changed; a fault is told with its line and can be downloaded."""
    table, photo = tmp_path / "products.csv", tmp_path / "blue.jpg"
    table.write_text(TABLE)
    photo.write_bytes(jpeg_of(np.full((48, 64, 3), (5, 5, 250), np.uint8)))
    page = visit(at=catalogue).page(f"{HOME}/imports?channel=table")
    expect(page.locator("[data-slot=start]")).to_be_disabled()
    page.set_input_files("#file", [table, photo])
    expect(page.locator("[data-slot=file]")).to_contain_text(re.compile(r"products\.csv, .* and 1 photo"))
    expect(page.get_by_label("Product ID")).to_have_value("sku")
    expect(page.get_by_label("Category")).to_have_value("kategorie")
    expect(page.locator("[data-slot=rows] tbody tr")).to_have_count(4)
    page.locator("[data-slot=start]").click()
    expect(page.locator("[data-word=state]").first).to_have_text("Done")
    expect(page.locator("[data-word=progress]")).to_have_text("4 of 4 rows")
    expect(page.locator("[data-word=added]")).to_have_text("3")
    expect(page.get_by_role("cell", name="4", exact=True)).to_be_visible()
    expect(page.get_by_text(re.compile("nothing at all"))).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as CSV").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert ["line", "4", "5"] == [each.partition(",")[0] for each in lines]
    assert {"T-1": "Colours > Red", "T-2": None, "T-4": None} == categories(catalogue, "table")
    shown = call(catalogue, "GET", "/catalogue/products/T-2?channel=table")
    assert ["blue.jpg"] == [each["name"] for each in shown["photos"]]
    page.get_by_role("button", name="Suggest now").click()
    expect(page.get_by_role("link", name="Review")).to_be_visible()
    expect(page.locator("table.metrics tbody [data-name=State]")).to_have_text("Done", timeout=120_000)
    states = call(catalogue, "GET", "/catalogue/numbers?channel=table")["states"]
    assert {"new": 0, "suggested": 2, "accepted": 1, "corrected": 0} == states


def test_everything_works_as_plain_forms(visit: VisitMaker, catalogue: RunningServer) -> None:
    """Suggest, decide, undo and accept many, without a script."""
    add(catalogue, "plain", A_1="Red or blue", A_2="Blue hat")
    page = visit(at=catalogue, java_script_enabled=False).page(f"{HOME}?channel=plain")
    page.get_by_label("Title").fill("Blue shirt")
    page.get_by_role("button", name="Suggest a category").click()
    expect(page.locator(".option").first).to_contain_text("Blue")
    page.locator(".option-take").first.click()
    expect(page.get_by_text("The product was saved with its category.")).to_be_visible()
    page.goto(f"{catalogue.url}{HOME}/review?channel=plain")
    page.get_by_role("main").get_by_role("combobox").fill("blue")
    page.get_by_role("button", name="Take the typed category").click()
    expect(page.get_by_text("Nothing to review")).to_be_visible()
    page.goto(f"{catalogue.url}{HOME}/products/A-1?channel=plain")
    page.get_by_role("button", name="Undo the last decision").click()
    expect(page.get_by_text("Taken back.")).to_be_visible()
    page.goto(f"{catalogue.url}{HOME}/accept?channel=plain&at_least=0.99")
    page.get_by_role("button", name="Accept 1 product").click()
    give_up_at = time.monotonic() + 60
    while (found := categories(catalogue, "plain"))["A-2"] is None and time.monotonic() < give_up_at:
        time.sleep(0.1)  # the page waits a second for the job
    assert ("Colours > Blue", None) == (found["A-2"], found["A-1"])


@pytest.mark.parametrize("options", [NARROW, PHONE], ids=["320", "390"])
def test_no_page_of_the_catalogue_scrolls_sideways(
    visit: VisitMaker, catalogue: RunningServer, options: dict[str, Any]
) -> None:
    """With long words on them."""
    add(catalogue, "looks", A_1="Red or blue " + "x" * 120, A_2="Blue hat")
    page = visit(at=catalogue, **options).page(f"{HOME}?channel=looks")
    wide = []
    for path in PAGES:
        page.goto(f"{catalogue.url}{HOME}{path}?channel=looks")
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wide.append(path)
    assert [] == wide


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_catalogue_is_readable(visit: VisitMaker, catalogue: RunningServer, scheme: str) -> None:
    """Every text has a contrast of at least 4.5 to 1."""
    add(catalogue, "looks", A_1="Red or blue", A_2="Blue hat")
    page = visit(at=catalogue, color_scheme=scheme).page(f"{HOME}?channel=looks")
    for path in PAGES:
        page.goto(f"{catalogue.url}{HOME}{path}?channel=looks")
        contrast, text = page.evaluate(LEAST_CONTRAST)
        assert contrast >= 4.5, (path, text)
