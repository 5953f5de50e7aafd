"""Retrainings over HTTP and as pages: by the guide, with photos, and with labels in question answered by a click."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from shoplens.db import open_database
from shoplens.retraining.entities import RetrainingRun, Suspect
from shoplens.retraining.repository import SuspectRepository
from shoplens.storage import open_store
from tests.acceptance.api.guides import run_guide
from tests.conftest import RunningServer, running_server
from tests.labelled_photos import people_label
from tests.retraining_shop import ColourShop, photo
from tests.unit.training.colours import COLOURS

CLOTHES = (
    "dress", "hat", "longsleeve", "outwear", "pants", "shirt", "shoes", "shorts", "skirt", "t-shirt",
)  # fmt: skip
LABELS = 160
"""Enough to train and to test each class of the channel `returns`."""


@dataclass(frozen=True)
class Retrained:
    """A server with a retraining that waits for an answer."""

    server: RunningServer
    folder: Path
    waiting: RetrainingRun
    sample_id: str


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Retrained]:
    """Its first model learned from wrong labels."""
    folder, place = tmp_path_factory.mktemp("shop"), tmp_path_factory.mktemp("work")
    with running_server(folder, models_dir, models_url=str(place / "registry")) as server:
        with closing(open_database(f"sqlite:///{folder / 'shoplens.db'}")) as database:
            shop = ColourShop(database, place, store=open_store(str(folder / "blobs")))
            ids = shop.said(range(48), shift=1)
            shop.first()
            for number, colour in enumerate(sorted(COLOURS)):
                shop.corrected(ids[number::3], colour)
            waiting = shop.retrain()
            key = next(each.image_key for each in shop.labels.labels(shop.labels.get("colours")))
            suspect = Suspect(
                id="s" * 26, run_id=waiting.id, channel="colours", rank=0, source="feedback", sample_id=ids[0],
                label="red", suggested="blue", score=0.9, image_key=key, image_sha256=Path(key or "").stem,
            )  # fmt: skip
            with database.transaction() as tx:
                SuspectRepository(tx).replace_open(waiting, [suspect])
        yield Retrained(server, folder, waiting, ids[0])


def test_the_pages_show_what_changed_with_photos(shop: Retrained) -> None:
    """And the photos are there."""
    url = shop.server.url
    listed = httpx.get(f"{url}/console/models/retraining").text
    assert shop.waiting.ref in listed
    assert "Waits for your answer" in listed
    text = httpx.get(f"{url}/console/models/retraining/{shop.waiting.id}").text
    assert "better beyond chance" in text
    assert "Became right" in text
    photo = re.search(r'src="(/console/models/retraining/[^"]+/photos/[^"]+)"', text)
    assert photo is not None
    assert "image/jpeg" == httpx.get(url + photo[1]).headers["content-type"]
    assert 404 == httpx.get(f"{url}/console/models/retraining/{shop.waiting.id}/photos/{'0' * 64}").status_code
    assert 404 == httpx.get(f"{url}/retraining/runs/nothing").status_code


def test_a_label_in_question_is_answered_with_a_click(shop: Retrained) -> None:
    """The record has the feedback of the person who took the other label."""
    url = shop.server.url
    text = httpx.get(f"{url}/console/models/labels").text
    assert f"/console/records/{shop.sample_id}" in text
    assert 200 == httpx.get(f"{url}/console/models/labels/{'s' * 26}/photo").status_code
    answer = httpx.post(f"{url}/console/models/labels/{'s' * 26}", data={"answer": "take"})
    assert 303 == answer.status_code
    record = httpx.get(f"{url}/predictions/{shop.sample_id}").json()
    assert "blue" == record["feedback"][-1]["label"]
    assert "No label is in question" in httpx.get(f"{url}/console/models/labels?channel=colours").text


def test_a_product_in_question_gets_the_other_category_with_a_click(shop: Retrained) -> None:
    """As a person's decision on the product."""
    url = shop.server.url
    sent = httpx.post(
        f"{url}/catalogue/products", json={"reference": "P-1", "designation": "Red apple"}, timeout=60
    ).json()
    suspect = Suspect(
        id="p" * 26, run_id=shop.waiting.id, channel="catalogue", rank=0, source="catalogue", sample_id=sent["id"],
        label="Food > Pear", suggested=sent["suggestions"][1]["path"], score=0.9, image_key=None,
        image_sha256="", text="Red apple",
    )  # fmt: skip
    gone = replace(suspect, id="q" * 26, rank=1, suggested="Food > Gone")
    with closing(open_database(f"sqlite:///{shop.folder / 'shoplens.db'}")) as database, database.transaction() as tx:
        SuspectRepository(tx).replace_open(replace(shop.waiting, channel="catalogue"), [suspect, gone])
    text = httpx.get(f"{url}/console/models/labels?channel=catalogue").text
    assert f"/console/catalogue/products/{sent['id']}" in text
    answer = httpx.post(f"{url}/console/models/labels/{suspect.id}", data={"answer": "take"})
    assert 303 == answer.status_code
    product = httpx.get(f"{url}/catalogue/products/{sent['id']}").json()
    assert ("corrected", sent["suggestions"][1]["category"]) == (product["state"], product["category"])
    refused = httpx.post(f"{url}/console/models/labels/{gone.id}", data={"answer": "take"})
    assert 409 == refused.status_code
    assert "The tree has no category Food &gt; Gone any more." in refused.text


def test_the_guide_works_as_written(shop: Retrained, tmp_path: Path) -> None:
    """The model is champion then, and rejecting it afterwards is refused with a sentence."""
    said = run_guide("retrain-a-model.md", shop.server, tmp_path)
    assert '"decided_why":"Better on skirts"' in said
    assert "waits for no answer" in said
    live = httpx.get(f"{shop.server.url}/registry/colours/live").json()
    assert ("1.1.0", "Better on skirts") == (live["version"], live["since"]["why"])
    late = httpx.post(
        f"{shop.server.url}/console/models/retraining/{shop.waiting.id}", data={"answer": "reject", "why": ""}
    )
    assert 409 == late.status_code
    assert "waits for no answer" in late.text


def test_a_retraining_starts_by_a_click_or_a_request_and_can_be_cancelled(shop: Retrained) -> None:
    """In a process of its own; the page follows it, and its end is on the page and in the API."""
    url = shop.server.url
    with closing(open_database(f"sqlite:///{shop.folder / 'shoplens.db'}")) as database:
        colours = sorted(COLOURS)
        photos = [(photo(number, colours[number % 3]), CLOTHES[number % 10]) for number in range(LABELS)]
        people_label(database, open_store(str(shop.folder / "blobs")), "returns", photos)
    listed = httpx.get(f"{url}/console/models/retraining?channel=returns").text
    assert '<option value="returns" selected>' in listed
    begun = httpx.post(f"{url}/console/models/retraining", data={"channel": "returns"})
    assert 303 == begun.status_code
    address = begun.headers["location"]
    assert "Cancel the retraining" in httpx.get(url + address).text
    assert httpx.get(f"{url}{address}/live.json").json()["active"]
    refused = httpx.post(f"{url}/retraining/runs", json={"channel": "returns"})
    assert (409, "retraining_running") == (refused.status_code, refused.json()["code"])
    assert 303 == httpx.post(f"{url}{address}/cancel").status_code
    text = httpx.get(url + address).text
    assert "Cancelled" in text
    assert "Cancel the retraining" not in text
    again = httpx.post(f"{url}/retraining/runs", json={"channel": "returns", "dry_run": True})
    assert 202 == again.status_code, again.text
    until = time.monotonic() + 300
    while "running" == (run := httpx.get(url + again.headers["location"]).json()["run"])["state"]:
        assert time.monotonic() < until, run
        time.sleep(0.5)
    assert ("measured", None, LABELS) == (run["state"], run["failure"], run["labels"])
    assert 422 == httpx.post(f"{url}/retraining/runs", json={"chanel": "returns"}).status_code
    unknown = httpx.post(f"{url}/retraining/runs", json={"channel": "nowhere"})
    assert (404, "channel_not_found") == (unknown.status_code, unknown.json()["code"])
