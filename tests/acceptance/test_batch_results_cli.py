"""`shoplens batch export`, `report` and `retry` after a real run: real processes, real files, no item forgotten."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from shoplens.batch.entities import ItemState
from shoplens.storage import open_store
from tests.acceptance.batch_shop import BatchShop, Forked, tiny_photo

BROUGHT = {
    "1001_7.jpg": tiny_photo(1),
    "=cmd|calc_9.jpg": tiny_photo(2),
    "1003_<script>alert(1)<.jpg": tiny_photo(3),
    "1004_8 copy.jpg": tiny_photo(1),
    "1005_2.jpg": b"<!doctype html><html>not a photo</html>",
    "1006_3.jpg": tiny_photo(6)[:200],
    "1007_4.jpg": b"",
}


@pytest.fixture(scope="module")
def run() -> Iterator[Forked]:
    """Commands that nothing is done to while they run."""
    forked = Forked()
    yield forked
    forked.close()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, run: Forked) -> BatchShop:
    """A shop in the morning: good photos, a copy, and files that are none."""
    shop = BatchShop(tmp_path_factory.mktemp("morning")).set_up()
    for name, data in BROUGHT.items():
        shop.bring(name, data)
    assert 0 == run(shop, "batch", "ingest"), shop.told()
    assert 0 == run(shop, "batch", "run"), shop.told()
    return shop


def said_by(run: Forked, shop: BatchShop, *arguments: str, status: int = 0) -> str:
    """The output of a command that ends with this status."""
    before = len(shop.told())
    assert status == run(shop, *arguments), shop.told()[before:]
    assert "Traceback" not in shop.told()[before:]
    return shop.told()[before:]


def test_the_table_of_the_last_run_has_every_file_that_was_brought(run: Forked, shop: BatchShop) -> None:
    """In each format, which the file's name tells; a name that looks like a formula is disarmed for spreadsheets."""
    for name in ("run.csv", "run.jsonl", "run.parquet"):
        said_by(run, shop, "batch", "export", "--output", str(shop.root / name))
    with (shop.root / "run.csv").open(newline="", encoding="utf-8") as file:
        by_csv = list(csv.DictReader(file))
    by_json = [json.loads(line) for line in (shop.root / "run.jsonl").read_text().splitlines()]
    by_parquet = pq.read_table(shop.root / "run.parquet").to_pylist()
    names = [row["source_name"].rsplit("/", 1)[-1] for row in by_json]
    assert sorted(BROUGHT) == sorted(names)
    assert [row["source_name"] for row in by_json] == [row["source_name"] for row in by_parquet]
    assert [row["id"] for row in by_json] == [row["id"] for row in by_parquet] == [row["id"] for row in by_csv]
    assert [] == [row["source_name"] for row in by_csv if row["source_name"].startswith("=")]
    states = Counter(row["state"] for row in by_json)
    assert (3, 1, 3) == (states["done"] + states["needs_review"], states["duplicate"], states["quarantined"])
    assert {"fruit"} == {row["model"] for row in by_json if row["predicted"]}
    assert [] == [path.name for path in shop.root.iterdir() if path.name.endswith(".part")]


@pytest.mark.parametrize("name", ["run.xlsx", "run", "run.csv.gz"])
def test_a_file_whose_name_tells_no_known_format_is_refused(run: Forked, shop: BatchShop, name: str) -> None:
    """With the endings that are known; an explicit format decides whatever the name is."""
    said = said_by(run, shop, "batch", "export", "--output", str(shop.root / name), status=1)
    assert "request_invalid" in said
    for ending in (".csv", ".jsonl", ".parquet"):
        assert ending in said
    assert not (shop.root / name).exists()
    said_by(run, shop, "batch", "export", "--format", "csv", "--output", str(shop.root / name))
    (shop.root / name).unlink()
    assert ".html" in said_by(run, shop, "batch", "report", "--output", str(shop.root / name), status=1)


def test_standard_output_has_the_table_and_nothing_else(shop: BatchShop) -> None:
    """So that it can be piped; everything that ever arrived, or one run by its id."""
    everything = shop.start("batch", "export", "--all", "--format", "jsonl")
    rows = [json.loads(line) for line in everything.communicate(timeout=60)[0].splitlines()]
    assert len(BROUGHT) == len(rows)
    run_id = next(row["run"] for row in rows if row["run"])
    one = shop.start("batch", "export", run_id)
    table = one.communicate(timeout=60)[0]
    assert (0, len(BROUGHT) + 1) == (one.returncode, len(list(csv.reader(table.splitlines()))))


def test_the_run_wrote_its_report(shop: BatchShop) -> None:
    """It is in the store when the run is finished, with the counts."""
    store = open_store((shop.data / "blobs").as_uri())
    (key,) = store.list("returns/reports")
    html = store.get(key).decode()
    assert 'data-accounted="yes"' in html
    assert re.search(r"6 items: \d done, \d needs? review, 3 quarantined, and 1 duplicate\.", html)
    assert "<script" not in html


def test_the_report_can_be_rewritten_or_written_to_a_file(run: Forked, shop: BatchShop) -> None:
    """With links to the console that is named."""
    assert "returns/reports/" in said_by(run, shop, "batch", "report")
    page = shop.root / "run.html"
    said_by(
        run,
        shop,
        "batch",
        "report",
        "--output",
        str(page),
        "--console",
        "https://shop.example.org/console/batch/returns",
    )
    assert 'href="https://shop.example.org/console/batch/returns/items/' in page.read_text()


def test_impossible_requests_are_reported_in_one_sentence(run: Forked, shop: BatchShop, tmp_path: Path) -> None:
    """An unknown run, format or item, a folder that is not there, contradictory options."""
    attempts = {
        ("export", "nix"): "run_not_found",
        ("export", "--format", "xlsx"): "csv, jsonl, parquet",
        ("export", "nix", "--all"): "request_invalid",
        ("export", "--output", str(tmp_path / "no" / "folder.csv")): "request_invalid",
        ("report", "nix"): "run_not_found",
        ("report", "--output", "-", "--console", "javascript:1"): "request_invalid",
        ("retry",): "request_invalid",
        ("retry", "nix", "--all"): "request_invalid",
        ("retry", "nix", "--run", "nix"): "request_invalid",
        ("retry", "--all", "--run", "nix"): "run_not_found",
        ("retry", "nix"): "item_not_found",
    }
    for arguments, words in attempts.items():
        assert words in said_by(run, shop, "batch", *arguments, status=1), arguments


def test_an_empty_shop_says_that_there_was_no_run(run: Forked, tmp_path: Path) -> None:
    """The whole table is empty then, and still a table."""
    shop = BatchShop(tmp_path).set_up()
    assert "The channel returns has no runs yet." in said_by(run, shop, "batch", "export", status=1)
    said_by(run, shop, "batch", "export", "--all", "--output", str(tmp_path / "all.parquet"))
    assert 0 == pq.read_metadata(tmp_path / "all.parquet").num_rows


def test_set_aside_items_are_tried_again(run: Forked, tmp_path: Path) -> None:
    """Each by itself or all at once; one that cannot be tried again does not keep the others back."""
    shop = BatchShop(tmp_path).set_up()
    for name, data in BROUGHT.items():
        shop.bring(name, data)
    assert 0 == run(shop, "batch", "ingest")
    assert 0 == run(shop, "batch", "run")
    aside = [item.id for item in shop.items() if item.state is ItemState.QUARANTINED]
    good = next(item.id for item in shop.items() if item.state in {ItemState.DONE, ItemState.NEEDS_REVIEW})
    told = said_by(run, shop, "batch", "retry", aside[0], good, status=1)
    assert "1 item waits for the next run." in told
    assert f"{good}: item_not_ready" in told
    assert "2 items wait for the next run." in said_by(run, shop, "batch", "retry", "--all")
    assert 0 == run(shop, "batch", "run")
    assert aside == [item.id for item in shop.items() if item.state is ItemState.QUARANTINED]
    assert [] == shop.faults(BROUGHT)
