"""CSV that spreadsheets cannot be tricked with."""

from __future__ import annotations

import pytest

from shoplens.spreadsheets import spreadsheet_safe


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t1", "\r1", "\n1", "＝1", "＋1", "－1", "＠A", " =1", '"=1']
)
def test_text_that_would_run_as_a_formula_is_disarmed(text: str) -> None:
    """An apostrophe makes it text."""
    assert f"'{text}" == spreadsheet_safe(text)


@pytest.mark.parametrize(("value", "cell"), [("a dog", "a dog"), (0.5, 0.5), (None, ""), (-1.5, -1.5)])
def test_other_values_stay_as_they_are(value: object, cell: object) -> None:
    """Numbers too: they cannot run."""
    assert cell == spreadsheet_safe(value)


@pytest.mark.parametrize("separator", [";", ",", "|"])
@pytest.mark.parametrize("formula", ["=1+1", "＝cmd()", " @A1", '"+1'])
def test_formulas_after_a_separator_are_disarmed(separator: str, formula: str) -> None:
    """A spreadsheet that expects another separator splits the text there."""
    assert f"shoe{separator}'{formula}" == spreadsheet_safe(f"shoe{separator}{formula}")


@pytest.mark.parametrize("separator", ["\t", "\r", "\n", "\r\n"])
def test_formulas_in_a_later_line_or_column_are_disarmed(separator: str) -> None:
    """Within a text of several lines."""
    assert f"shoe{separator}'=1" == spreadsheet_safe(f"shoe{separator}=1")


@pytest.mark.parametrize("text", ["T-shirt; size M", "a - b", "1,5-2", "x=1", "mail@shop.example", "it's; fine"])
def test_signs_within_a_text_stay(text: str) -> None:
    """They begin no cell."""
    assert text == spreadsheet_safe(text)
