"""Find what no file of the project may have: stray whitespace, broken syntax, great size, traces of a machine."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tools.project import ROOT, project_files

MAX_BYTES: Final = 500_000
# Files that are rightly larger: what our own models have learned (docs/decisions/0010).
LARGE: Final = frozenset(f"src/shoplens/bundles/builtin/data/{name}" for name in ("clothing.npz", "fashion-mnist.onnx"))

MACHINE_PATH: Final = re.compile(r"(?<![\w.\-~])/(?:work|root|home/\w+|tmp/\w+|opt/\w+)(?:/|\b)")
REGISTRY: Final = re.compile(r"pypi\.org|pythonhoste[d]|registry\.npmj[s]|deb\.debia[n]", re.IGNORECASE)
ADDRESS: Final = re.compile(r"\b(?:https?|file|git|ssh)(?:\+\w+)?://", re.IGNORECASE)
CONFLICT: Final = re.compile(r"^(?:<{7}|>{7}|={7})(?: |$)")


def text_of(content: bytes) -> str | None:
    """The text of a file, None if it is no text."""
    if b"\0" in content:
        return None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def line_faults(text: str) -> Iterator[str]:
    """What is wrong with single lines."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.endswith((" ", "\t", "\r")):
            yield f"line {number}: whitespace at the end"
        if CONFLICT.match(line):
            yield f"line {number}: mark of an unfinished merge"
        if MACHINE_PATH.search(line):
            yield f"line {number}: a path of one machine"
        if REGISTRY.search(line):
            yield f"line {number}: the address of a package registry"


def end_faults(text: str) -> Iterator[str]:
    """A text ends with exactly one newline."""
    if text and not text.endswith("\n"):
        yield "no newline at the end"
    if text.endswith("\n\n"):
        yield "empty lines at the end"


def lock_faults(text: str) -> Iterator[str]:
    """A lock file names versions and hashes, never where they come from."""
    for number, line in enumerate(text.split("\n"), start=1):
        if ADDRESS.search(line) or line.startswith(("--index", "--extra-index", "--find-links", "-f ", "-i ")):
            yield f"line {number}: an address in a lock file"


def syntax_faults(parse: Callable[[str], object], text: str) -> Iterator[str]:
    """One fault if the text cannot be parsed."""
    try:
        parse(text)
    except ValueError as error:
        yield f"cannot be read: {error}"


PARSERS: Final[dict[str, Callable[[str], object]]] = {".json": json.loads, ".toml": tomllib.loads}


def faults(path: Path) -> Iterator[str]:
    """Everything that is wrong with one file."""
    content = path.read_bytes()
    if len(content) > MAX_BYTES and path.relative_to(ROOT).as_posix() not in LARGE:
        yield f"{len(content)} bytes; the limit is {MAX_BYTES}"
    text = text_of(content)
    if text is None:
        return
    yield from line_faults(text)
    yield from end_faults(text)
    if text.startswith("#!") and not path.stat().st_mode & 0o100:
        yield "starts with #! but is not executable"
    if path.suffix == ".lock":
        yield from lock_faults(text)
    if parse := PARSERS.get(path.suffix):
        yield from syntax_faults(parse, text)


def main() -> int:
    """Print every fault of every file; 1 if there are any."""
    found = [f"{path.relative_to(ROOT)}: {fault}" for path in project_files() for fault in faults(path)]
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
