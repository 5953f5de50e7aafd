"""Texts of templates become messages without a mark."""

from __future__ import annotations

import jinja2
import pytest

from shoplens.messages import language
from shoplens.messages.page_texts import PageTexts, add_messages


def marked(source: str) -> str:
    """The template as it is compiled."""
    return PageTexts(jinja2.Environment(autoescape=True)).preprocess(source, None)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("<p>Open</p>", '<p>{{ gettext("Open") }}</p>'),
        ("<p>\n  Open\n</p>", '<p>\n  {{ gettext("Open") }}\n</p>'),
        ("<p>Since {{ run.start | day }}.</p>", '<p>{{ gettext("Since %(start)s.", start=(run.start | day)) }}</p>'),
        ("{{ icon('left') }}Back", "{{ icon('left') }}{{ gettext(\"Back\") }}"),
        ("<b>{{ n }}</b> of {{ m }}", '{{ gettext("<b>%(n)s</b> of %(m)s", n=(n), m=(m)) }}'),
        ("<p><b>Is</b> <i>so</i></p>", '<p><b>{{ gettext("Is") }}</b> <i>{{ gettext("so") }}</i></p>'),
        ('<a href="/x{{ y }}">See</a> it', '<a href="/x{{ y }}">{{ gettext("See") }}</a> {{ gettext("it") }}'),
        ("{% if a > b %}More{% endif %}", '{% if a > b %}{{ gettext("More") }}{% endif %}'),
        ("87 %", "87 %"),
        ('{% set x = y | f("{:.0%}") %}', '{% set x = y | f("{:.0%}") %}'),
        ("about 87 %", '{{ gettext("about 87 %%") }}'),
        ('<img alt="{{ name }}, photo">', '<img alt="{{ gettext("%(name)s, photo", name=(name)) }}">'),
        ('<i {% if x > 1 %}title="Big"{% endif %}>', '<i {% if x > 1 %}title="{{ gettext("Big") }}"{% endif %}>'),
        ('<b translate="no">Shoplens</b>', '<b translate="no">Shoplens</b>'),
        ("<pre>code</pre>{# note #}", "<pre>code</pre>{# note #}"),
    ],
)  # fmt: skip
def test_what_people_read_between_tags_is_one_message(source: str, expected: str) -> None:
    """With its values in named places; what no one reads stays as it is."""
    assert expected == marked(source)


def test_lines_keep_their_numbers() -> None:
    """So that an error of a template names the right one."""
    source = "<p>A text\n  over lines</p>\n{{ missing }}"
    assert source.count("\n") == marked(source).count("\n")
    assert 'gettext("A text over lines")' in marked(source).replace("\n", "")


def test_values_are_escaped_and_texts_are_html() -> None:
    """Also in German, and in attributes."""
    environment = jinja2.Environment(autoescape=True)
    add_messages(environment)
    template = environment.from_string('<i title="{{ name }}, filtered">{{ name }} & <b>more</b></i>')
    assert '<i title="&lt;&#34;, filtered">&lt;&#34; & <b>more</b></i>' == template.render(name='<"')
    token = language.set("de")
    try:
        assert "Einträge" == environment.from_string("Records").render()
    finally:
        language.reset(token)
