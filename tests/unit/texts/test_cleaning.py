"""Texts are cleaned and bounded before they are stored or shown."""

from __future__ import annotations

import time

import pytest

from shoplens.texts.cleaning import DESCRIPTION_CHARACTERS, TITLE_CHARACTERS, clean


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("  Blue\t\n dress  ", "Blue dress"),
        ("<p>Blue<br/>dress</p>", "Blue dress"),
        ("Blue <script>alert('<b>')</script>dress<style>p {}", "Blue dress"),
        ("Blue <!-- hidden --> dress <!-- for ever", "Blue dress"),
        ("H&amp;M &lt;b&gt;dress&lt;/b&gt; 5&nbsp;&euro;", "H&M dress 5 €"),
        ("size < 40 & > 30, I <3 it", "size < 40 & > 30, I <3 it"),
        ("\u202eevil\u202c \u200edress\u200f \u2066x\u2069", "evil dress x"),
        ("a\x00b\x1bc\x7f d\u0085e", "abc d e"),
        ("soft\u00adhyphen zero\u200bwidth \ufeffmark", "softhyphen zerowidth mark"),
        ("half \ud83d pair", "half pair"),
        ("&#x202e;turned&#0;", "turned\ufffd"),
        ("cafe\u0301", "café"),
        ("z" + "\u0301" * 500, "ź\u0301\u0301"),
        ("👨‍👩‍👧 می\u200cخواهم हिन्दी ชุด 連衣裙", "👨‍👩‍👧 می\u200cخواهم हिन्दी ชุด 連衣裙"),
        ("", ""),
        ("<br>", ""),
    ],
)
def test_markup_and_hidden_characters_are_removed_and_blanks_are_one(raw: str, expected: str) -> None:
    """Of HTML the text, of hidden characters nothing."""
    assert clean(raw, TITLE_CHARACTERS) == expected


def test_a_cleaned_text_can_be_stored_as_utf8_and_stays_as_it_is() -> None:
    """Every character of the first planes, and halves of pairs."""
    raw = "".join(chr(code) for code in range(0x3000)) + "\ud800\udfff" + "e\u0301" * 10
    cleaned = clean(raw, DESCRIPTION_CHARACTERS)
    assert cleaned.encode().decode() == cleaned
    assert clean(cleaned, DESCRIPTION_CHARACTERS) == cleaned


@pytest.mark.parametrize(
    "unit",
    ["dress ", "<script>", "<style ", "<!--", "<a", "&lt;", "</script", "\u0301", "\u202e", "&#x202e;", "<b>x</b>"],
)
def test_a_megabyte_is_cut_quickly_whatever_it_is(unit: str) -> None:
    """Also where markup begins and never ends."""
    began = time.thread_time()
    assert len(clean(unit * (1_000_000 // len(unit)), DESCRIPTION_CHARACTERS)) <= DESCRIPTION_CHARACTERS
    assert time.thread_time() - began < 1.0


def test_the_text_within_much_markup_is_found() -> None:
    """Markup may be longer than its text."""
    rows = "".join(f'<td class="cell">word{number}</td>' for number in range(40))
    assert clean(f"<table>{rows}</table>", 400).startswith("word0 word1 word2")
