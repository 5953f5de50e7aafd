"""All texts are in the catalogues, in all languages, with their values; numbers and days as people write them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime

import jinja2
import pytest
from jinja2 import nodes

from shoplens import messages
from shoplens.messages import (
    DEFAULT,
    FOLDER,
    LANGUAGES,
    gettext,
    localised,
    medium_day,
    ngettext,
    plain_time,
    short_day,
    speaking,
)
from shoplens.messages.page_texts import add_messages
from tools.messages import CALLS, SOURCE, brought_up_to_date, extracted, faults

NO_TEXTS = {
    "Account", "Audit", "Catalogue", "Classify", "Keys", "Models", "Moderation", "Monitoring", "People", "Records",
    "Returns", "Settings", "Webhooks", "Alerts", "Drift", "Accuracy", "Overview", "Suggest", "Review", "Products",
    "Accept many", "Import", "Runs", "Numbers", "Tree", "Customer", "Product",  # names of tabs, and compared with them
    "r, then 1–9", "Shoplens", "cURL", "Python", "JavaScript", "Parquet", "JSON Lines", "Enter", "Esc",
}  # fmt: skip


def test_the_catalogues_have_the_texts_of_the_code() -> None:
    """`python -m tools.messages write` was run after the last change of a text."""
    assert [] == [name for name, content in brought_up_to_date().items() if (FOLDER / name).read_bytes() != content]


@pytest.mark.parametrize("tag", sorted(LANGUAGES.keys() - {DEFAULT}))
def test_every_text_is_translated_with_the_same_values(tag: str) -> None:
    """None is missing or uncertain, and each has the places and marks of the English one."""
    assert [] == faults(tag)


def test_texts_in_expressions_of_templates_are_marked() -> None:
    """What is between the tags needs no mark; a constant that begins like a sentence does."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    add_messages(environment)
    unmarked = {}
    for path in sorted(SOURCE.rglob("templates/*.html")):
        found = {text for text in _constants(environment.parse(path.read_text("utf-8"))) if _is_a_text(text)} - NO_TEXTS
        if found:
            unmarked[path.name] = sorted(found)
    assert {} == unmarked


def _is_a_text(constant: str) -> bool:
    return re.match(r"[A-Z][a-z]|[a-z]+ [a-z]", constant) is not None


def _constants(node: nodes.Node) -> Iterator[str]:
    """The texts in expressions, but for those that are compared, and those of calls that translate."""
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name in CALLS:
        for value in node.kwargs:
            yield from _constants(value)
    elif isinstance(node, nodes.Const) and isinstance(node.value, str):
        yield node.value
    elif not isinstance(node, nodes.Compare | nodes.Extends | nodes.Import):
        for child in node.iter_child_nodes():
            yield from _constants(child)


def test_every_text_of_a_script_is_found() -> None:
    """Calls within `${}` of a template literal or in values of another call are not: they stand before it."""
    known = {each if isinstance(each, str) else each[0] for each in (message.id for message in extracted())}
    calls = re.compile(r'\b(?:n?gettext|marked)\(\s*"((?:[^"\\]|\\.)*)"')
    lost = {
        path.name: texts
        for path in sorted(SOURCE.rglob("static/*.js"))
        if path.name != "messages.js"  # has the functions, with an example
        if (texts := [text for text in calls.findall(path.read_text("utf-8")) if json.loads(f'"{text}"') not in known])
    }
    assert {} == lost


def test_numbers_shares_and_days_are_written_as_in_the_language() -> None:
    """English stays as it is."""
    moment = datetime(2026, 11, 22, 13, 5, tzinfo=UTC)
    english = (localised("1,234.5"), localised("87.4%"), plain_time(moment), short_day(moment))
    assert ("1,234.5", "87.4%", "2026-11-22 13:05 UTC", "22 Nov") == english
    with speaking("de"):
        german = (localised("1,234.5"), localised("87.4%"), plain_time(moment), short_day(moment))
    assert ("1.234,5", "87,4\N{NO-BREAK SPACE}%", "22.11.2026, 13:05 UTC", "22. Nov.") == german


def test_a_number_decides_on_the_form_of_a_text() -> None:
    """It is written with the marks of the language."""
    forms = "%(number)s photo", "%(number)s photos"
    with speaking("de"):
        assert ["0 Fotos", "1 Foto", "1.234 Fotos"] == [ngettext(*forms, number) for number in (0, 1, 1234)]
    assert "1,234 photos" == ngettext(*forms, 1234)


def test_values_are_put_where_the_language_wants_them() -> None:
    """An unknown text stays English; one without values has no percent signs to spare."""
    with speaking("de"):
        assert "3 von 9" == gettext("%(done)s of %(total)s", done=3, total=9)
        assert "Unter 50 %" == gettext("Below 50%%")
        assert "No such text" == messages.known("No such text")
        assert "" == gettext("")


def test_a_day_in_a_table_is_short_in_every_language() -> None:
    """With its year, since a table may begin in another one."""
    day = date(2026, 11, 2)
    assert "2 Nov 2026" == medium_day(day)
    with speaking("de"):
        assert "02.11.2026" == medium_day(day)
