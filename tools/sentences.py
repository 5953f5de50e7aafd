"""Find the sentences that code finishes before anybody asks for a language: of errors, of settings, and f-strings that
are `marked`. An f-string becomes a message with named places, so raising an error needs no second text.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from itertools import pairwise
from typing import Any, Final

from shoplens.messages import FOLDER, NUMBER, WORDS

_UNSEEN: Final = re.compile(
    r"(?:^|/)(?:commands|doctor|\w+_commands|ray|ray_engine)\.py$|(?:^|/)(?:\w+_)?api\.py$"
    r"|^(?:cli|training|telemetry|testing|bundles|db|storage|platform/backup|moderation/intake|registry/archive)(?:/|\.py$)"
    r"|^(?:accounts/audit_check|serving/photos|images/in_memory)\.py$"
)
"""Modules whose errors no page shows: of the command line, of programs, of offline work."""
_LETTER: Final = re.compile(r"[^\W\d_]")
_FIGURE: Final = re.compile(r"[,%]|[fgd]$")
_PLAIN: Final = frozenset({"len", "str", "repr", "min", "max", "sorted", "int", "ceil", "round", "join", "naturalsize"})
"""Functions that are not what a value is called by."""
_CARRIERS: Final = {"Finding": "summary", "Check": "sentence", "BadRow": "reason"}
"""Values besides errors that have a sentence for people, and its name."""
_SETTINGS: Final = re.compile(r"^\w*setting\w*\.py$")
_DATE: Final = re.compile("%[A-Za-z]")


def shown_errors() -> frozenset[str]:
    """The names of all errors whose sentence people may read; others show their `public_message` instead."""
    from shoplens.errors import ShoplensError

    for module in sorted(FOLDER.parent.glob("*/errors.py")):
        import_module(f"shoplens.{module.parent.name}.errors")
    return frozenset(each.__name__ for each in _family(ShoplensError) if each.public_message is None)


def _family(error: type[Any]) -> Iterator[type[Any]]:
    yield error
    for child in error.__subclasses__():
        yield from _family(child)


def sentences_of(name: str, source: str, errors: frozenset[str]) -> Iterator[str]:
    """The messages of a module, in the form of `gettext`."""
    tree = ast.parse(source)
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        text: ast.expr | None = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "Field" and _SETTINGS.match(name):
                text = next((each.value for each in node.keywords if each.arg == "description"), None)
            else:
                text = _carried(node, node.func.id, errors if not _UNSEEN.search(name) else frozenset())
        elif isinstance(node, ast.AnnAssign | ast.Assign) and _is_public_message(node):
            text = node.value
        if text is not None:
            yield from _messages(text, constants)


def _carried(call: ast.Call, name: str, errors: frozenset[str]) -> ast.expr | None:
    """The sentence that a call is given: of an error, of another value that has one, or an f-string that is marked."""
    if name in _CARRIERS:
        return next((each.value for each in call.keywords if each.arg == _CARRIERS[name]), None)
    is_finished = name == "marked" and call.args and not isinstance(call.args[0], ast.Constant)
    return call.args[0] if call.args and (name in errors or is_finished) else None


def _is_public_message(node: ast.AnnAssign | ast.Assign) -> bool:
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    return isinstance(target, ast.Name) and target.id == "public_message"


def _messages(text: ast.expr, constants: Mapping[str, ast.expr]) -> Iterator[str]:
    """The texts that an expression may be. What another function makes of values is not known here."""
    if isinstance(text, ast.Name):
        text = constants.get(text.id, text)
    if isinstance(text, ast.IfExp):
        yield from _messages(text.body, constants)
        yield from _messages(text.orelse, constants)
    elif isinstance(text, ast.BoolOp):
        yield from (each for value in text.values for each in _messages(value, constants))
    elif isinstance(text, ast.Constant) and isinstance(text.value, str) and _LETTER.search(text.value):
        yield text.value.replace("%", "%%")
    elif isinstance(text, ast.JoinedStr):
        yield from _filled(text, constants)


def _filled(text: ast.JoinedStr, constants: Mapping[str, ast.expr]) -> Iterator[str]:
    """The message of an f-string, and those of words of ours in its places. With a command, it is for programs."""
    parts, places = [], dict[str, str]()
    for piece, after in pairwise([*text.values, None]):
        if isinstance(piece, ast.Constant):
            parts.append(str(piece.value).replace("%", "%%"))
        elif isinstance(piece, ast.FormattedValue):
            place = f"%({_named(piece, places)})s"
            # Of two places without anything between them nobody knows where one ends, but for its quotes.
            is_quoted = piece.conversion == ord("r") and isinstance(after, ast.FormattedValue)
            parts.append(f"'{place}'" if is_quoted else place)
            if isinstance(piece.value, ast.IfExp | ast.BoolOp):
                yield from _messages(piece.value, constants)
    message = "".join(parts)
    if any(not part.isspace() for part in parts if not part.startswith("%(")) and "curl " not in message:
        yield message


def _named(place: ast.FormattedValue, taken: dict[str, str]) -> str:
    """What the value of a place is called: by the last name in it, and for what kind of value it is."""
    source = ast.unparse(place)
    base = _last_name(place.value).strip("_").lower() or "value"
    kind = _kind(place)
    number = 1
    while (name := "_".join([base, *([str(number)] if number > 1 else []), *kind])) in taken and taken[name] != source:
        number += 1
    taken[name] = source
    return name


def _kind(place: ast.FormattedValue) -> list[str]:
    """The end of the name of a place where `known` does not leave the value as it is."""
    spec = "" if place.format_spec is None else ast.unparse(place.format_spec)[2:-1]
    if isinstance(place.value, ast.IfExp | ast.BoolOp) or ast.unparse(place).endswith(".value}"):
        return [WORDS]
    return [NUMBER] if _FIGURE.search(spec) and not _DATE.search(spec) else []


def _last_name(value: ast.expr) -> str:
    while True:
        match value:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[inner, *_]) if name in _PLAIN:
                value = inner
            case ast.Call(func=ast.Name(id="map"), args=[_, inner]):
                value = inner
            case (
                ast.Call(func=ast.Attribute(value=inner, attr="upper" | "lower" | "removesuffix"))
                | ast.Call(func=inner)
            ):
                value = inner
            case ast.Subscript(value=inner) | ast.BinOp(left=inner) | ast.BoolOp(values=[inner, *_]):
                value = inner
            case ast.Attribute(value=inner, attr="value" | "name"):
                value = inner
            case ast.Attribute(attr=name) | ast.Name(id=name):
                return name
            case _:
                return ""
