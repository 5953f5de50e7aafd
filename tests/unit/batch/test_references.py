"""What a photo belongs to is told by its name, or by what lies beside it; nonsense tells nothing."""

from __future__ import annotations

import re

import pytest

from shoplens.batch.entities import References
from shoplens.batch.references import compile_pattern, from_name, joined, read_list, read_sidecar
from shoplens.errors import Misconfigured
from shoplens.settings import ChannelBatchSettings

USUAL = re.compile(ChannelBatchSettings().name_pattern)
TOLD = {"a.jpg": References(item="A-12", order="4711", reason="too small"), "b.jpg": References(order="12")}


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
def test_a_name_tells_order_and_item(name: str, order: str | None, item: str | None) -> None:
    """By the pattern of the settings, over the last part without its ending."""
    assert References(order=order, item=item) == from_name(USUAL, name)


def test_a_pattern_of_ones_own_may_name_any_of_the_groups() -> None:
    """And those that it does not name stay unknown."""
    pattern = compile_pattern(r"-(?P<item>\d{3})(?:-(?P<reason>\w+))?$")
    assert References(item="123", reason="torn") == from_name(pattern, "x-123-torn.jpg")
    assert References(item="123") == from_name(pattern, "x-123.jpg")


def test_a_pattern_that_is_none_is_misconfigured() -> None:
    """With the name of the setting."""
    with pytest.raises(Misconfigured, match=r"returns\.name_pattern"):
        compile_pattern("(?P<order>")


def test_what_is_told_first_wins_field_by_field() -> None:
    """So a sidecar with a reason alone keeps what the name says."""
    assert References(item="i", order="o", reason="r") == joined(
        References(reason="r"), References(item="i", order="o", reason="not this")
    )


def test_a_sidecar_is_an_object() -> None:
    """Numbers count as text; anything else in it is passed over."""
    told = read_sidecar("a.jpg.json", b'{"order": 4711, "item": " A-12 ", "reason": ["no"], "more": {}}')
    assert [References(order="4711", item="A-12")] == list(told.by_name.values())


@pytest.mark.parametrize("data", [b"", b"[]", b"7", b"{", b"\xff\xd8\xff\xe0", b"[" * 100_000, b'{"a": NaN}'])
def test_a_sidecar_that_is_none_says_nothing(data: bytes) -> None:
    """But why."""
    told = read_sidecar("a.jpg.json", data)
    assert ({}, True) == (told.by_name, bool(told.fault))


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
def test_a_list_may_have_any_usual_form(name: str, data: bytes) -> None:
    """Commas, semicolons or tabs, quotes, any order of columns, any usual encoding; or JSON."""
    assert TOLD == read_list(name, data).by_name


def test_a_list_in_an_old_encoding_is_read() -> None:
    """As spreadsheets write it in western Europe."""
    told = read_list("l.csv", "file;reason\nrot_größe.jpg;zu groß\n".encode("cp1252"))
    assert {"rot_größe.jpg": References(reason="zu groß")} == told.by_name


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
def test_a_list_that_is_none_says_nothing(name: str, data: bytes) -> None:
    """But why."""
    told = read_list(name, data)
    assert ({}, True) == (told.by_name, bool(told.fault))


def test_a_reference_is_never_endless() -> None:
    """Nor has it control characters."""
    told = read_sidecar("a.jpg.json", b'{"order": "%s", "reason": "a\\u0000\\u001b[2J"}' % (b"9" * 5_000))
    assert [References(order="9" * 200, reason="a\\x00\\x1b[2J")] == list(told.by_name.values())
