"""Names, sidecars and lists say what a photo belongs to; unusable ones are refused with a reason."""

from __future__ import annotations

import os
import re

import pytest

from shoplens.batch.entities import References
from shoplens.batch.sidecars import (
    SidecarError,
    compile_pattern,
    is_ignored,
    is_sidecar,
    merge_references,
    parse_list,
    parse_sidecar,
    readable,
    references_in_name,
    sidecar_photo,
)
from shoplens.errors import Misconfigured
from shoplens.setting_groups import ChannelBatchSettings

USUAL = re.compile(ChannelBatchSettings().name_pattern)
LISTED = {"a.jpg": References(item="A-12", order="4711", reason="too small"), "b.jpg": References(order="12")}


@pytest.mark.parametrize(
    ("name", "order", "item"),
    [
        ("4711_A-12_1.jpg", "4711", "A-12"),
        ("monday/4711_A-12_1.tar.jpg", "4711", "A-12"),
        ("4711_A-12", "4711", "A-12"),
        ("photo.jpg", None, None),
        ("_.jpg", None, None),
        ("\\n_\\xff.jpg", "\\n", "\\xff"),
    ],
)
def test_a_name_contains_order_and_item(name: str, order: str | None, item: str | None) -> None:
    """The pattern of the settings is applied to the last part without its extension."""
    assert References(order=order, item=item) == references_in_name(USUAL, name)


def test_a_pattern_may_have_any_of_the_groups() -> None:
    """The others stay unknown."""
    pattern = compile_pattern(r"-(?P<item>\d{3})(?:-(?P<reason>\w+))?$")
    assert References(item="123", reason="torn") == references_in_name(pattern, "x-123-torn.jpg")
    assert References(item="123") == references_in_name(pattern, "x-123.jpg")


def test_an_invalid_pattern_is_misconfigured() -> None:
    """With the name of the setting."""
    with pytest.raises(Misconfigured, match="name_pattern"):
        compile_pattern("(?P<order>")


def test_the_first_source_of_each_field_wins() -> None:
    """A sidecar that has only a reason keeps order and item from the name."""
    assert References(item="i", order="o", reason="r") == merge_references(
        References(reason="r"), References(item="i", order="o", reason="not this")
    )


def test_a_sidecar_is_an_object() -> None:
    """Numbers count as text; other values are ignored."""
    data = b'{"order": 4711, "item": " A-12 ", "reason": ["no"], "more": {}}'
    assert References(order="4711", item="A-12") == parse_sidecar(data)


@pytest.mark.parametrize("data", [b"", b"[]", b"7", b"{", b"\xff\xd8\xff\xe0", b"[" * 100_000, b'{"a": NaN}'])
def test_an_unusable_sidecar_is_refused(data: bytes) -> None:
    """With the reason."""
    with pytest.raises(SidecarError, match="it is not"):
        parse_sidecar(data)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("l.csv", b"file,item,order,reason\na.jpg,A-12,4711,too small\nb.jpg,,12,\n"),
        ("l.CSV", "\ufeffFile; Order ;ITEM;Reason\r\na.jpg;4711;A-12;too small\r\nb.jpg;12\r\n".encode()),
        ("l.csv", "file\torder\titem\treason\na.jpg\t4711\tA-12\ttoo small\nb.jpg\t12".encode("utf-16")),
        ("l.csv", b'"reason","file","item","order"\n"too small","a.jpg","A-12","4711"\n,b.jpg,,12\n,,,\n'),
        (
            "l.json",
            b'[{"file": "a.jpg", "item": "A-12", "order": 4711, "reason": "too small"},'
            b'{"file": "b.jpg", "order": "12"}, 3]',
        ),
    ],
)  # fmt: skip
def test_a_list_may_have_any_usual_format(name: str, data: bytes) -> None:
    """Commas, semicolons or tabs, quotes, any order of columns, any usual encoding; or JSON."""
    assert LISTED == parse_list(name, data)


def test_a_list_in_an_old_encoding_is_read() -> None:
    """As spreadsheets write it in western Europe."""
    data = "file;reason\nrot_größe.jpg;zu groß\n".encode("cp1252")
    assert {"rot_größe.jpg": References(reason="zu groß")} == parse_list("l.csv", data)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("l.csv", b""),
        ("l.csv", b"name,order\na.jpg,1\n"),
        ("l.csv", b"file,order\n\0\0\0"),
        ("l.csv", b"file,order\n" + b"a" * 200_000),
        ("l.csv", b"\xff\xd8\xff\xe0" * 100),
        ("l.json", b"{}"),
        ("l.json", b"[1, 2]"),
        ("l.json", b"not json"),
        ("l.json", b"[" * 5_000),
    ],
)
def test_an_unusable_list_is_refused(name: str, data: bytes) -> None:
    """With the reason."""
    with pytest.raises(SidecarError, match=r"it is not|it names no photo"):
        parse_list(name, data)


def test_a_reference_is_cut_and_has_no_control_characters() -> None:
    """So that it can be stored and printed."""
    references = parse_sidecar(b'{"order": "%s", "reason": "a\\u0000\\u001b[2J"}' % (b"9" * 5_000))
    assert References(order="9" * 200, reason="a\\x00\\x1b[2J") == references


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("4711_A12_1.jpg", "4711_A12_1.jpg"),
        ("Größe 'M' \"😀\".jpg", "Größe 'M' \"😀\".jpg"),
        ("a\nb\t\x1b[31m.jpg", "a\\nb\\t\\x1b[31m.jpg"),
        (os.fsdecode(b"caf\xe9.jpg"), "caf\\xe9.jpg"),
        ("half \ud800 pair", "half \\ud800 pair"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("../../etc/passwd", "../../etc/passwd"),
        ("", ""),
    ],
)
def test_every_name_becomes_readable(name: str, expected: str) -> None:
    """It can be stored, and printing it neither moves the cursor nor breaks the line."""
    assert expected == readable(name)


def test_a_very_long_name_keeps_both_ends_and_stays_different() -> None:
    """It fits into an index of the database."""
    names = [readable("a" * 5_000 + middle + "é" * 5_000 + ".jpg") for middle in "xy"]
    assert 2 == len(set(names))
    assert all(len(name.encode()) <= 1_000 and name.endswith("é.jpg") and name.startswith("aaa") for name in names)


@pytest.mark.parametrize(
    "name", [".a.jpg", "a.jpg.part", "A.JPG.PART", "a.tmp", "a.filepart", "a.crdownload", "a.jpg~", ".nfs0001"]
)
def test_hidden_and_unfinished_files_are_ignored(name: str) -> None:
    """Upload programs use such names."""
    assert is_ignored(name)


def test_a_sidecar_is_named_after_its_photo() -> None:
    """All other JSON and CSV files are lists."""
    found = {
        name: sidecar_photo(name) for name in ("a.jpg.json", "A.HEIC.JSON", "a.json", "a.csv.json", "a.csv", "a.jpg")
    }
    assert {"a.jpg": "a.jpg.json", "A.HEIC": "A.HEIC.JSON"} == {photo: name for name, photo in found.items() if photo}
    assert [True, True, False] == [is_sidecar(name) for name in ("a.jpg.json", "b.CSV", "c.jpg")]
