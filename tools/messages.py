"""Bring the messages up to date: extract the English texts of the code, and take them over into each language.

`python -m tools.messages write` writes `messages.pot` and adds what is new to each `.po`, without a text yet;
`python -m tools.messages` says what no longer fits, and what is not translated.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from io import BytesIO
from typing import Any, Final

import jinja2
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_javascript
from babel.messages.pofile import read_po, write_po
from jinja2 import nodes

from shoplens.messages import DEFAULT, FOLDER, LANGUAGES, SENTENCE
from shoplens.messages.page_texts import add_messages
from tools.project import ROOT
from tools.sentences import sentences_of, shown_errors

SOURCE: Final = ROOT / "src" / "shoplens"
CARDS: Final = SOURCE / "bundles" / "builtin" / "data"
"""The cards of the built-in models: what they say is found by `known`."""
TEMPLATE: Final = FOLDER / "messages.pot"
CALLS: Final = {"gettext": 1, "_": 1, "marked": 1, "known": 1, "ngettext": 2}
"""The functions that take messages, with how many of their first arguments are texts."""
_PLACE: Final = re.compile(r"%(?:%|\((\w+)\)s)")
_DATES: Final = re.compile(
    rb'^"(?:POT-Creation-Date|PO-Revision-Date|Generated-By|Report-Msgid-Bugs-To): .*\\n"\n', re.MULTILINE
)

Text = str | tuple[str, str]


def extracted() -> Catalog:
    """The texts of all templates, modules, scripts and cards, each with the files where it is."""
    catalog = Catalog(project="Shoplens", version="1", charset="utf-8", fuzzy=False)
    errors = shown_errors()
    for path in sorted(SOURCE.rglob("*")):
        name = path.relative_to(SOURCE).as_posix()
        source = path.read_text("utf-8") if path.suffix in _READERS else ""
        for text in _texts_of(path.suffix, source):
            catalog.add(text, locations=[(name, 0)])
        for sentence in sentences_of(name, source, errors) if path.suffix == ".py" else ():
            comments = [SENTENCE] if _PLACE.search(sentence.replace("%%", "")) else []
            catalog.add(sentence, locations=[(name, 0)], auto_comments=comments)
    for path in sorted(CARDS.glob("*-card.json")):
        card = json.loads(path.read_text("utf-8"))
        for text in (card["description"], *card["limits"]):
            catalog.add(text.replace("%", "%%"), locations=[(path.relative_to(SOURCE).as_posix(), 0)])
    return catalog


def _template_texts(source: str) -> Iterator[Text]:
    environment = jinja2.Environment(autoescape=True)
    add_messages(environment)
    for call in environment.parse(source).find_all(nodes.Call):
        if isinstance(call.node, nodes.Name):
            texts = [each.value if isinstance(each, nodes.Const) else None for each in call.args]
            yield from _text(call.node.name, texts)


def _python_texts(source: str) -> Iterator[Text]:
    if "shoplens.messages" not in source:
        return
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            yield from _text(
                call.func.id, [each.value if isinstance(each, ast.Constant) else None for each in call.args]
            )


def _script_texts(source: str) -> Iterator[Text]:
    for _, call, texts, _ in extract_javascript(BytesIO(source.encode()), dict.fromkeys(CALLS), (), {"jsx": False}):
        found: Any = texts  # Babel gives a text that stands alone without a list
        yield from _text(str(call), [found] if isinstance(found, str) else [*found])


def _text(call: str, arguments: list[object]) -> Iterator[Text]:
    """The text of a call of one of ours. A call with a variable translates what is marked elsewhere."""
    texts = [each for each in arguments[: CALLS.get(call, 0)] if isinstance(each, str)]
    if len(texts) == 2:
        yield texts[0], texts[1]
    elif texts and CALLS[call] == 1:
        yield texts[0]


_READERS: Final = {".html": _template_texts, ".py": _python_texts, ".js": _script_texts}


def _texts_of(suffix: str, source: str) -> Iterator[Text]:
    if suffix in _READERS:
        yield from _READERS[suffix](source)


def brought_up_to_date() -> dict[str, bytes]:
    """What each file should be, by its name."""
    template = extracted()
    files = {TEMPLATE.name: _written(template)}
    for tag in LANGUAGES.keys() - {DEFAULT}:
        with (FOLDER / f"{tag}.po").open("rb") as file:
            catalog = read_po(file, locale=tag)
        catalog.update(template, no_fuzzy_matching=True, update_header_comment=False)
        catalog.obsolete.clear()
        files[f"{tag}.po"] = _written(catalog)
    return files


def faults(tag: str) -> list[str]:
    """What is wrong with the texts of a language: none, uncertain ones, and other places for values than in English."""
    with (FOLDER / f"{tag}.po").open("rb") as file:
        catalog = read_po(file, locale=tag)
    found = []
    for message in catalog:
        if not message.id:
            continue
        ours = [message.id] if isinstance(message.id, str) else [*message.id]
        theirs = [
            str(each or "") for each in ([message.string] if isinstance(message.string, str) else message.string or ())
        ]
        if message.fuzzy or not theirs or not all(theirs):
            found.append(f"No certain text for {ours[0]!r}.")
        elif any(
            _places(each) != _places(ours[-1]) - ({"number"} if "number" not in _places(each) else set())
            for each in theirs
        ):
            found.append(f"Other places for values: {ours[0]!r}.")
        elif any(each.count('"') != ours[-1].count('"') or each.count("<") != ours[-1].count("<") for each in theirs):
            found.append(f"Other marks of HTML: {ours[0]!r}.")
    return found


def _places(text: str) -> set[str]:
    return {found[1] or "%" for found in _PLACE.finditer(text)}


def _written(catalog: Catalog) -> bytes:
    """Sorted, with files but no lines, without dates: it changes only with a text."""
    file = BytesIO()
    write_po(file, catalog, width=0, sort_output=True, include_lineno=False)
    return _DATES.sub(b"", file.getvalue()).rstrip() + b"\n"


def main() -> int:
    """Write the files, or say what does not fit."""
    files = brought_up_to_date()
    if sys.argv[1:] == ["write"]:
        for name, content in files.items():
            (FOLDER / name).write_bytes(content)
    stale = [name for name, content in files.items() if (FOLDER / name).read_bytes() != content]
    problems = [f"{name} does not fit the code; run `python -m tools.messages write`." for name in stale]
    problems += [f"{tag}.po: {fault}" for tag in LANGUAGES if tag != DEFAULT for fault in faults(tag)]
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
