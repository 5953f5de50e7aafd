"""Tables of products: encodings, separators, broken quotes, and which column is what."""

from __future__ import annotations

import io
import time

import pytest

from shoplens.catalogue.errors import ImportInvalid
from shoplens.catalogue.imports.columns import columns_of
from shoplens.catalogue.imports.rows import BadRow, ProductTable


def read(data: bytes) -> list[tuple[int, object]]:
    """Each row as its line with its values, or with the code of its fault."""
    return [
        (row.line, row.code if isinstance(row, BadRow) else tuple(row.values.values()))
        for row in ProductTable(io.BytesIO(data))
    ]


TABLE = 'sku;title\nA-1;"Rock, grün; "\nA-2;Hose — “weit”\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
def test_every_usual_encoding_is_read(encoding: str) -> None:
    """With and without a mark; the last one is what old spreadsheets write."""
    assert [(2, ("A-1", "Rock, grün; ")), (3, ("A-2", "Hose — “weit”"))] == read(TABLE.encode(encoding))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_every_usual_separator_and_line_end_is_read(separator: str, line_end: str) -> None:
    """The header says which separator it is."""
    text = f"sku{separator}title{line_end}A-1{separator}Shirt{line_end}{line_end}A-2{separator}Skirt"
    assert [(2, ("A-1", "Shirt")), (4, ("A-2", "Skirt"))] == read(text.encode())


def test_a_text_may_have_line_breaks_and_quotes() -> None:
    """Its row is named by its first line."""
    table = b'sku,title\nA-1,"Two\nlines, and ""quotes"""\nA-2,5" nail\n'
    assert [(2, ("A-1", 'Two\nlines, and "quotes"')), (4, ("A-2", '5" nail'))] == read(table)


def test_a_quote_that_nobody_closed_costs_one_row() -> None:
    """Whether another quote follows later, or none."""
    table = b'sku,title\nA-1,"Broken\nA-2,Good\nA-3,"Also, good"\nA-4,"Open again\nA-5,Last\n'
    assert [
        (2, "quote_not_closed"), (3, ("A-2", "Good")), (4, ("A-3", "Also, good")), (5, "quote_not_closed"),
        (6, ("A-5", "Last")),
    ] == read(table)  # fmt: skip


def test_rows_of_another_width_are_told_apart() -> None:
    """Missing fields are empty; too many are a fault, unless they are empty."""
    table = b'sku,title\nA-1\nA-2,Shirt,,\nA-3,Shirt,red\nA-4,"Good" text\n'
    assert [(2, ("A-1",)), (3, ("A-2", "Shirt")), (4, "row_too_wide"), (5, ("A-4", "Good text"))] == read(table)


def test_a_huge_line_is_skipped_and_a_huge_field_is_a_fault() -> None:
    """Nothing of either is kept in memory."""
    table = b"sku,title\nA-1," + b"x" * 3_000_000 + b"\nA-2," + b"x" * 200_000 + b"\nA-3,Shirt\n"
    assert [(2, "row_too_long"), (3, "row_unreadable"), (4, ("A-3", "Shirt"))] == read(table)


@pytest.mark.parametrize(("data", "words"), [(b"", "empty"), (b"\n \n", "empty"), (b"sku,SKU\n1,2\n", "twice")])
def test_a_file_without_usable_columns_is_refused(data: bytes, words: str) -> None:
    """With a sentence."""
    with pytest.raises(ImportInvalid, match=words):
        read(data)


def test_columns_are_guessed_from_the_names_that_shop_systems_give() -> None:
    """In several languages; what the user says counts more."""
    shop = columns_of(["Handle", "Title", "Body (HTML)", "Product Category", "Image Src"])
    assert ("Handle", "Title", "Body (HTML)", "Product Category", ("Image Src",)) == (
        shop.reference, shop.designation, shop.description, shop.category, shop.photos,
    )  # fmt: skip
    german = columns_of(["Artikelnummer", "Bezeichnung", "Bild1", "Bild2"], {"designation": "Bild2"})
    assert ("Artikelnummer", "Bild2", ("Bild1",)) == (german.reference, german.designation, german.photos)
    assert ("a.jpg", "b.jpg", "c.jpg") == shop.photos_of({"Image Src": "a.jpg | b.jpg\nc.jpg"})


def test_the_format_of_the_challenge_is_known_by_its_columns() -> None:
    """The name of a photo follows from two numbers."""
    columns = columns_of(["", "designation", "description", "productid", "imageid"])
    assert ("productid", "", None) == (columns.reference, columns.index, columns.category)
    assert ("image_7_product_5.jpg",) == columns.photos_of({"productid": "5", "imageid": "7"})


@pytest.mark.parametrize(("header", "chosen", "words"), [
    (["title"], {}, "reference"),
    (["sku", "price"], {}, "title, a description or a photo"),
    (["sku", "title"], {"designation": "titel"}, "did you mean 'title'"),
    (["sku", "title"], {"name": "title"}, "no field 'name'"),
])  # fmt: skip
def test_missing_columns_are_named(header: list[str], chosen: dict[str, str], words: str) -> None:
    """And what to do."""
    with pytest.raises(ImportInvalid, match=words):
        columns_of(header, chosen)


@pytest.mark.parametrize(
    "header", ["sku," + ",".join(f"c{n}" for n in range(60_000)), f"sku,{'x' * 130_000},{'y' * 130_000}"]
)
def test_a_first_line_that_is_no_header_is_refused_in_a_moment(header: str) -> None:
    """Comparing its names with one another would take minutes."""
    began = time.thread_time()
    with pytest.raises(ImportInvalid, match="is it the table of products"):
        ProductTable(io.BytesIO(header.encode()))
    assert time.thread_time() - began < 0.5


def test_quotes_that_are_opened_in_every_line_do_not_hold_an_import_for_days() -> None:
    """After a thousand of them each line stands for itself; the time grows with the length of the file only."""
    line = 'x",""",' + "z" * 90 + "\n"
    data = b"sku,title\n" + line.encode() * 3_000
    began = time.thread_time()
    found = read(data)
    assert time.thread_time() - began < 6
    assert [(2, "quote_not_closed"), (3_001, "quote_not_closed")] == [found[0], found[-1]]
    assert 3_000 == len(found)
