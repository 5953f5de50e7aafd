"""The error tree is drawn whole, and every error has its own code and status."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module

from shoplens import errors
from shoplens.errors import ShoplensError
from shoplens.web.problems import status_of
from tests.architecture.source import MODULES, PACKAGE

BRANCH = re.compile(r"^(?P<indent>[│├└─ ]*)(?P<name>[A-Z]\w+)\b")


for module in MODULES:
    if module.name == "errors.py" and module.parent != PACKAGE:
        import_module(f"shoplens.{module.parent.name}.errors")


def family(error: type[ShoplensError]) -> Iterator[type[ShoplensError]]:
    """An error class and all below it."""
    yield error
    for child in error.__subclasses__():
        yield from family(child)


def drawn_parents() -> dict[str, str | None]:
    """Each class in the drawing with the class that it hangs from."""
    path: list[tuple[int, str]] = []
    parents: dict[str, str | None] = {}
    for line in inspect.cleandoc(errors.__doc__ or "").partition("\n\n")[2].splitlines():
        if match := BRANCH.match(line):
            depth = len(match["indent"])
            path = [step for step in path if step[0] < depth]
            parents[match["name"]] = path[-1][1] if path else None
            path.append((depth, match["name"]))
    return parents


def test_the_drawing_is_the_tree() -> None:
    """The tree at the top of errors.py is the actual one."""
    real = {
        error.__name__: None if error is ShoplensError else error.__mro__[1].__name__
        for error in family(ShoplensError)
        if error.__module__ == errors.__name__
    }
    assert real == drawn_parents()


def test_every_error_has_a_code_of_its_own() -> None:
    """Programs tell errors apart by their code."""
    codes = [error.code for error in family(ShoplensError)]
    assert sorted(set(codes)) == sorted(codes)


def test_every_error_says_in_a_line_what_happened() -> None:
    """The docstrings are the reference page."""
    assert [] == [error.__name__ for error in family(ShoplensError) if not (error.__doc__ or "").strip().endswith(".")]


def test_error_classes_stand_in_the_tree_or_in_the_errors_of_their_feature() -> None:
    """A reader finds them where the name of the file says so."""
    elsewhere = {error.__module__ for error in family(ShoplensError)} - {errors.__name__}
    assert [] == [name for name in elsewhere if not re.fullmatch(r"shoplens\.[a-z]+\.errors", name)]


def test_only_the_root_of_the_tree_falls_back_to_500() -> None:
    """An error that a client can cause never looks like a fault of the server."""
    caused_by_clients = [*family(errors.SampleError), *family(errors.RequestInvalid), *family(errors.NotFound)]
    assert [] == [error.__name__ for error in caused_by_clients if not 400 <= status_of(error) < 500]


def test_every_error_is_used() -> None:
    """What nobody raises or catches is only a promise."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in MODULES if path.name != "errors.py")
    leaves = [error for error in family(ShoplensError) if not error.__subclasses__()]
    assert [] == [error.__name__ for error in leaves if not re.search(rf"\b{error.__name__}\b", text)]
