"""Statements, appeals, strikes and erasures over HTTP; the guide; and what a kill in the middle leaves."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from shoplens.db import open_database, upgrade
from shoplens.moderation.entities import PhotoState, References
from shoplens.moderation.files import folder_of
from shoplens.platform.server import Platform
from shoplens.storage import open_store
from shoplens.web.app import create_app
from tests.acceptance.api.guides import run_guide
from tests.commands import run_command
from tests.conftest import RunningServer, colourful, jpeg_of, running_server
from tests.unit.moderation.photos import photo_id, photo_of, stored

MANY = 400


def refused(number: int, customer: str = "c-1042") -> dict[str, Any]:
    """The fields of a refused photo whose files are in the store."""
    return {
        "state": PhotoState.REFUSED, "reason": "not_the_product", "ref": References(customer=customer),
        "image_key": folder_of(photo_id(number)),
    }  # fmt: skip


async def test_a_statement_an_appeal_and_its_end_over_http(platform: Platform, client: httpx.AsyncClient) -> None:
    """As the shop's server and a moderator see them."""
    stored(platform.database, photo_of(1, **refused(1)), photo_of(2, state=PhotoState.PUBLISHED))
    address = f"/moderation/photos/{photo_id(1)}"
    statement = (await client.get(f"{address}/statement")).json()
    assert ("not_the_product", True, True) == (
        statement["reason"],
        statement["decided_automatically"],
        statement["can_appeal"],
    )
    text = await client.get(f"{address}/statement.txt")
    assert (statement["text"], "text/plain; charset=utf-8") == (text.text, text.headers["content-type"])
    none = await client.get(f"/moderation/photos/{photo_id(2)}/statement")
    assert (409, "photo_not_refused") == (none.status_code, none.json()["code"])
    assert 404 == (await client.get(f"{address}/appeal")).status_code
    appeal = await client.post(f"{address}/appeal", json={"message": "It is the jacket."})
    assert (201, None) == (appeal.status_code, appeal.json()["decided_at"])
    again = await client.post(f"{address}/appeal", json={"message": "It is the jacket."})
    assert (409, "appeal_exists") == (again.status_code, again.json()["code"])
    (waiting,) = (await client.get("/moderation/appeals")).json()
    assert (photo_id(1), "It is the jacket.", "c-1042") == (
        waiting["photo_id"],
        waiting["message"],
        waiting["customer"],
    )
    decided = await client.post(f"{address}/decision", json={"decision": "accept", "answer": "You are right."})
    assert 200 == decided.status_code
    ended = (await client.get(f"{address}/appeal")).json()
    assert ("published", "You are right.") == (ended["outcome"], ended["answer"])
    assert [] == (await client.get("/moderation/appeals")).json()


@pytest.mark.parametrize(
    ("message", "status"),
    [("", 422), ("x" * 2_001, 422), (None, 422), ("   ", 422)],
    ids=["none", "long", "null", "blank"],
)
async def test_a_bad_message_is_refused(busy_client: httpx.AsyncClient, message: str | None, status: int) -> None:
    """Before anything is looked up."""
    answer = await busy_client.post(f"/moderation/photos/{photo_id(99)}/appeal", json={"message": message})
    assert (status, "request_invalid") == (answer.status_code, answer.json()["code"])


async def test_strikes_and_an_erasure_over_http(platform: Platform, client: httpx.AsyncClient) -> None:
    """A reference may have a slash in it."""
    stored(platform.database, photo_of(1, **refused(1, "shop/7 x")))
    customer = (await client.get("/moderation/customers/shop%2F7%20x")).json()
    assert ("shop/7 x", {"refused": 1}) == (customer["customer"], customer["photos"])
    assert not customer["rules"][0]["holds"]
    receipt = (await client.delete("/moderation/customers/shop%2F7%20x")).json()
    assert (1, 1) == (receipt["photos"], len({receipt["customer_digest"]}))
    after = (await client.get("/moderation/customers/shop%2F7%20x")).json()
    assert ({}, [receipt]) == (after["photos"], after["erasures"])
    assert 404 == (await client.get(f"/moderation/photos/{photo_id(1)}")).status_code


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[RunningServer]:
    """A server for both guides."""
    with running_server(tmp_path_factory.mktemp("consequences"), models_dir) as started:
        yield started


def has(server: RunningServer, number: int, **more: Any) -> None:
    """Store this photo beside a running server."""
    with closing(open_database(f"sqlite:///{server.data_dir / 'shoplens.db'}")) as database:
        stored(database, photo_of(number, **more))


def test_the_guide_works_as_written(own_server: RunningServer, tmp_path: Path) -> None:
    """With a refused photo in place of the one of the guide before."""
    has(own_server, 1, **refused(1))
    (tmp_path / "refused.txt").write_text(photo_id(1))
    printed = run_guide("answer-shoppers.md", own_server, tmp_path)
    assert "The photo does not show the product." in printed
    assert '"photos":1' in printed
    assert 404 == httpx.get(f"{own_server.url}/moderation/photos/{photo_id(1)}").status_code


def test_the_guide_to_labels_works_as_written(own_server: RunningServer, tmp_path: Path) -> None:
    """With one photo that a person accepted."""
    has(own_server, 2, state=PhotoState.PUBLISHED, decided_by="person-anna")
    printed = run_guide("export-labels.md", own_server, tmp_path)
    assert '"labels":1' in printed
    assert "safe" in (tmp_path / "labels.csv").read_text()
    assert (tmp_path / "labels.parquet").read_bytes().startswith(b"PAR1")
    assert 404 == httpx.get(f"{own_server.url}/labels/reviews/sets/2.csv").status_code
    assert 409 == httpx.post(f"{own_server.url}/labels/look/sets").status_code


def test_label_sets_are_built_listed_and_exported_on_the_machine(
    own_server: RunningServer, models_dir: Path, tmp_path: Path
) -> None:
    """Beside a running server, with a row that it did not have."""
    has(own_server, 3, state=PhotoState.REFUSED, reason="nudity", decided_by="person-anna")
    environment = {"SHOPLENS_DATA_DIR": str(own_server.data_dir), "SHOPLENS_MODELS_DIR": str(models_dir)}

    def said(*arguments: str) -> str:
        done = run_command("labels", *arguments, environment={**os.environ, **environment}, folder=tmp_path)
        assert 0 == done.returncode, done.stderr
        return done.stdout

    built = json.loads(said("build", "reviews", "--json"))
    assert f"reviews\t{built['version']}\t{built['labels']}\t" in said("list")
    said("export", "reviews", "newest.csv")
    assert f"{photo_id(3)},moderation,reviews,nsfw," in (tmp_path / "newest.csv").read_text()
    said("export", "reviews", "newest.parquet")
    assert built["labels"] == pq.read_table(tmp_path / "newest.parquet").num_rows


@pytest.mark.parametrize("command", [["erase-customer", "c-1042", "--yes"], ["retention"]], ids=["erase", "retention"])
def test_a_kill_in_the_middle_is_made_good_by_the_next_call(
    tmp_path: Path, models_dir: Path, command: list[str]
) -> None:
    """No row of a photo without its file is left for ever, and no file without its row."""
    data = tmp_path / "data"
    (data / "blobs").mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOPLENS_")}
    environment |= {"SHOPLENS_DATA_DIR": str(data), "SHOPLENS_MODELS_DIR": str(models_dir)}
    run = [sys.executable, "-m", "shoplens", "moderation", *command]
    upgrade(f"sqlite:///{data / 'shoplens.db'}")
    store = open_store(str(data / "blobs"), setting="storage_url")
    database = open_database(f"sqlite:///{data / 'shoplens.db'}")
    for number in range(1, MANY + 1):
        store.put(f"{folder_of(photo_id(number))}/original.jpg", b"x")
    stored(database, *(photo_of(number, **refused(number)) for number in range(1, MANY + 1)))
    process = subprocess.Popen(run, env=environment, stdout=subprocess.DEVNULL)
    folder = data / "blobs" / "moderation"
    first = data / "blobs" / folder_of(photo_id(20)) / "original.jpg"
    while first.exists() and process.poll() is None:
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = len(list(folder.rglob("*.jpg")))
    assert 0 < left < MANY, "the kill came too late or too early"
    done = run_command("moderation", *command, "--json", environment=environment, folder=tmp_path)
    assert 0 == done.returncode, done.stderr
    assert set() == set(store.list("moderation"))
    answer = json.loads(done.stdout)
    if command[0] == "retention":
        assert 0 < answer["photos"] <= MANY
    else:
        assert (MANY, True) == (answer["photos"], answer["finished_at"] is not None)
        with database.reading() as tx:
            assert [] == tx.exec_driver_sql("SELECT id FROM moderation_photos").all()
    database.close()


async def test_the_page_of_a_customer_shows_strikes_and_erases_after_the_reference_was_typed(
    platform: Platform, client: httpx.AsyncClient
) -> None:
    """A plain form; a reference may have a slash in it."""
    numbers = range(1, 4)
    recent = datetime.now(UTC) - timedelta(days=1)
    stored(platform.database, *(photo_of(number, decided_at=recent, **refused(number, "shop/7")) for number in numbers))
    address = "/console/moderation/customers/shop/7"
    shown = (await client.get(address)).text
    assert "3 refused photos within 30 days; from 3 on, new photos are held for a person (until" in shown
    assert shown.count("Not the product") == 3
    wrong = await client.post(address, data={"confirm": "shop"}, headers={"accept": "text/html"})
    assert 422 == wrong.status_code
    assert "Nothing was erased" in wrong.text
    done = await client.post(address, data={"confirm": "shop/7"})
    assert (303, "/console/moderation/customers/shop%2F7?said=1") == (done.status_code, done.headers["location"])
    after = (await client.get(done.headers["location"])).text
    assert "Everything of this customer was erased" in after
    assert "No strikes that count" in after


async def test_a_copy_of_a_refused_photo_is_refused_until_the_appeal_is_right(client: httpx.AsyncClient) -> None:
    """From the upload on: a mirrored copy that was cropped and encoded again. The other shopper is not named."""
    original = colourful(41, width=800, height=600)
    first = await sent(client, jpeg_of(original), "c-1")
    assert "refused" != first["state"]
    address = f"/moderation/photos/{first['id']}"
    seen = (await client.get(f"{address}/context")).json()["photo"]["revision"]
    refusal = {"decision": "reject", "reason": "nudity", "seen": seen}
    assert 200 == (await client.post(f"{address}/decision", json=refusal)).status_code
    copy = np.ascontiguousarray(original[20:, 30:][:, ::-1])
    second = await sent(client, jpeg_of(copy), "c-2")
    assert ("refused", None) == (second["state"], second["reason"])
    context = (await client.get(f"/moderation/photos/{second['id']}/context")).json()["photo"]
    assert "like a photo that was refused" in context["rule"]
    (near,) = [each for each in context["signals"] if each["name"] == "near_refused"]
    assert f"the mirror image of photo {first['id']}" in near["detail"]
    statement = (await client.get(f"/moderation/photos/{second['id']}/statement")).text
    assert first["id"] not in statement
    assert "distance" not in statement
    await client.post(f"{address}/appeal", json={"message": "It is the jacket."})
    client.cookies.set("shoplens_browser", "b" * 32)
    accepted = await client.post(f"{address}/decision", json={"decision": "accept"})
    assert 200 == accepted.status_code, accepted.text
    third = await sent(client, jpeg_of(copy), "c-3")
    assert "refused" != third["state"]


async def sent(client: httpx.AsyncClient, photo: bytes, customer: str) -> dict[str, Any]:
    """What became of a photo of this customer."""
    files = [("file", ("photo.jpg", photo))]
    answer = await client.post("/moderation/photos", files=files, data={"customer": customer})
    assert 201 == answer.status_code, answer.text
    (taken,) = answer.json()["photos"]
    return dict(taken)


async def test_a_server_looks_every_minute_for_what_is_due(platform: Platform) -> None:
    """From its start to its end."""

    def running() -> bool:
        return any(each.name == "retention" for each in threading.enumerate())

    app = create_app(platform)
    assert not running()
    async with app.router.lifespan_context(app):
        assert running()
    assert not running()


async def test_no_log_holds_a_customer_or_the_token_of_a_link(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the request is refused before its route is known."""
    caplog.set_level(logging.INFO, logger="shoplens")
    private = "anna+1@example.org"
    for method, path in (
        ("GET", "/moderation/customers"),
        ("DELETE", "/moderation/customers"),
        ("PUT", "/moderation/customers"),
        ("GET", "/console/moderation/customers"),
        ("GET", "/reset"),
    ):
        for host in ("127.0.0.1", "evil.example"):
            await client.request(method, f"{path}/{private}", headers={"Host": host})
    events = [str(each.msg) for each in caplog.records if each.name.startswith("shoplens")]
    assert 10 == sum("request.answered" in each for each in events)
    assert any("/moderation/customers/…" in each for each in events)
    assert [] == [each for each in events if private in each]
