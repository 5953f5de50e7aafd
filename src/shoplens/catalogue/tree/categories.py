"""The tree of categories in memory: where a category stands, what it is called, and what scores mean for its parents.

Probabilities of leaves are summed up the tree, so a parent is as probable as all below it together. Where no leaf is
sure enough, the answer is the deepest category that is.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

import orjson

from shoplens.catalogue.entities import Category, CategoryScore
from shoplens.catalogue.errors import CategoryNotFound, TreeInvalid

SEPARATOR: Final = " > "
_NOT_ALPHANUMERIC: Final = re.compile("[^a-z0-9]")
MAX_CATEGORIES: Final = 50_000
MAX_DEPTH: Final = 20
MAX_NAME: Final = 200
MAX_ID: Final = 300
MAX_SYNONYMS: Final = 200
MAX_LANGUAGES: Final = 60


class Tree:
    """The categories of one version, in the order in which they came. Never changes.

    Parents that are only named in paths are added with an id made of their path. Raises TreeInvalid for ids or paths
    that repeat, and for what exceeds the limits.
    """

    def __init__(self, categories: Iterable[Category], *, version: int = 0) -> None:
        self.version = version
        self._by_id: dict[str, Category] = {}
        self._by_path: dict[tuple[str, ...], str] = {}
        for category in categories:
            self._add(category)
        for path in [path for path in self._by_path if len(path) > 1]:
            self._add_parents(path)
        self._children: dict[str | None, list[str]] = defaultdict(list)
        for category in self._by_id.values():
            self._children[self._by_path.get(category.path[:-1])].append(category.id)

    def _add(self, category: Category) -> None:
        if not category.path or len(category.path) > MAX_DEPTH:
            raise TreeInvalid(f"The category {category.id!r} must have a path of 1 to {MAX_DEPTH} names.")
        if not category.id or len(category.id) > MAX_ID or max(map(len, category.path)) > MAX_NAME:
            raise TreeInvalid(
                f"The category {category.id[:50]!r}: ids have 1 to {MAX_ID} characters, names at most {MAX_NAME}."
            )
        others = (*category.names.values(), *category.synonyms)
        if (
            len(category.synonyms) > MAX_SYNONYMS
            or len(category.names) > MAX_LANGUAGES
            or (others and max(map(len, others)) > MAX_NAME)
        ):
            raise TreeInvalid(
                f"The category {category.id[:50]!r}: at most {MAX_SYNONYMS} synonyms and names in {MAX_LANGUAGES} "
                f"languages are kept, of at most {MAX_NAME} characters each."
            )
        if category.id in self._by_id:
            raise TreeInvalid(f"The id {category.id!r} appears twice. Each category needs an id of its own.")
        if category.path in self._by_path:
            raise TreeInvalid(f"The path {SEPARATOR.join(category.path)!r} appears twice.")
        self._by_id[category.id] = category
        self._by_path[category.path] = category.id
        if len(self._by_id) > MAX_CATEGORIES:
            raise TreeInvalid(f"A tree has at most {MAX_CATEGORIES:,} categories.")

    def _add_parents(self, path: tuple[str, ...]) -> None:
        for length in range(1, len(path)):
            parent = path[:length]
            if parent not in self._by_path:
                self._add(Category(id=SEPARATOR.join(parent)[-MAX_ID:], path=parent, names={}))

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Category]:
        return iter(self._by_id.values())

    def __contains__(self, category: object) -> bool:
        return category in self._by_id

    def __getitem__(self, category: str) -> Category:
        """Raises CategoryNotFound."""
        try:
            return self._by_id[category]
        except KeyError:
            raise CategoryNotFound(f"The tree has no category {category[:100]!r}.") from None

    def at(self, path: tuple[str, ...]) -> str | None:
        """The id of the category with this path."""
        return self._by_path.get(path)

    def children(self, category: str | None) -> tuple[str, ...]:
        """The ids below a category, in order; of None: the roots."""
        return tuple(self._children.get(category, ()))

    def parent(self, category: str) -> str | None:
        """The id above a category; None for a root."""
        return self._by_path.get(self[category].path[:-1])

    def ancestors(self, category: str) -> tuple[str, ...]:
        """The ids from the root to the category itself."""
        path = self[category].path
        return tuple(self._by_path[path[:length]] for length in range(1, len(path) + 1))

    def below(self, category: str) -> tuple[str, ...]:
        """The category and all that is below it."""
        found = [self[category].id]
        for each in found:
            found.extend(self._children.get(each, ()))
        return tuple(found)

    def is_leaf(self, category: str) -> bool:
        """Whether nothing is below it."""
        return not self._children.get(category)

    def name(self, category: str, language: str = "") -> str:
        """Its own name in this language, else as in its path."""
        found = self[category]
        return found.names.get(language, found.path[-1])

    def path_text(self, category: str, language: str = "") -> str:
        """The names from the root to the category, with " > " between them."""
        return SEPARATOR.join(self.name(each, language) for each in self.ancestors(category))

    def totals(self, scores: Mapping[str, float]) -> dict[str, float]:
        """The score of each category and all below it, from those of single categories. Others are left out."""
        totals: dict[str, float] = defaultdict(float)
        for category, score in scores.items():
            for each in self.ancestors(category) if category in self else ():
                totals[each] += score
        return dict(totals)

    def answer(self, scores: Mapping[str, float], at_least: float) -> CategoryScore | None:
        """The deepest category whose total is at least `at_least`; None if not even a root is that sure.

        At each level the best child is followed, so the answer lies above or at the best leaf.
        """
        totals = self.totals(scores)
        found: CategoryScore | None = None
        level = self.children(None)
        while level:
            best = max(level, key=lambda each: totals.get(each, 0.0))
            score = totals.get(best, 0.0)
            if score < at_least:
                break
            found = CategoryScore(category=best, score=min(1.0, score))
            level = self.children(best)
        return found

    def search(self, text: str, *, limit: int = 20, language: str = "") -> list[Category]:
        """Categories in whose names, synonyms or path all words of `text` begin a word; the best first.

        Own names come before synonyms, these before the names of parents; short paths before long ones.
        """
        wanted = _folded(text).split()
        if not wanted:
            return []
        ranked: list[tuple[int, int, str]] = []
        for words in self._words:
            rank = words.rank(wanted, language)
            if rank is not None:
                ranked.append((rank, words.depth, words.category))
        return [self[each] for _, _, each in sorted(ranked)[:limit]]

    @cached_property
    def _words(self) -> list[_Words]:
        """What a search compares; made at the first one, since folding 10,000 names takes half a second."""
        return [_Words.of(category) for category in self]

    @property
    def digest(self) -> str:
        """The SHA-256 over all categories, whatever their order."""
        rows = sorted((each.id, each.path, sorted(each.names.items()), each.synonyms) for each in self)
        return hashlib.sha256(orjson.dumps(rows)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    """The words by which one category is found: each begins after a blank. `own` has its name by language."""

    category: str
    depth: int
    own: Mapping[str, str]
    named: str
    path: str

    @classmethod
    def of(cls, category: Category) -> Self:
        own = _folded(category.path[-1])
        names = {language: f"{_folded(name)} {own}" for language, name in category.names.items()}
        named = _folded(" ".join((*category.names.values(), *category.synonyms, category.id)))
        return cls(
            category=category.id,
            depth=len(category.path),
            own={**names, "": own},
            named=f"{own} {named}",
            path=f"{own} {named} {_folded(' '.join(category.path))}",
        )

    def rank(self, wanted: Sequence[str], language: str) -> int | None:
        """How well the category fits, 0 is best; None if it does not."""
        own = self.own.get(language, self.own[""])
        if _all_begin(own, wanted):
            return 0 if own.split()[: len(wanted)] == list(wanted) else 1
        if _all_begin(self.named, wanted):
            return 2
        return 3 if _all_begin(self.path, wanted) else None


def split_path(text: str) -> tuple[str, ...]:
    """The names in "Food > Fruit > Apple"; blanks around them do not count."""
    return tuple(name for part in text.split(">") if (name := part.strip()))


def _folded(text: str) -> str:
    if text.isascii():  # most names; character by character, 50,000 of them take seconds
        return _NOT_ALPHANUMERIC.sub(" ", text.lower())
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(each if each.isalnum() else " " for each in plain if not unicodedata.combining(each))


def _all_begin(text: str, wanted: Sequence[str]) -> bool:
    spaced = f" {text}"
    return all(f" {word}" in spaced for word in wanted)
