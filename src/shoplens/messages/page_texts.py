"""Every text of a template is a message: a Jinja extension that asks `gettext` for what stands between the tags.

Templates stay plain HTML. What people read, from one tag or statement to the next, becomes one message; the values in
it become its places, and inline tags without attributes stay in it:

    <p>Since <strong>{{ run.start | day }}</strong></p>    "Since <strong>%(start)s</strong>"

So do the attributes that people read. Elements with `translate="no"`, code and keys are left as they are. A text within
an expression is no text of the template, and is marked: `{{ _("Open") if waits else _("Closed") }}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from jinja2 import Environment
from jinja2.ext import Extension, InternationalizationExtension
from markupsafe import Markup

from shoplens.messages import marked, translated, translated_plural, whole_number

ATTRIBUTES: Final = ("aria-label", "aria-description", "title", "placeholder", "alt", "label", "data-name", "data-once")
"""What people see or hear of an element besides its text."""
_INSIDE: Final = r"""(?:"[^"]*"|'[^']*'|[^"'])*?"""
_JINJA: Final = rf"\{{\{{{_INSIDE}\}}\}}|\{{%{_INSIDE}%\}}|\{{\#.*?\#\}}"
_PIECE: Final = re.compile(
    r"(?P<comment>\{\#.*?\#\}|<!.*?>)"
    rf"|(?P<statement>\{{%-?\s*(?P<keyword>\w+){_INSIDE}%\}})"
    rf"|(?P<value>\{{\{{(?P<expression>{_INSIDE})\}}\}})"
    rf'|(?P<tag><(?P<close>/?)(?P<name>[A-Za-z][\w-]*)(?P<rest>(?:{_JINJA}|"(?:{_JINJA}|[^"])*+"|[^>"])*+)>)'
    r"|(?P<text>[^<{]+|[<{])",
    re.DOTALL,
)
_ATTRIBUTE: Final = re.compile(rf'((?<![\w-])(?:{"|".join(ATTRIBUTES)})=")((?:{_JINJA}|[^"])*+)"', re.DOTALL)
_INLINE: Final = frozenset({"b", "br", "code", "em", "i", "kbd", "small", "span", "strong"})
_CODE: Final = frozenset({"code", "kbd", "pre", "script", "style"})
_PICTURE: Final = re.compile(r"\s*(?:ui\.)?(?:icon|logo|bar|badge|thumb|label_row|feedback|chart|caller|super|self\b)")
_LETTER: Final = re.compile(r"[^\W\d_]")
_LAST_NAME: Final = re.compile(r"([A-Za-z_]\w*)\W*$")
_TEXT_CALL: Final = re.compile(r"(?:_|n?gettext)\(")
_LINES: Final = re.compile(r"\s*\n\s*")


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a template. `kind` is text, value, open or close (of an inline tag); `name` is that of the tag."""

    kind: str
    raw: str
    name: str = ""


def add_messages(environment: Environment) -> None:
    """Let the templates of `environment` speak the language of the page: their texts, `_`, `ngettext` and `trans`."""
    environment.add_extension(InternationalizationExtension)
    environment.add_extension(PageTexts)
    environment.newstyle_gettext = True  # type: ignore[attr-defined]  # an attribute that the extension adds
    environment.globals.update(gettext=_gettext, _=_gettext, ngettext=_ngettext, marked=marked)


def _gettext(text: str, /, **values: object) -> Markup:
    """The message as HTML, with escaped values."""
    return Markup(translated(text)) % values  # noqa: S704 - messages are texts of ours


def _ngettext(one: str, many: str, number: int, /, **values: object) -> Markup:
    return Markup(translated_plural(one, many, number)) % {"number": whole_number(number), **values}  # noqa: S704


class PageTexts(Extension):
    """Makes messages of the texts of templates before they are compiled."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """The template with its texts asked for by `gettext`."""
        return "".join(_marked(source))


def _marked(source: str) -> Iterator[str]:
    run: list[_Piece] = []
    kept = _Kept()
    for found in _PIECE.finditer(source):
        piece = _run_piece(found)
        if not kept.holds(found) and piece is not None:
            run.append(piece)
            continue
        yield from _run(run)
        run.clear()
        yield _with_marked_attributes(found[0]) if found["tag"] else found[0]
    yield from _run(run)


class _Kept:
    """Whether a part belongs to what stays as it is: code, and what is marked as not to be translated."""

    def __init__(self) -> None:
        self._until: str | None = None
        self._depth = 0

    def holds(self, found: re.Match[str]) -> bool:
        name = found["keyword"] or found["name"]
        if self._until is None:
            if found["keyword"] in ("trans", "raw") or (
                found["tag"]
                and not found["close"]
                and (
                    'translate="no"' in found["rest"]
                    or (name in _CODE and name not in _INLINE)
                    or (name in _CODE and found["rest"])
                )
            ):
                self._until, self._depth = name, 1
            return self._until is not None
        if name == f"end{self._until}" or (name == self._until and found["close"]):
            self._depth -= 1
        elif name == self._until:
            self._depth += 1
        if self._depth == 0:
            self._until = None
        return True


def _run_piece(found: re.Match[str]) -> _Piece | None:
    """The part as one of a run of text; None where it ends one."""
    if found["text"]:
        return _Piece("text", found[0])
    if found["value"] and not _PICTURE.match(found["expression"]):
        return _Piece("value", found[0])
    if found["tag"] and found["name"] in _INLINE and not found["rest"].strip(" /"):
        return _Piece("close" if found["close"] else "open", found[0], found["name"])
    return None


def _run(run: Sequence[_Piece]) -> Iterator[str]:
    """A run of text, as one message where words stand beside its inline tags; else what is in each tag by itself."""
    if not any(piece.kind == "text" and _LETTER.search(piece.raw) for piece in run):
        yield from (piece.raw for piece in run)
        return
    groups = list(_groups(run))
    if any(len(group) == 1 and group[0].kind == "text" and _LETTER.search(group[0].raw) for group in groups):
        if all(len(group) > 1 or group[0].kind in ("text", "value") or group[0].name == "br" for group in groups):
            yield _message(run)
            return
        yield from _between_tags(run)
        return
    for group in groups:
        if len(group) > 1 and group[0].name not in _CODE:
            yield group[0].raw
            yield from _run(group[1:-1])
            yield group[-1].raw
        else:
            yield from (piece.raw for piece in group)


def _groups(run: Sequence[_Piece]) -> Iterator[Sequence[_Piece]]:
    """Each element with what is in it, and each part beside them by itself; so a tag without its partner."""
    at = 0
    while at < len(run):
        end = _end(run, at)
        yield run[at:end]
        at = end


def _end(run: Sequence[_Piece], at: int) -> int:
    if run[at].kind != "open":
        return at + 1
    depth = 0
    for place in range(at, len(run)):
        depth += {"open": 1, "close": -1}.get(run[place].kind, 0) if run[place].name == run[at].name else 0
        if depth == 0:
            return place + 1
    return at + 1


def _between_tags(run: Sequence[_Piece]) -> Iterator[str]:
    part: list[_Piece] = []
    for piece in run:
        if piece.kind in ("text", "value"):
            part.append(piece)
            continue
        yield from _run(part)
        part = []
        yield piece.raw
    yield from _run(part)


def _message(run: Sequence[_Piece]) -> str:
    """The run as a call of `gettext`, with the white space around it outside and as many lines as before."""
    raw = "".join(piece.raw for piece in run)
    before, after = raw[: len(raw) - len(raw.lstrip())], raw[len(raw.rstrip()) :]
    values: dict[str, str] = {}
    parts = []
    for piece in run:
        if piece.kind == "value":
            expression = piece.raw[2:-2].strip()
            name = _value_name(expression, values)
            values[name] = expression
            parts.append(f"%({name})s")
        else:
            parts.append(piece.raw.replace("%", "%%"))
    text = _LINES.sub(" ", "".join(parts).strip()).replace("\\", "\\\\").replace('"', '\\"')
    arguments = "".join(f", {name}=({expression})" for name, expression in values.items())
    lines = raw.strip().count("\n") - arguments.count("\n")
    return f'{before}{{{{ gettext("{text}"{arguments}){chr(10) * lines} }}}}{after}'


def _value_name(expression: str, taken: dict[str, str]) -> str:
    """What a value is called in a message: the last name of its expression before filters and arguments."""
    if " if " in expression or expression[:1] in "\"'(":
        base = "value"
    elif _TEXT_CALL.match(expression):
        found = _LAST_NAME.search(expression)
        base = found[1] if found else "value"
    else:
        found = _LAST_NAME.search(expression.partition("|")[0].partition("(")[0].partition("[")[0])
        base = found[1] if found else "value"
    number = 1
    while (name := base if number == 1 else f"{base}_{number}") in taken and taken[name] != expression:
        number += 1
    return name


def _with_marked_attributes(tag: str) -> str:
    def marked(found: re.Match[str]) -> str:
        parts, run = list[str](), list[_Piece]()
        for part in _PIECE.finditer(found[2]):
            if part["value"] or part["text"]:
                run.append(_Piece("value" if part["value"] else "text", part[0]))
                continue
            parts.extend(_run(run))
            run.clear()
            parts.append(part[0])
        parts.extend(_run(run))
        return f'{found[1]}{"".join(parts)}"'

    return _ATTRIBUTE.sub(marked, tag)
