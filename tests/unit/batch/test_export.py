"""Tables that other programs can trust: every row, every sign of every text, whatever the format."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoplens.batch.entities import BatchItem, ItemFilter, ItemState, References, TableRow
from shoplens.batch.export import COLUMNS, ExportFormat, ExportItems, write_table
from shoplens.batch.review import ReviewService
from shoplens.bundles.manifest import ModelRef
from shoplens.errors import DatabaseUnavailable, RunNotFound
from tests.samples import NOON
from tests.unit.batch.results_shop import Fate, Shop, needing_review, quarantined
from tools.project import ROOT

ALL = list(ExportFormat)
HOSTILE = (
    '=HYPERLINK("http://x.example","y")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1",
    'a "quoted", name\r\nand more',
    "<script>alert(1)</script>", "\u202egpj.exe", "水差し 🧥", "'", "\x00\x07", "NULL", "nan", "1e5", "01", "",
)  # fmt: skip


def rows_of(data: bytes, format: ExportFormat) -> list[dict[str, Any]]:
    """The rows, as far as the format can tell them: CSV knows only texts."""
    match format:
        case ExportFormat.CSV:
            return list(csv.DictReader(io.StringIO(data.decode(), newline="")))
        case ExportFormat.JSONL:
            return [json.loads(line) for line in data.decode().split("\n") if line]
        case ExportFormat.PARQUET:
            return list(pq.read_table(io.BytesIO(data)).to_pylist())


def table_row(**changes: Any) -> TableRow:
    """A row with everything filled in."""
    item = BatchItem(
        channel="returns",
        id="i" * 26, seq=1, received_at=NOON, source_name="a.jpg", sha256="0" * 64, byte_count=10,
        state=ItemState.DONE, references=References(item="7", order="42", reason="small"), key="returns/x.jpg",
        run_id="r" * 26, predicted="dress", score=0.1 + 0.2, label="hat", corrected_at=NOON + timedelta(days=1),
        finished_at=NOON, work_ms=1.125,
    )  # fmt: skip
    model = ModelRef(name="clothing", version="2.1.0")
    return TableRow(item=replace(item, **changes), model=model, threshold=0.8)


@pytest.fixture
def export(shop: Shop) -> ExportItems:
    """Over the shop."""
    return ExportItems(shop.database)


@pytest.mark.parametrize("format", ALL)
def test_a_run_with_every_kind_of_item_is_exported_row_by_row(
    shop: Shop, export: ExportItems, format: ExportFormat
) -> None:
    """Every kind of item, also refused on arrival and repeated: in the order of arrival, each once."""
    done = shop.arrive("done.jpg")
    corrected = shop.arrive("corrected.jpg", fate=needing_review("dress", 0.5))
    shop.arrive("review.jpg", fate=needing_review("hat", 0.25))
    aside = shop.arrive("aside.jpg", fate=quarantined("image_corrupt", "It is cut off."))
    again = shop.repeat(done, "again.jpg")
    run = shop.run()
    shop.arrive("tomorrow.jpg")
    review = ReviewService(shop.database, shop.store, labels={"returns": ("coat",)}, clock=shop.tick)
    review.label(corrected.id, "coat")
    rows = rows_of(b"".join(export.stream(ItemFilter(run_id=run.id), format)), format)
    none: object = "" if format is ExportFormat.CSV else None
    assert list(COLUMNS) == list(rows[0])
    assert [
        ("done.jpg", "done", "dress", "dress", none),
        ("corrected.jpg", "done", "coat", "dress", none),
        ("review.jpg", "needs_review", "hat", "hat", none),
        ("aside.jpg", "quarantined", none, none, none),
        ("again.jpg", "duplicate", none, none, done.id),
    ] == [tuple(row[name] for name in ("source_name", "state", "label", "predicted", "duplicate_of")) for row in rows]
    assert [("clothing", "2.1.0")] * 3 == [(row["model"], row["model_version"]) for row in rows[:3]]
    assert [run.id, none] == [rows[3]["run"], rows[4]["run"]]
    assert ("image_corrupt", "It is cut off.") == (rows[3]["failure_code"], rows[3]["failure"])
    assert [shop.item(item).key or none for item in (done, corrected, aside, again)] == [
        rows[number]["photo"] for number in (0, 1, 3, 4)
    ]


def test_every_arrival_is_in_the_table_of_exactly_one_run(shop: Shop, export: ExportItems) -> None:
    """Over several runs with duplicates, refusals and retries, each row appears once."""
    first = shop.arrive("0.jpg")
    retried = shop.arrive("1.jpg", fate=quarantined("image_decoder_failed", "It ran out of time."))
    shop.refuse("2.jpg")
    runs = [shop.run()]
    shop.repeat(first, "3.jpg")
    review = ReviewService(shop.database, shop.store, labels={"returns": ()}, clock=shop.tick)
    again = review.retry(retried.id)
    shop.arrive("4.jpg")
    runs.append(shop.run())
    runs.append(shop.run())
    shop.repeat(first, "5.jpg")
    shop.arrive("6.jpg")
    runs.append(shop.run())
    tables = [
        [row["id"] for row in rows_of(b"".join(export.stream(ItemFilter(run_id=run.id), ExportFormat.JSONL)), ALL[1])]
        for run in runs
    ]
    everything = [row["id"] for row in rows_of(b"".join(export.stream(ItemFilter(), ExportFormat.JSONL)), ALL[1])]
    assert sorted(everything) == sorted(item_id for table in tables for item_id in table)
    assert [4, 3, 0, 2] == [len(table) for table in tables]
    assert (True, True) == (retried.id in tables[0], again.id in tables[1])


@pytest.mark.parametrize("format", ALL)
def test_an_empty_table_is_a_valid_file(shop: Shop, export: ExportItems, format: ExportFormat) -> None:
    """With its header or its schema."""
    data = b"".join(export.stream(ItemFilter(run_id=shop.run().id), format))
    assert [] == rows_of(data, format)
    if format is ExportFormat.CSV:
        assert ",".join(COLUMNS) + "\r\n" == data.decode()
    if format is ExportFormat.PARQUET:
        assert list(COLUMNS) == pq.read_schema(io.BytesIO(data)).names


def test_an_unknown_run_is_an_error_before_the_first_byte(export: ExportItems) -> None:
    """Not in the middle of a download."""
    with pytest.raises(RunNotFound):
        export.stream(ItemFilter(run_id="nix"), ExportFormat.CSV)


def test_filters_choose_rows(shop: Shop, export: ExportItems) -> None:
    """By state, label, and the beginning of a reference, within a run or over all."""
    shop.arrive("a.jpg", fate=Fate(label="hat"), references=References(order="77_1"))
    shop.arrive("b.jpg", fate=Fate(label="dress"), references=References(item="77x1"))
    run = shop.run()
    shop.arrive("c.jpg", references=References(item="77_2"))

    def names(wanted: ItemFilter) -> list[str]:
        return [row["source_name"] for row in rows_of(b"".join(export.stream(wanted, ALL[1])), ALL[1])]

    assert ["a.jpg"] == names(ItemFilter(run_id=run.id, label="hat"))
    assert ["c.jpg"] == names(ItemFilter(state=ItemState.WAITING))
    assert ["a.jpg", "c.jpg"] == names(ItemFilter(text="77_"))
    assert ["a.jpg"] == names(ItemFilter(run_id=run.id, text="77_"))


def test_parquet_columns_have_types() -> None:
    """Moments in UTC, numbers as numbers, exactly."""
    zone = timezone(timedelta(hours=5, minutes=30))
    rows = [
        table_row(received_at=datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC).astimezone(zone)),
        table_row(),
    ]
    table = pq.read_table(io.BytesIO(b"".join(write_table(rows, ExportFormat.PARQUET))))
    kinds = {field.name: field.type for field in table.schema}
    assert {pa.timestamp("us", tz="UTC")} == {kinds[name] for name in ("received_at", "corrected_at", "finished_at")}
    assert {pa.float64()} == {kinds[name] for name in ("score", "threshold", "work_ms")}
    moments_and_numbers = {"received_at", "corrected_at", "finished_at", "score", "threshold", "work_ms"}
    assert {pa.string()} == {kind for name, kind in kinds.items() if name not in moments_and_numbers}
    assert [datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), NOON] == table["received_at"].to_pylist()
    assert [0.1 + 0.2] * 2 == table["score"].to_pylist()
    assert [1.125, 1.125] == table["work_ms"].to_pylist()


def test_parquet_is_written_in_row_groups() -> None:
    """So that neither writer nor reader needs it all in memory."""
    data = b"".join(write_table((table_row() for _ in range(60_000)), ExportFormat.PARQUET))
    file = pq.ParquetFile(io.BytesIO(data))
    assert (60_000, 2) == (file.metadata.num_rows, file.num_row_groups)
    assert 50_000 == file.metadata.row_group(0).num_rows


@pytest.mark.parametrize("format", list(ExportFormat))
def test_a_database_that_fails_while_exporting_raises_its_own_error(format: ExportFormat) -> None:
    """In the middle of any table, by its own error."""

    def rows() -> Iterator[TableRow]:
        yield from [table_row()] * 6_000
        raise DatabaseUnavailable("It does not answer.")

    with pytest.raises(DatabaseUnavailable, match="does not answer"):
        list(write_table(rows(), format))


@pytest.mark.parametrize("format", [ExportFormat.CSV, ExportFormat.JSONL])
def test_text_formats_are_sent_as_they_are_read(format: ExportFormat) -> None:
    """No more rows are taken than are sent."""
    taken = 0

    def rows() -> Iterator[TableRow]:
        nonlocal taken
        for _ in range(10_000):
            taken += 1
            yield table_row()

    list(islice(write_table(rows(), format), 2))
    assert taken <= 1_000


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_one_value_and_never_runs(text: str) -> None:
    """In every format it comes back whole; in CSV nothing starts as a formula does."""
    row = table_row(source_name=text, label=text, references=References(item=text, order=text, reason=text))
    written = {
        ExportFormat.CSV: b"".join(write_table([row], ExportFormat.CSV)),
        ExportFormat.JSONL: b"".join(write_table([row], ExportFormat.JSONL)),
        ExportFormat.PARQUET: b"".join(write_table([row], ExportFormat.PARQUET)),
    }
    for each, data in written.items():
        (read,) = rows_of(data, each)
        for name in ("source_name", "label", "item", "order", "reason"):
            shown = read[name].replace("'", "") if each is ExportFormat.CSV and text != "'" else read[name]
            assert text == shown
        if each is ExportFormat.CSV:
            assert not re.search(r"(^|[\t\r\n;])[=+\-@]", read["label"])


TEXT = st.text(st.characters(codec="utf-8"), max_size=30)


@settings(deadline=None, max_examples=60)
@given(texts=st.lists(st.tuples(TEXT, TEXT, st.one_of(st.none(), TEXT)), max_size=5))
def test_any_text_comes_back_from_every_format(texts: list[tuple[str, str, str | None]]) -> None:
    """As many rows as went in, each with its own texts."""
    rows = [
        table_row(source_name=name, label=label, references=References(order=order)) for name, label, order in texts
    ]
    for each in (ExportFormat.JSONL, ExportFormat.PARQUET):
        read = rows_of(b"".join(write_table(rows, each)), each)
        assert texts == [(row["source_name"], row["label"], row["order"]) for row in read]
    cells = list(csv.reader(io.StringIO(b"".join(write_table(rows, ExportFormat.CSV)).decode(), newline="")))
    assert [len(COLUMNS)] * (len(texts) + 1) == [len(row) for row in cells]
    assert not [cell for row in cells for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]


def test_the_columns_are_those_that_are_documented() -> None:
    """In their order."""
    page = (ROOT / "docs" / "how-to" / "read-the-results.md").read_text()
    table = page[page.index("| column |") :]
    named = [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert list(COLUMNS) == named
