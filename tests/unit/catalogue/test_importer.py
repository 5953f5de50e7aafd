"""Imports of products: both formats, faults by line, repeated and continued imports, uploads."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from shoplens.batch.web_photos import WebPhotos
from shoplens.catalogue.entities import ImportJob, ProductState
from shoplens.catalogue.errors import ImportInvalid, ImportRunning
from shoplens.catalogue.imports.importer import ImportSource, ProductImporter
from shoplens.catalogue.imports.photo_sources import NamedPhotos
from shoplens.catalogue.imports.repository import ImportRepository
from shoplens.catalogue.imports.service import ImportService, NewImport
from shoplens.catalogue.products import ProductService
from shoplens.catalogue.repository import ProductFilter
from shoplens.db import Database
from shoplens.storage import open_store
from tests.unit.catalogue.products import CHANNEL, TREE, Clock, jpeg_of, product_service

CHALLENGE = (
    ",designation,description,productid,imageid\n"
    "0,Red apple,,5,50\n1,Pear,<b>Sweet</b>,6,60\n2,,,7,70\n3,Shirt,,8,80\n4,Other shirt,,5,90\n"
)
CODES = ",prdtypecode\n0,apple\n1,pear\n2,apple\n3,unknown\n4,shirt\n"
KEPT = NewImport(channel=CHANNEL, source="X.csv", by="anna", stamp="1", chosen={})


class Shop:
    """A catalogue with a folder of photos."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.folder = folder
        self.database = database
        self.clock = Clock()
        self.products: ProductService = product_service(database, folder / "blobs", self.clock)
        importer = ProductImporter(database, self.products, tree_of=lambda _: TREE, clock=self.clock)
        self.imports = ImportService(
            database, importer, open_store(str(folder / "blobs")), open_photos=lambda _: self.photos(), clock=self.clock
        )

    def photos(self) -> NamedPhotos:
        return NamedPhotos(str(self.folder), web=None, max_bytes=1_000_000)

    def source(self, table: str, codes: str | None = None, **chosen: str) -> ImportSource:
        return ImportSource(
            table=io.BytesIO(table.encode()),
            codes=None if codes is None else io.BytesIO(codes.encode()),
            photos=self.photos(),
            chosen=chosen,
        )

    def run(self, table: str, codes: str | None = None, *, stamp: str | None = None, **chosen: str) -> ImportJob:
        return self.imports.run(replace(KEPT, stamp=stamp), self.source(table, codes, **chosen))

    def faults(self, job: ImportJob) -> list[tuple[int, str, str | None]]:
        return [(each.line, each.code, each.reference) for each in self.imports.faults(job.id)]

    def references(self, **wanted: object) -> list[str]:
        page = self.products.page(ProductFilter(channel=CHANNEL, **wanted))  # type: ignore[arg-type]
        return [each.reference for each in page.products]


@pytest.fixture
def shop(database: Database, tmp_path: Path) -> Shop:
    """An empty one, on both databases."""
    (tmp_path / "images").mkdir()
    for image, product in ((50, 5), (60, 6)):
        (tmp_path / "images" / f"image_{image}_product_{product}.jpg").write_bytes(jpeg_of(60, 80, image))
    return Shop(database, tmp_path)


def test_the_format_of_the_challenge_is_imported_with_photos_and_categories(shop: Shop) -> None:
    """What a row lacks is listed with its line, and the rest of it is used."""
    job = shop.run(CHALLENGE, CODES)
    assert (5, 3, 0, 0, 5) == (job.rows, job.added, job.changed, job.unchanged, job.faults)
    assert [
        (4, "photo_not_found", "7"), (4, "nothing_to_categorise", "7"),
        (5, "category_not_found", "8"), (5, "photo_not_found", "8"), (6, "reference_repeated", "5"),
    ] == shop.faults(job)  # fmt: skip
    product, photos = shop.products.get(CHANNEL, "6")
    assert ("Pear", "Sweet", "pear", ProductState.ACCEPTED, "import") == (
        product.designation, product.description, product.category, product.state, product.decided_by,
    )  # fmt: skip
    assert [("image_60_product_6.jpg", 60, 80)] == [(each.name, each.image.width, each.image.height) for each in photos]
    assert (ProductState.NEW, None) == (shop.products.get(CHANNEL, "8")[0].state, None)


def test_a_table_of_a_shop_is_imported_by_its_columns(shop: Shop) -> None:
    """A category may be a path; photos may be several."""
    (shop.folder / "a.jpg").write_bytes(jpeg_of(60, 80, 1))
    (shop.folder / "b.jpg").write_bytes(jpeg_of(60, 80, 2))
    (shop.folder / "page.jpg").write_bytes(b"<html>")
    table = "SKU;Titel;Kategorie;Bild\nA-1;Apfel;Food > Fruit > Apple;a.jpg|b.jpg\nA-2;Hemd;;page.jpg\n;Ohne;;\n"
    job = shop.run(table)
    assert (2, [(3, "image_unsupported", "A-2"), (4, "reference_missing", None)]) == (job.added, shop.faults(job))
    product, photos = shop.products.get(CHANNEL, "A-1")
    assert ("apple", ["a.jpg", "b.jpg"]) == (product.category, [each.name for each in photos])


def test_paths_lead_nowhere_but_below_the_folder_of_the_photos(shop: Shop) -> None:
    """Nor do links, and addresses only where they are allowed."""
    (shop.folder / "secret.jpg").write_bytes(jpeg_of(10, 10))
    inner = shop.folder / "images"
    (inner / "link.jpg").symlink_to(shop.folder / "secret.jpg")
    photos = NamedPhotos(str(inner), web=None, max_bytes=1_000_000)
    table = "sku,title,photo\n" + "".join(
        f"A-{number},Shirt,{name}\n"
        for number, name in enumerate(["../secret.jpg", "/etc/passwd", "link.jpg", "https://example.org/a.jpg"])
    )
    source = replace(shop.source(table), photos=photos)
    job = shop.imports.run(KEPT, source)
    assert [(line, "photo_not_found", f"A-{line - 2}") for line in range(2, 6)] == shop.faults(job)
    assert 4 == job.added


def test_an_import_holds_the_photos_of_a_few_rows_and_not_of_all_that_it_commits(shop: Shop) -> None:
    """Photos of 200 rows could be gigabytes. A row that is refused leaves no photo in the store."""
    photo = jpeg_of(60, 80, 1)
    (shop.folder / "a.jpg").write_bytes(photo + bytes(900_000))  # what follows the end of a JPEG is ignored
    table = "sku,photos\n" + "".join(f"A-{n},a.jpg\n" for n in range(60)) + f"{'A' * 300},a.jpg\n"
    tracemalloc.start()
    try:
        job = shop.run(table)
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()
    assert (60, 1) == (job.added, job.faults)
    assert 60 == len(list((shop.folder / "blobs" / "catalogue").rglob("*.jpg")))
    assert (60, 0) == (shop.run(table).unchanged, shop.run(table).changed)


def test_an_import_that_is_repeated_changes_nothing(shop: Shop) -> None:
    """And one with a changed row changes that one."""
    shop.run(CHALLENGE, CODES)
    again = shop.run(CHALLENGE, CODES)
    assert (0, 0, 3) == (again.added, again.changed, again.unchanged)
    changed = shop.run(CHALLENGE.replace("Red apple", "Green apple"), CODES)
    assert (0, 1, 2) == (changed.added, changed.changed, changed.unchanged)
    assert ["5"] == shop.references(import_id=changed.id)


class Pictures(SimpleHTTPRequestHandler):
    """Counts what is fetched; shows one photo under every address but those with "missing"."""

    fetched: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.fetched.append(self.path)
        self.send_response(404 if "missing" in self.path else 200)
        self.end_headers()
        self.wfile.write(jpeg_of(60, 80, 3))

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def test_photos_by_address_are_fetched_once_and_only_from_where_it_is_allowed(shop: Shop) -> None:
    """A later import of the same table fetches nothing but what failed."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        web = WebPhotos([f"{base}/photos/"], networks=["127.0.0.0/8"], max_bytes=100_000)
        photos = NamedPhotos(None, web=web, max_bytes=100_000)
        table = (
            f"sku,title,image\nA-1,Shirt,{base}/photos/a.jpg\nA-2,Shirt,{base}/photos/missing.jpg\n"
            f"A-3,Shirt,{base}/other/a.jpg\n"
        )
        Pictures.fetched.clear()
        for expected in (3, 0):
            job = shop.imports.run(replace(KEPT, stamp=None), replace(shop.source(table), photos=photos))
            assert expected == job.added
            assert [(3, "photo_not_found", "A-2"), (4, "photo_not_found", "A-3")] == shop.faults(job)
        server.shutdown()
    assert ["/photos/a.jpg", "/photos/missing.jpg", "/photos/missing.jpg"] == sorted(Pictures.fetched)
    assert 1 == len(shop.products.get(CHANNEL, "A-1")[1])


def test_long_texts_are_shortened_and_cleaned(shop: Shop) -> None:
    """The row says so."""
    job = shop.run(f"sku,title\nA-1,{'<i>long</i> ' * 1_000}\n")
    assert [(2, "text_shortened", "A-1")] == shop.faults(job)
    designation = shop.products.get(CHANNEL, "A-1")[0].designation
    assert len(designation) <= 1_000
    assert "<" not in designation


def test_a_table_without_what_is_needed_ends_the_import_and_says_why(shop: Shop) -> None:
    """The job keeps the sentence."""
    with pytest.raises(ImportInvalid, match="reference"):
        shop.run("title\nShirt\n")
    (job,) = shop.imports.newest(CHANNEL)
    assert job.finished_at is not None
    assert "reference" in (job.error or "")


DYING = """
import os, sys
from pathlib import Path
from shoplens.catalogue.imports import importer
from shoplens.db import open_database
from tests.unit.catalogue.test_importer import Shop, KEPT
importer._COMMIT_ROWS = 10
shop = Shop(open_database(sys.argv[1]), Path(sys.argv[2]))
shop.imports.run(KEPT, shop.source(sys.stdin.read()),
                 on_progress=lambda job: job.rows >= 30 and os.kill(os.getpid(), 9))
"""


def test_an_import_that_is_killed_goes_on_where_it_was(shop: Shop, database_url: str) -> None:
    """Nothing twice, nothing left out, and the counts are those of one import."""
    table = "sku,title\n" + "".join(f"A-{number},Shirt {number}\n" for number in range(75)) + "A-3,Again\n"
    killed = subprocess.run(
        [sys.executable, "-c", DYING, database_url, str(shop.folder)], input=table.encode(), check=False
    )
    assert -9 == killed.returncode
    (half,) = shop.imports.newest(CHANNEL)
    assert (30, 30, None) == (half.rows, half.added, half.finished_at)
    job = shop.run(table, stamp="1")
    assert (half.id, 76, 75, 0, 1) == (job.id, job.rows, job.added, job.unchanged, job.faults)
    assert 75 == shop.products.count(ProductFilter(channel=CHANNEL))


def test_a_file_that_another_process_imports_is_not_imported_twice_at_once(shop: Shop) -> None:
    """This process is alive, so its import is not taken over."""
    refused: list[ImportJob] = []

    def second(job: ImportJob) -> None:
        if job.finished_at is None:
            with pytest.raises(ImportRunning):
                shop.run(CHALLENGE, stamp="1")
            refused.append(job)

    shop.imports.run(KEPT, shop.source(CHALLENGE), on_progress=second)
    assert 1 == len(refused)


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what happens in another thread."""
    give_up_at = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


def test_an_upload_is_imported_in_the_background_and_leaves_no_file(shop: Shop) -> None:
    """Its job says how far it is; the rows are counted there, too, and not while the request waits."""
    job = shop.imports.upload(KEPT, io.BytesIO(CHALLENGE.encode()), io.BytesIO(CODES.encode()))
    assert job.total is None
    eventually(lambda: shop.imports.get(job.id).finished_at is not None)
    done = shop.imports.get(job.id)
    assert (5, 5, 3) == (done.total, done.rows, done.added)
    eventually(lambda: not list((shop.folder / "blobs").glob("catalogue/imports/*")))
    with pytest.raises(ImportInvalid):
        shop.imports.upload(KEPT, io.BytesIO(b"title\n"))


def test_an_upload_whose_process_died_is_finished_by_the_next_one(shop: Shop, database: Database) -> None:
    """It is claimed once, though two look at it."""
    shop.imports.stop()
    job = shop.imports.upload(KEPT, io.BytesIO(CHALLENGE.encode()))
    shop.imports.close()
    left = shop.imports.get(job.id)
    with database.transaction() as tx:
        ImportRepository(tx).update(replace(left, process=f"{(left.process or '').rpartition('/')[0]}/0"))
    other = Shop(database, shop.folder)
    assert (1, 0) == (other.imports.resume(), other.imports.resume())
    eventually(lambda: other.imports.get(job.id).finished_at is not None)
    assert 3 == other.imports.get(job.id).added
