"""CSV that spreadsheets cannot be tricked with."""

from __future__ import annotations

import pytest

from shoplens.predictions.export import spreadsheet_safe


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_text_that_would_run_as_a_formula_is_disarmed(text: str) -> None:
    """An apostrophe makes it text."""
    assert f"'{text}" == spreadsheet_safe(text)


@pytest.mark.parametrize(("value", "cell"), [("a dog", "a dog"), (0.5, 0.5), (None, ""), (-1.5, -1.5)])
def test_other_values_stay_as_they_are(value: object, cell: object) -> None:
    """Numbers too: they cannot run."""
    assert cell == spreadsheet_safe(value)
