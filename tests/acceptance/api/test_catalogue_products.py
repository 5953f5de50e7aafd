"""Products of the catalogue over HTTP: the guide against a real server, and what a request may get wrong."""

from __future__ import annotations

import base64
import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import simplejpeg

from tests.acceptance.api.guides import run_guide
from tests.conftest import RunningServer, running_server
from tests.support.fusion import COLOURS, write_fusion_bundle


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with one channel, whose model tells three colours by photo and text."""
    root = tmp_path_factory.mktemp("paint")
    write_fusion_bundle(root / "models")
    (root / "photos").mkdir()
    (root / "photos" / "blue.jpg").write_bytes(photo_of("blue"))
    settings = {
        "default_channel": "catalogue", "channels__catalogue__model": "paint",
        "channels__catalogue__catalogue": json.dumps({"photos": str(root / "photos")}),
    }  # fmt: skip
    with running_server(root / "data", root / "models", **settings) as server:
        yield server


@pytest.fixture
def http(shop: RunningServer) -> Iterator[httpx.Client]:
    """A client of it."""
    with httpx.Client(base_url=shop.url, timeout=60, trust_env=False) as client:
        yield client


def photo_of(colour: str) -> bytes:
    """A photo of one colour."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[..., COLOURS.index(colour)] = 255
    return bytes(simplejpeg.encode_jpeg(pixels))


def created(http: httpx.Client, **product: Any) -> dict[str, Any]:
    """The answer to a product that is sent as JSON."""
    answer = http.post("/catalogue/products", json=product)
    assert 201 == answer.status_code, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_guide_works_as_it_stands(
    shop: RunningServer, tmp_path: Path, http: httpx.Client, eventually: Callable[..., None]
) -> None:
    """Every command of it, in order."""
    printed = run_guide("categorise-products.md", shop, tmp_path)
    assert '"path":"Colours > Red"' in printed
    imports = {each["source"]: each for each in http.get("/catalogue/imports").json()}
    assert (1, 1, 1) == tuple(imports["with-photos.csv + photos.zip"][each] for each in ("rows", "added", "faults"))
    imported = imports["products.csv"]
    assert (3, 2, 1) == (imported["rows"], imported["added"], imported["faults"])
    assert imported["finished_at"] is not None
    assert "A-101" in (tmp_path / "out.csv").read_text()
    assert b"PAR1" == (tmp_path / "out.parquet").read_bytes()[:4]
    assert "Cotton , long sleeves" == http.get("/catalogue/products/A-100").json()["description"]
    assert 404 == http.get("/catalogue/products/A-102").status_code
    # Its run must not go on: it would suggest for the products of other tests.
    eventually(lambda: all(each["finished_at"] for each in http.get("/catalogue/runs").json()["runs"]))


def test_a_product_comes_with_photos_in_any_form(http: httpx.Client) -> None:
    """Base64, a form with files, or keys below the folder of the settings."""
    encoded = base64.b64encode(photo_of("green")).decode()
    first = created(http, reference="P-1", photos=[encoded])
    assert ("photo", "Colours > Green", "added") == (first["kind"], first["suggestions"][0]["path"], first["outcome"])
    form = http.post(
        "/catalogue/products", data={"reference": "P-2", "designation": "Red"}, files={"file": photo_of("red")}
    )
    assert ("both", 1) == (form.json()["kind"], len(form.json()["photos"]))
    keyed = created(http, reference="P-3", keys="blue.jpg")
    assert ("Colours > Blue", "blue.jpg") == (keyed["suggestions"][0]["path"], keyed["photos"][0]["name"])
    thumbnail = http.get("/catalogue/products/P-3/photos/0", params={"size": "thumbnail"})
    assert (200, "image/jpeg") == (thumbnail.status_code, thumbnail.headers["content-type"])
    assert "unchanged" == created(http, reference="P-1", photos=[encoded])["outcome"]


def test_a_suggestion_is_made_for_photos_that_are_named(http: httpx.Client) -> None:
    """Below the folder of the settings, alone or with others; no other file of the machine can be read."""
    named = http.post("/catalogue/suggest", json={"keys": "blue.jpg"}).json()
    assert ("photo", "Colours > Blue") == (named["kind"], named["suggestions"][0]["path"])
    form = http.post("/catalogue/suggest", data={"keys": "blue.jpg"}, files={"file": photo_of("blue")}).json()
    assert named["suggestions"][0]["path"] == form["suggestions"][0]["path"]
    for keys, words in (
        ("../models/paint", "no plain path"), ("/etc/passwd", "no plain path"), ("none.jpg", "no file none.jpg"),
        ("https://example.com/a.jpg", "not allowed"), ("blue.jpg " * 11, "At most 10 photos"),
    ):  # fmt: skip
        refused = http.post("/catalogue/suggest", json={"keys": keys})
        assert (422, "request_invalid") == (refused.status_code, refused.json()["code"])
        assert words in refused.json()["detail"]


@pytest.mark.parametrize(("body", "code", "words"), [
    ({"reference": "E-1"}, "nothing_to_categorise", "designation, a description or a photo"),
    ({"reference": "E-1", "designation": "<p>\u200e</p>"}, "nothing_to_categorise", "designation"),
    ({"designation": "Red"}, "request_invalid", "reference"),
    ({"reference": "E-1", "keys": "../secret.jpg"}, "request_invalid", "no plain path"),
    ({"reference": "E-1", "keys": "blue.jpg " * 21}, "request_invalid", "at most 20 photos; these are 21"),
    ({"reference": "E-1", "photos": ["bm8gcGhvdG8="]}, "image_unsupported", "Unsupported file type"),
])  # fmt: skip
def test_what_is_missing_or_wrong_is_said_and_nothing_is_stored(
    http: httpx.Client, body: dict[str, Any], code: str, words: str
) -> None:
    """With a sentence and a code."""
    answer = http.post("/catalogue/products", json=body)
    assert answer.status_code in (415, 422), answer.text
    assert code == answer.json()["code"]
    assert words in answer.json()["detail"]
    assert 404 == http.get("/catalogue/products/E-1").status_code


def test_a_product_whose_photo_cannot_be_used_is_stored_and_says_why(http: httpx.Client) -> None:
    """Its text alone gets a suggestion, which a person looks at; without a text there is none."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    broken = base64.b64encode(bytes(simplejpeg.encode_jpeg(noise))[:3_000]).decode()
    alone = created(http, reference="B-1", photos=[broken])
    assert ("new", "image_corrupt", True) == (alone["state"], alone["failure_code"], alone["needs_review"])
    assert alone["not_suggested"]
    titled = created(http, reference="B-2", designation="Blue", photos=[broken])
    assert ("suggested", "text", "image_corrupt", True) == (
        titled["state"], titled["kind"], titled["failure_code"], titled["needs_review"],
    )  # fmt: skip
    assert titled["not_suggested"] is None


def test_a_decision_on_what_somebody_else_changed_is_refused(http: httpx.Client) -> None:
    """The last word needs a look at the one before."""
    seen = created(http, reference="D-1", designation="Red")["revision"]
    address = "/catalogue/products/D-1/category"
    assert "accepted" == http.post(address, json={"revision": seen}).json()["state"]
    refused = http.post(address, json={"action": "correct", "category": "Colours > Blue", "revision": seen})
    assert (409, "product_changed") == (refused.status_code, refused.json()["code"])
    unknown = http.post(address, json={"action": "correct", "category": "nothing"})
    assert (404, "category_not_found") == (unknown.status_code, unknown.json()["code"])
    assert 422 == http.post(address, json={"action": "correct"}).status_code


def test_many_are_counted_accepted_and_taken_back(http: httpx.Client, eventually: Callable[..., None]) -> None:
    """Those of a filter, in the background; the same may not be taken back twice."""
    for number in range(3):
        created(http, reference=f"M-{number}", designation=f"Blue many{number % 2}")
    wanted = {"min_score": 0.5, "text": "many0", "category": "Colours > Blue"}
    counted = http.post("/catalogue/accept", json={**wanted, "dry_run": True})
    assert (200, None, 2) == (counted.status_code, counted.json()["id"], counted.json()["planned"])
    started = http.post("/catalogue/accept", json=wanted)
    assert (202, 2) == (started.status_code, started.json()["planned"])
    address = f"/catalogue/acceptances/{started.json()['id']}"
    eventually(lambda: http.get(address).json()["finished_at"] is not None)
    states = {number: http.get(f"/catalogue/products/M-{number}").json()["state"] for number in range(3)}
    assert ({0: "accepted", 1: "suggested", 2: "accepted"}, 2) == (states, http.get(address).json()["done"])
    undone = http.post(f"{address}/undo").json()
    eventually(lambda: http.get(f"/catalogue/acceptances/{undone['id']}").json()["finished_at"] is not None)
    assert [undone["id"], started.json()["id"]] == [each["id"] for each in http.get("/catalogue/acceptances").json()][
        :2
    ]
    again = http.post(f"{address}/undo")
    assert (409, "decision_not_last") == (again.status_code, again.json()["code"])
    assert 200 == http.post(f"{address}/cancel").status_code
    assert 422 == http.post("/catalogue/accept", json={"text": "many0"}).status_code


def test_a_run_suggests_for_what_was_imported(http: httpx.Client, eventually: Callable[..., None]) -> None:
    """In a process of its own; with nothing to do there is no run."""

    def no_run() -> bool:
        return all(each["finished_at"] for each in http.get("/catalogue/runs").json()["runs"])

    eventually(no_run)  # that of the guide
    job = http.post("/catalogue/import", files={"file": ("t.csv", b"sku,title\nR-1,Blue run\n")}).json()
    eventually(lambda: http.get(f"/catalogue/imports/{job['id']}").json()["finished_at"] is not None)
    started = http.post("/catalogue/runs", json={})
    assert 202 == started.status_code, started.text
    eventually(lambda: http.get(started.headers["location"]).json()["finished_at"] is not None)
    done = http.get(started.headers["location"]).json()
    assert ("paint@1.0.0", None, 0) == (done["model"], done["failure"], done["planned"] - done["suggested"]), done
    assert "Colours > Blue" == http.get("/catalogue/products/R-1").json()["suggestions"][0]["path"]
    nothing = http.post("/catalogue/runs", json={})
    assert (409, "nothing_waiting") == (nothing.status_code, nothing.json()["code"])
    assert 404 == http.get("/catalogue/runs/none").status_code


def test_an_upload_that_is_no_table_is_refused(http: httpx.Client) -> None:
    """Before anything is kept."""
    for content, words in ((b"", "empty"), (b"title\nShirt\n", "reference"), (b"sku\nA\n", "title")):
        answer = http.post("/catalogue/import", files={"file": ("t.csv", content)})
        assert (422, "import_invalid") == (answer.status_code, answer.json()["code"])
        assert words in answer.json()["detail"]


def test_photos_come_with_the_table(http: httpx.Client, eventually: Callable[..., None]) -> None:
    """As a ZIP file and one by one; what is missing is a fault of its line. A column must name them."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("summer/blue.jpg", photo_of("blue"))
        packed.writestr("summer/forgotten.jpg", photo_of("red"))
    table = b"sku,photos\nZ-1,summer/blue.jpg|green.jpg\nZ-2,green.jpg\nZ-3,none.jpg\nZ-4,../../green.jpg\n"
    files = [("t.csv", table), ("photos.zip", archive.getvalue()), ("green.jpg", photo_of("green"))]
    sent = http.post("/catalogue/import", files=[("file", each) for each in files])
    assert (202, "t.csv + photos.zip + 1 photo") == (sent.status_code, sent.json()["source"])
    address = f"/catalogue/imports/{sent.json()['id']}"
    eventually(lambda: http.get(address).json()["finished_at"] is not None)
    done = http.get(address).json()
    assert (4, 3, [(4, "photo_not_found"), (4, "nothing_to_categorise")]) == (
        done["rows"], done["added"], [(each["line"], each["code"]) for each in done["listed"]],
    )  # fmt: skip
    assert (1, ["summer/forgotten.jpg"]) == (done["unnamed_photos"], done["first_unnamed"])
    page = http.get(f"/console{address}").text
    assert "summer/forgotten.jpg" in page
    stored = http.get("/catalogue/products/Z-1").json()["photos"]
    assert ["summer/blue.jpg", "green.jpg"] == [each["name"] for each in stored]
    original = http.get("/catalogue/products/Z-2/photos/0", params={"size": "original"})
    assert photo_of("green") == original.content
    unnamed = http.post(
        "/catalogue/import", files=[("file", ("t.csv", b"sku,title\nA,B\n")), ("file", ("a.jpg", photo_of("red")))]
    )
    assert (422, "import_invalid") == (unnamed.status_code, unnamed.json()["code"])
    assert "no column of the table names them" in unnamed.json()["detail"]


def test_what_was_exported_can_be_imported_again(http: httpx.Client, eventually: Callable[..., None]) -> None:
    """The columns have the names that an import knows; formulas of spreadsheets are defused."""
    created(http, reference="X-1", designation="=Red()")
    created(http, reference="X-2", designation='Blue, "quoted"\nand more')
    table = http.get("/catalogue/export", params={"text": "X-2"})
    assert "text/csv; charset=utf-8" == table.headers["content-type"]
    job = http.post("/catalogue/import", files={"file": ("again.csv", io.BytesIO(table.content))}).json()
    eventually(lambda: http.get(f"/catalogue/imports/{job['id']}").json()["finished_at"] is not None)
    done = http.get(f"/catalogue/imports/{job['id']}").json()
    assert (1, 1, 0) == (done["rows"], done["unchanged"], done["faults"]), done
    assert "'=Red()" in http.get("/catalogue/export", params={"text": "X-1"}).text
    x, y = (http.get("/catalogue/export", params={"format": each}).text.splitlines() for each in ("x", "y"))
    assert (",designation,description,productid,imageid", ",prdtypecode") == (x[0], y[0])
    assert len(x) >= len(y) > 2


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Waits for what happens in the background."""
    import time

    def wait(condition: Callable[[], bool]) -> None:
        give_up_at = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < give_up_at
            time.sleep(0.05)

    return wait


def test_a_threshold_that_is_saved_on_one_server_decides_on_another(
    shop: RunningServer, http: httpx.Client, tmp_path: Path
) -> None:
    """Of two processes on one database, within seconds: tried on the stored suggestions, saved, and taken back."""
    home = "/console/settings/thresholds"
    form = {"channel": "catalogue", "based_on": "0", "accept_at": "1"}
    created(http, reference="T-1", designation="red or green")
    shared = {
        "database_url": f"sqlite:///{shop.data_dir / 'shoplens.db'}", "storage_url": str(shop.data_dir / "blobs"),
        "default_channel": "catalogue", "channels__catalogue__model": "paint",
        "channels__catalogue__catalogue": "{}",
    }  # fmt: skip
    with (
        running_server(tmp_path / "second", shop.data_dir.parent / "models", **shared) as other,
        httpx.Client(base_url=other.url, timeout=60, trust_env=False) as second,
    ):

        def needs_a_person() -> bool:
            found = http.post("/catalogue/suggest", json={"designation": "green or red"})
            assert 200 == found.status_code, found.text
            return bool(found.json()["needs_review"])

        def becomes(wanted: bool) -> None:
            give_up_at = time.monotonic() + 20
            while needs_a_person() is not wanted:
                assert time.monotonic() < give_up_at, "the other server does not use it"
                time.sleep(0.1)

        assert not needs_a_person()
        tried = second.post(f"{home}/try", data={**form, "part": "result"}).text
        assert "red or green" in tried
        assert "would need a person" in tried
        assert "A suggestion needs no person from" in second.get(home, params={"channel": "catalogue"}).text
        assert 303 == second.post(home, data={**form, "note": "look at all"}).status_code
        becomes(True)
        refused = second.post(home, data={**form, "based_on": "1", "labels.Colours > Red.review_at": "0.5"})
        assert (422, True) == (refused.status_code, "its only threshold is accept_at" in refused.text)
        assert 303 == second.post(f"{home}/back", data={**form, "based_on": "1", "version": "0"}).status_code
        becomes(False)
