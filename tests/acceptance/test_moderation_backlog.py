"""A backlog of shoppers' photos: imported, judged overnight as if each had just been sent, exactly once."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy import func, select

from shoplens.batch.entities import BatchItem, ItemState
from shoplens.db import open_database
from shoplens.db.tables import from_row
from shoplens.moderation.entities import ModerationPhoto, PhotoState
from shoplens.moderation.tables import moderation_decisions, moderation_photos
from tests.acceptance.batch_shop import BatchShop, tiny_photo
from tests.commands import run_command

CHANNEL = {
    "model": "fruit",
    "labels": {"apple": {"review_at": 0.36, "reject_at": 0.42}},
    "moderation": {"general_model": None},
}


@pytest.fixture
def shop(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[BatchShop]:
    """A channel with a batch and a moderation side, and a model of three fruits; on SQLite unless a test asks."""
    on_server = getattr(request, "param", "sqlite") == "postgresql"
    batch = {"source": str(tmp_path / "backlog"), "quiet_s": 0, "url_networks": ["127.0.0.0/8"]}
    own = BatchShop(
        root=tmp_path,
        server=request.getfixturevalue("postgres_tables") if on_server else None,
        settings={
            "SHOPLENS_CHANNELS__SHOPPERS": json.dumps({**CHANNEL, "batch": batch}),
            "SHOPLENS_BATCH__COMMIT_ITEMS": "8",
            "SHOPLENS_BATCH__TAKEOVER_S": "1.0",
            "SHOPLENS_THREADS": "1",
        },
    ).set_up()
    (tmp_path / "backlog").mkdir()
    yield own
    own.close()


def set_policy(shop: BatchShop) -> None:
    """Only the model's label decides: the tiny photos of these tests are blurred and small."""
    (shop.root / "policy.toml").write_text("[signals.apple]\nreview_at = 0.006\nreject_at = 0.012\n")
    command(shop, "moderation", "policy", "set", "policy.toml", "--channel", "shoppers", "--note", "only fruit")


def command(shop: BatchShop, *arguments: str, status: int = 0) -> str:
    """Run it; its output and errors."""
    done = run_command(*arguments, environment=shop.environment(), folder=shop.root, timeout_s=300)
    assert status == done.returncode, done.stderr
    return done.stdout + done.stderr


def photos_of(shop: BatchShop) -> list[ModerationPhoto]:
    """All rows of moderation."""
    with closing(open_database(shop.database_url)) as database, database.reading() as tx:
        return [from_row(ModerationPhoto, row) for row in tx.execute(select(moderation_photos))]


def decisions_of(shop: BatchShop) -> Counter[str]:
    """How many decisions each photo has."""
    counted = select(moderation_decisions.c.photo_id, func.count()).group_by(moderation_decisions.c.photo_id)
    with closing(open_database(shop.database_url)) as database, database.reading() as tx:
        return Counter({row[0]: row[1] for row in tx.execute(counted)})


def faults(shop: BatchShop, items: list[BatchItem], contents: dict[str, bytes]) -> list[str]:
    """What does not add up between the items, the photos, their decisions and their files."""
    photos = photos_of(shop)
    found = []
    wanted = sorted(hashlib.sha256(data).hexdigest() for data in contents.values())
    if wanted != sorted(photo.image.sha256 for photo in photos):
        found.append(f"{len(wanted)} photos were brought, {len(photos)} were taken in")
    if {photo.id: 1 for photo in photos} != dict(decisions_of(shop)):
        found.append("a photo has not exactly one decision")
    by_id = {photo.id[10:]: photo for photo in photos}
    for item in items:
        photo = by_id.get(item.id[10:])
        if item.state is ItemState.DONE and (photo is None or photo.state.value != item.predicted):
            found.append(f"{item.source_name} says {item.predicted}, its photo {photo and photo.state}")
        elif photo is not None:
            file = shop.data / "blobs" / (photo.image_key or "") / f"original.{'jpg'}"
            if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != photo.image.sha256:
                found.append(f"the file of {item.source_name} is not at {file}")
            if item.key != f"{photo.image_key}/original.jpg":
                found.append(f"{item.source_name} is kept at {item.key}")
    return found


def test_a_backlog_is_moderated_exactly_once_although_its_process_is_killed(shop: BatchShop, tmp_path: Path) -> None:
    """Runs that are killed at work are resumed; every photo is taken in with one decision, and no file is left over."""
    set_policy(shop)
    backlog = {f"order{number}_product{number}.jpg": tiny_photo(number) for number in range(200)}
    for name, data in backlog.items():
        (tmp_path / "backlog" / name).write_bytes(data)
    (tmp_path / "backlog" / "broken.jpg").write_bytes(tiny_photo(5_000)[:200])
    command(shop, "batch", "ingest", "--channel", "shoppers")
    killed_at = []
    for _ in range(2):
        process = shop.start("batch", "run", "--channel", "shoppers")
        before = len(photos_of(shop))
        while process.poll() is None and len(photos_of(shop)) == before:
            time.sleep(0.02)
        process.kill()
        process.communicate()
        killed_at.append(len(photos_of(shop)))
        time.sleep(1.2)
    assert any(0 < count < 200 for count in killed_at), killed_at
    command(shop, "batch", "run", "--channel", "shoppers")
    items = shop.items()
    assert [] == faults(shop, items, backlog)
    states = Counter(photo.state for photo in photos_of(shop))
    assert set(PhotoState) == set(states), states
    assert Counter({ItemState.DONE: 200, ItemState.QUARANTINED: 1}) == Counter(item.state for item in items)
    assert ("product7", "order7") == next(
        (photo.ref.product, photo.ref.order) for photo in photos_of(shop) if "product7" == photo.ref.product
    )
    left = [path for path in (shop.data / "blobs" / "shoppers" / "incoming").rglob("*") if path.is_file()]
    assert [] == left


@pytest.mark.parametrize("shop", ["postgresql"], indirect=True)
def test_a_list_names_customers_and_each_line_that_cannot_be_used_is_named(shop: BatchShop, tmp_path: Path) -> None:
    """The others are taken in, and once processed only the photo says whose it is."""
    set_policy(shop)
    for number in range(3):
        (tmp_path / f"photo{number}.jpg").write_bytes(tiny_photo(number))
    (tmp_path / "list.csv").write_text(
        "path,customer,product,order,review\n"
        "photo0.jpg,c-1,p-1,o-1,r-1\n"
        "photo1.jpg,c-2,p-2,o-2,r-2,too many\n"
        "../secret.jpg,c-3,p-3,o-3,r-3\n"
        ",c-4,p-4,o-4,r-4\n"
        "missing.jpg,c-5,p-5,o-5,r-5\n"
        "photo0.jpg,c-6,p-6,o-6,r-6\n"
        "photo2.jpg,c-7,p-7,,\n"
    )
    said = command(shop, "batch", "ingest", "list.csv", "--channel", "shoppers")
    for line, reason in (
        (3, "it has more fields than the header has columns"),
        (4, "is no plain path below the folder of the manifest"),
        (5, "it must have exactly one of a path, a key and a url"),
        (6, "there is no regular file missing.jpg"),
        (7, "the same photo is in line 2"),
    ):
        assert any(f"list.csv, line {line} " in each and reason in each for each in said.splitlines()), (line, said)
    refused = command(shop, "batch", "run", "--channel", "shoppers", "--engine", "ray", status=6)
    assert "its runs do not use Ray" in refused  # its nodes do not reach the database, which has what is known
    command(shop, "batch", "run", "--channel", "shoppers")
    photos = sorted(photos_of(shop), key=lambda photo: photo.ref.customer or "")
    assert [("c-1", "p-1", "o-1", "r-1"), ("c-7", "p-7", None, None)] == [
        (each.ref.customer, each.ref.product, each.ref.order, each.ref.review) for each in photos
    ]
    assert [(None, None, None)] * 2 == [
        (item.references.customer, item.references.review, item.references.order) for item in shop.items()
    ]


@contextmanager
def served(photos: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """A web server with photos, its address, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            data = photos.get(self.path)
            self.send_response(302 if self.path.endswith("moved.jpg") else 200 if data else 404)
            self.send_header("Location", "/photos/1.jpg")
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, format: str, *args: object) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/photos/", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_photos_are_fetched_from_allowed_addresses_once(shop: BatchShop, tmp_path: Path) -> None:
    """No address outside the prefix is asked, no redirect followed, and a second import fetches nothing."""
    set_policy(shop)
    with served({f"/photos/{number}.jpg": tiny_photo(number) for number in range(20)}) as (prefix, asked):
        batch = {"quiet_s": 0, "url_prefixes": [prefix], "url_networks": ["127.0.0.0/8"]}
        shop.settings["SHOPLENS_CHANNELS__SHOPPERS"] = json.dumps({**CHANNEL, "batch": batch})
        good = "".join(f"{prefix}{number}.jpg,c-{number}\n" for number in range(20))
        bad = [f"{prefix}gone.jpg", f"{prefix}moved.jpg", "http://127.0.0.1:1/x.jpg", f"{prefix}..%2f../admin"]
        (tmp_path / "list.csv").write_text("url,customer\n" + good + "".join(f"{each},c\n" for each in bad))
        said = command(shop, "batch", "ingest", "list.csv", "--channel", "shoppers")
        for line, reason in (
            (22, "the server responds 404"),
            (23, "the server responds 302; redirects are not followed"),
            (24, "is not below one of the addresses in url_prefixes"),
            (25, "is not a plain address"),
        ):
            assert any(f"list.csv, line {line}" in each and reason in each for each in said.splitlines()), (line, said)
        assert sorted(
            [*(f"/photos/{number}.jpg" for number in range(20)), "/photos/gone.jpg", "/photos/moved.jpg"]
        ) == (sorted(asked))
        asked.clear()
        again = json.loads(
            command(shop, "batch", "ingest", "list.csv", "--channel", "shoppers", "--json").splitlines()[0]
        )
        assert (0, 20) == (again["taken"], again["known"])
        assert {"/photos/gone.jpg", "/photos/moved.jpg"} == set(asked)
    command(shop, "batch", "run", "--channel", "shoppers")
    assert {f"c-{number}" for number in range(20)} == {photo.ref.customer for photo in photos_of(shop)}
