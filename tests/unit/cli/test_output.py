"""What commands print: for people on a terminal, and for programs in a pipe."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from shoplens.cli.output import Cell, Manner, Value, show_facts, show_table, speak, visible

HEADS = ("MODEL", "PHOTOS", "SHARE", "SINCE")
ROWS = (
    ("clothing", 12_345, Cell(shown="87.0%", plain=0.87, right=True), datetime(2026, 3, 3, 14, 30, tzinfo=UTC)),
    ("a\x1b[31mred\tcap\n", 7, None, None),
)


class Screen(io.StringIO):
    """Standard output that is a terminal."""

    def isatty(self) -> bool:
        """See StringIO."""
        return True


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What a function prints on a terminal of this width."""

    def printed(show: Callable[[], None], *, width: int = 80, **environment: str) -> str:
        for name in ("NO_COLOR", "TERM"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"COLUMNS": str(width), **environment}.items():
            monkeypatch.setenv(name, value)
        shown = Screen()
        monkeypatch.setattr(sys, "stdout", shown)
        show()
        return shown.getvalue()

    return printed


def test_programs_get_tab_separated_rows_without_headings(capsys: pytest.CaptureFixture[str]) -> None:
    """Plain numbers and moments; what is unknown is empty, and no byte of the data ends a row or a cell."""
    show_table(HEADS, ROWS, nothing="Nothing.")
    assert capsys.readouterr().out.splitlines() == [
        "clothing\t12345\t0.87\t2026-03-03T14:30:00Z",
        "a\\x1b[31mred\\tcap\\n\t7\t\t",
    ]


def test_people_get_columns_with_numbers_on_the_right(screen: Callable[..., str]) -> None:
    """Headings, thousands, and never a control character of the data."""
    said = screen(lambda: show_table(HEADS, ROWS, nothing="Nothing."), NO_COLOR="1")
    assert said.splitlines() == [
        "MODEL                PHOTOS  SHARE  SINCE",
        "clothing             12,345  87.0%  2026-03-03 14:30 UTC",
        "a\\x1b[31mred\\tcap\\n       7      –  –",
    ]


def test_a_table_is_folded_into_a_narrow_terminal(screen: Callable[..., str]) -> None:
    """Nothing is cut off."""
    rows = [("one", "a long sentence that does not fit into forty columns at all"), ("two", "short")]
    said = screen(lambda: show_table(("NAME", "WHY"), rows, nothing=""), width=40, NO_COLOR="1").splitlines()
    assert max(map(len, said)) <= 40
    words = " ".join(line[5:] for line in said[1:])
    assert "a long sentence that does not fit into forty columns at all short" == " ".join(words.split())
    run_id = "01m80fpm7ftrhyqph7s0gbmapm"
    runs = screen(lambda: show_table(("RUN", "WHY"), [(run_id, *row[1:]) for row in rows], nothing=""), width=40)
    assert 2 == runs.count(run_id), "an id that is broken cannot be copied"


@pytest.mark.parametrize(
    ("colour", "environment", "coloured"),
    [("auto", {}, True), ("auto", {"NO_COLOR": "1"}, False), ("auto", {"TERM": "dumb"}, False),
     ("never", {}, False), ("always", {"NO_COLOR": "1"}, True)],
)  # fmt: skip
def test_colour_is_for_terminals_that_want_it(
    screen: Callable[..., str], colour: str, environment: dict[str, str], coloured: bool
) -> None:
    """`--color` decides, then NO_COLOR."""
    speak(Manner(colour=colour))  # type: ignore[arg-type]
    try:
        said = screen(
            lambda: show_table(("STATE",), [(Cell(shown="ok", plain="ok", mood="good"),)], nothing=""), **environment
        )
    finally:
        speak(Manner())
    assert coloured is ("\x1b[32m" in said)


def test_without_rows_a_sentence_is_said_where_it_disturbs_no_program(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error."""
    show_table(HEADS, [], nothing="There is no model.")
    assert ("", "There is no model.\n") == tuple(capsys.readouterr())


def test_facts_are_aligned_for_people_and_complete_for_programs(
    screen: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """People do not read what is unknown."""
    facts: dict[str, Value | Cell] = {"run": "01J", "took": Cell(shown="2 min", plain=120.0), "failure": None}
    show_facts(facts)
    assert "run\t01J\ntook\t120.0\nfailure\t\n" == capsys.readouterr().out
    assert "run   01J\ntook  2 min\n" == screen(lambda: show_facts(facts), NO_COLOR="1")


def test_letters_of_all_languages_stay_as_they_are() -> None:
    """What turns the direction of a line does not."""
    assert "Größe 尺寸 👩‍🔧" == visible("Größe 尺寸 👩‍🔧")
    assert "a\\u202eb" == visible("a\u202eb")
