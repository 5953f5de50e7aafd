"""Read trees of categories from files: our CSV, and the taxonomies that Google and Shopify publish as text.

A file of Google's has lines "3237 - Animals & Pet Supplies > Live Animals" (or no numbers: the path is the id), one of
Shopify's "gid://shopify/TaxonomyCategory/ap-1 : Animals & Pet Supplies > Live Animals". Lines that begin with # are
comments. The same file in another language adds names to a tree that has its ids.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from shoplens.catalogue.entities import Category
from shoplens.catalogue.errors import TreeInvalid
from shoplens.catalogue.tree.categories import MAX_CATEGORIES, SEPARATOR, Tree, split_path
from shoplens.texts.cleaning import visible

MAX_BYTES: Final = 20_000_000
_GOOGLE: Final = re.compile(r"^(?P<id>\d{1,12}) - (?P<path>\S.*)$")
_SHOPIFY: Final = re.compile(r"^(?:gid://shopify/TaxonomyCategory/)?(?P<id>[a-z]{2}(?:-\d+)*)\s* : (?P<path>\S.*)$")
_ID_COLUMNS: Final = ("id", "category", "prdtypecode", "code", "folder")
_NAME: Final = re.compile(r"^name_([a-z]{2,3}(?:-[a-z]{2,4})?)$")
_SYNONYMS: Final = re.compile(r"\s*[|;]\s*")


def read_tree(data: bytes, *, language: str = "en") -> Tree:
    """The tree in a file of any of the formats; `language` is that of the names in a taxonomy's text.

    Raises TreeInvalid with the line.
    """
    text = decoded(data)
    first = next((line for _, line in _lines(text)), None)
    if first is None:
        raise TreeInvalid("The file has no categories.")
    if "path" not in re.split(r'[,;\t"]', first.lower()):
        return Tree(_from_taxonomy(_lines(text), language))
    return Tree(_from_csv(text))


def read_mapping(data: bytes) -> dict[str, str | None]:
    """What became of categories: a CSV with the columns `before` and `after`; an empty `after` means no successor.

    Raises TreeInvalid with the line.
    """
    mapping: dict[str, str | None] = {}
    for number, row in _rows(decoded(data)):
        if "before" not in row or "after" not in row:
            raise TreeInvalid("The mapping needs the columns `before` and `after`.")
        before, after = row["before"], row["after"]
        if not before:
            raise TreeInvalid(f"Line {number}: `before` is empty.")
        if mapping.setdefault(before, after or None) != (after or None):
            raise TreeInvalid(f"Line {number}: {before[:80]!r} has two successors.")
        if len(mapping) > MAX_CATEGORIES:
            raise TreeInvalid(f"A mapping is about at most {MAX_CATEGORIES:,} categories.")
    return mapping


def tree_rows(tree: Tree) -> tuple[tuple[str, ...], Iterator[tuple[str, ...]]]:
    """The header and the rows of our CSV, which `read_tree` reads again."""
    languages = sorted({language for category in tree for language in category.names})
    header = ("id", "path", *(f"name_{language}" for language in languages), "synonyms")
    rows = (
        (
            category.id,
            SEPARATOR.join(category.path),
            *(category.names.get(language, "") for language in languages),
            "|".join(category.synonyms),
        )
        for category in tree
    )
    return header, rows


def with_names(tree: Tree, other: Tree, language: str) -> Tree:
    """`tree` with the names of the same ids in another language, and as synonyms what they say there."""
    return Tree(
        replace(category, names={**category.names, language: other[category.id].path[-1]})
        if category.id in other
        else category
        for category in tree
    )


def decoded(data: bytes) -> str:
    """The text of a file in UTF-8, UTF-16 with a mark, or Windows-1252, without characters that nobody sees: they would
    disguise names on pages, and PostgreSQL stores no NUL. Raises TreeInvalid if it is too long.
    """
    if len(data) > MAX_BYTES:
        raise TreeInvalid(f"The file has more than {MAX_BYTES:,} bytes.")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return visible(data.decode("utf-16", "replace"))
    try:
        return visible(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return visible(data.decode("cp1252", "replace"))


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are neither empty nor comments, one at a time, with their numbers."""
    lines = enumerate(io.StringIO(text, newline=None), 1)
    return ((number, line.rstrip("\n")) for number, line in lines if _counts(line))


def _counts(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _from_taxonomy(lines: Iterable[tuple[int, str]], language: str) -> Iterator[Category]:
    for number, line in lines:
        found = _GOOGLE.match(line.strip()) or _SHOPIFY.match(line.strip())
        path = split_path(found["path"] if found else line)
        if not path:
            raise TreeInvalid(f"Line {number} has no path: {line[:80]!r}.")
        yield Category(id=found["id"] if found else SEPARATOR.join(path), path=path, names={language: path[-1]})


def _rows(text: str) -> Iterator[tuple[int, dict[str, str]]]:
    head = text.partition("\n")[0]
    separator = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text), delimiter=separator, strict=False)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        for values in reader:
            if any(value.strip() for value in values):
                yield reader.line_num, dict(zip(header, (value.strip() for value in values), strict=False))
    except csv.Error as error:
        raise TreeInvalid(f"Line {reader.line_num}: {error}.") from error


def _from_csv(text: str) -> Iterator[Category]:
    for number, row in _rows(text):
        if "path" not in row:
            raise TreeInvalid("The file needs a column `path` such as `Food > Fruit > Apple`, and should have `id`.")
        path = split_path(row["path"])
        if not path:
            raise TreeInvalid(f"Line {number}: the path is empty.")
        yield Category(
            id=next((row[name] for name in _ID_COLUMNS if row.get(name)), SEPARATOR.join(path)),
            path=path,
            names=_names(row),
            synonyms=tuple(word for word in _SYNONYMS.split(row.get("synonyms", "")) if word),
        )


def _names(row: Mapping[str, str]) -> dict[str, str]:
    return {found[1]: value for column, value in row.items() if value and (found := _NAME.match(column))}
