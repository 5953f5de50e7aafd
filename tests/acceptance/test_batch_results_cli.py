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
from tests.commands import status_said

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
    assert 0 == run(shop, "batch", "ingest"), shop.output()
    assert 0 == run(shop, "batch", "run"), shop.output()
    return shop


def said_by(run: Forked, shop: BatchShop, *arguments: str, status: int | None = 0) -> str:
    """The output of a command that ends with this status; None: that of the error which it names."""
    before = len(shop.output())
    ended = run(shop, *arguments)
    assert (status_said(shop.output()[before:]) if status is None else status) == ended, shop.output()[before:]
    assert "Traceback" not in shop.output()[before:]
    return shop.output()[before:]


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
    said = said_by(run, shop, "batch", "export", "--output", str(shop.root / name), status=2)
    assert "request_invalid" in said
    for ending in (".csv", ".jsonl", ".parquet"):
        assert ending in said
    assert not (shop.root / name).exists()
    said_by(run, shop, "batch", "export", "--format", "csv", "--output", str(shop.root / name))
    (shop.root / name).unlink()
    assert ".html" in said_by(run, shop, "batch", "report", "--output", str(shop.root / name), status=2)


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
    assert re.search(r"7 items received: \d done, \d needs? review, 3 quarantined, 1 duplicate\.", html)
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
        assert words in said_by(run, shop, "batch", *arguments, status=1 if arguments == ("retry", "nix") else None), (
            arguments
        )


def test_an_empty_shop_says_that_there_was_no_run(run: Forked, tmp_path: Path) -> None:
    """The whole table is empty then, and still a table."""
    shop = BatchShop(tmp_path).set_up()
    assert "The channel returns has no runs yet." in said_by(run, shop, "batch", "export", status=3)
    said_by(run, shop, "batch", "export", "--all", "--output", str(tmp_path / "all.parquet"))
    assert 0 == pq.read_metadata(tmp_path / "all.parquet").num_rows


def test_quarantined_items_are_tried_again(run: Forked, tmp_path: Path) -> None:
    """Each by itself or all at once; one that cannot be tried again does not keep the others back."""
    shop = BatchShop(tmp_path).set_up()
    for name, data in BROUGHT.items():
        shop.bring(name, data)
    assert 0 == run(shop, "batch", "ingest")
    kept = next(item for item in shop.items() if item.source_name == "=cmd|calc_9.jpg")
    open_store((shop.data / "blobs").as_uri()).delete(kept.key or "")
    assert 0 == run(shop, "batch", "run")
    aside = [item.id for item in shop.items() if item.failure_code == "image_unsupported"]
    lost = next(item for item in shop.items() if item.source_name == "=cmd|calc_9.jpg")
    good = next(item for item in shop.items() if item.state in {ItemState.DONE, ItemState.NEEDS_REVIEW})
    assert lost.failure_code == "image_gone"
    output = said_by(run, shop, "batch", "retry", aside[-1], lost.id, good.id, status=1)
    assert "1 item waits for the next run." in output
    assert f"{aside[-1]}: item_not_ready: Trying again cannot help" in output
    assert f"{good.id}: item_not_ready" in output
    assert "0 items wait for the next run." in said_by(run, shop, "batch", "retry", "--all")
    assert 0 == run(shop, "batch", "run")
    again = [item for item in shop.items() if item.source_name == lost.source_name]
    assert [(lost.id, lost.run_id), (again[0].retried_as, again[1].run_id)] == [
        (each.id, each.run_id) for each in again
    ]
    assert "1 item waits for the next run." in said_by(run, shop, "batch", "retry", "--all")
    # A start that is refused makes no run, and one with nothing that waits says so.
    runs = said_by(run, shop, "batch", "status").splitlines()[0]
    assert "set redis_url" in said_by(run, shop, "batch", "run", "--engine", "workers", status=6)
    assert runs == said_by(run, shop, "batch", "status").splitlines()[0]
    said_by(run, shop, "batch", "run")
    assert "No photos of the channel returns wait, so no run was started." in said_by(run, shop, "batch", "run")


def test_people_answer_on_the_command_line_and_withdraw_it(run: Forked, tmp_path: Path) -> None:
    """A label of the model, none of these, not usable, reopened, deleted; what is impossible is named."""
    shop = BatchShop(tmp_path).set_up()
    for name in ("1001_7.jpg", "1003_<script>alert(1)<.jpg", "1006_3.jpg"):
        shop.bring(name, BROUGHT[name])
    assert 0 == run(shop, "batch", "ingest")
    assert 0 == run(shop, "batch", "run")
    items = {item.source_name: item for item in shop.items()}
    good, other, torn = (items[name].id for name in ("1001_7.jpg", "1003_<script>alert(1)<.jpg", "1006_3.jpg"))

    def state_of(item_id: str) -> tuple[str, str | None]:
        item = next(each for each in shop.items() if each.id == item_id)
        return item.state.value, item.answer.value if item.answer else None

    before = state_of(good)
    assert "1 item labelled." in said_by(run, shop, "batch", "label", good, "--none", "--proposed", "scarf")
    assert ("done", "none_of_these") == state_of(good)
    assert "1 item reopened." in said_by(run, shop, "batch", "reopen", good)
    assert before == state_of(good)
    assert "item_not_ready: Nobody has reviewed" in said_by(run, shop, "batch", "reopen", other, status=1)
    assert "is not a category" in said_by(run, shop, "batch", "label", good, "--label", "nix", status=1)
    assert "2 items labelled." in said_by(run, shop, "batch", "label", good, torn, "--not-usable")
    assert ("dismissed", "not_usable") == state_of(good) == state_of(torn)
    assert "1 item deleted." in said_by(run, shop, "batch", "delete", torn, good, status=1)
    assert "Received 3: " in said_by(run, shop, "batch", "status")
    assert "2 dismissed" in said_by(run, shop, "batch", "status")
    said_by(run, shop, "batch", "label", good, status=2)
