"""First answers for a tree that no model was trained for: from its names and synonyms, and a few examples.

A category is described by the words of its names in all languages, its synonyms, the names of its parents, and the
products that people already put into it. A text is as near to a category as the angle between their n-grams says, each
n-gram weighted by how few categories have it (TF-IDF, Spärck Jones 1972); a photo as its embedding is to the mean
embedding of the examples. `bench/cold_start.py` measures how right that is. It is a beginning, not a model, and every
answer says so.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shoplens.catalogue.tree.categories import Tree
from shoplens.errors import NotStarted
from shoplens.texts.features import features
from shoplens.texts.spec import TextSpec

EXAMPLES: Final = 20
"""Products per category that are looked at."""
_EXAMPLES_FRESH_S: Final = 300.0
_PARENTS_KEPT: Final = 2_000
_SPEC: Final = TextSpec()
_PARENT_WEIGHT: Final = 0.5
_EXAMPLES_FOR_WHOLE_WEIGHT: Final = 4
"""A single example says less than the names; from so many on they count as much."""
_TEXT_SCALE: Final = 25.0
_PHOTO_SCALE: Final = 35.0
"""How much a difference of one in the cosine says, as natural logarithm; fitted by the bench."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """A product whose category is decided: its text, and the embedding of its photos where there is one."""

    category: str
    text: str
    embedding: NDArray[np.float32] | None = None


class ColdStart:
    """Scores for the leaves of one tree. Never changes; safe to use from many threads."""

    def __init__(self, tree: Tree, examples: Iterable[Example] = ()) -> None:
        self._leaves = [each.id for each in tree if tree.is_leaf(each.id)]
        by_category: dict[str, list[Example]] = defaultdict(list)
        for example in examples:
            if example.category in tree and len(by_category[example.category]) < EXAMPLES:
                by_category[example.category].append(example)
        self.examples = sum(map(len, by_category.values()))
        parents = _Parents()
        documents = (_document(tree, leaf, by_category.get(leaf, ()), parents) for leaf in self._leaves)
        self._tokens, self._starts, self._columns, self._weights, self._rarity = _index(documents)
        self._photos = _prototypes(self._leaves, by_category)

    def scores(self, text: str, embedding: NDArray[np.float32] | None = None) -> dict[str, float]:
        """The probability of each leaf; empty where nothing in the text or the photo says anything."""
        evidence = np.zeros(len(self._leaves))
        likeness = self._likeness(text) if text else None
        if likeness is not None:
            evidence += _TEXT_SCALE * likeness
        seen = embedding is not None and self._photos is not None
        if embedding is not None and self._photos is not None:
            columns, prototypes = self._photos
            cosines = prototypes @ (embedding / max(float(np.linalg.norm(embedding)), 1e-9))
            evidence[columns] += _PHOTO_SCALE * (cosines - cosines.mean())
        if likeness is None and not seen:
            return {}
        shares = np.exp(evidence - evidence.max())
        shares /= shares.sum()
        return dict(zip(self._leaves, shares.tolist(), strict=True))

    def _likeness(self, text: str) -> NDArray[np.float64] | None:
        """The cosine between the text and each leaf; None where they share nothing."""
        found = features(text, _SPEC)
        at = np.searchsorted(self._tokens, found.tokens)
        known = at < len(self._tokens)
        known[known] = self._tokens[at[known]] == found.tokens[known]
        unknown = found.weights[~known] * math.log(1 + len(self._leaves))
        at, weights = at[known], found.weights[known] * self._rarity[at[known]]
        length = math.sqrt(float((weights**2).sum() + (unknown**2).sum()))
        if not len(at) or not length:
            return None
        likeness = np.zeros(len(self._leaves))
        for token, weight in zip(at, weights / length, strict=True):
            part = slice(self._starts[token], self._starts[token + 1])
            likeness[self._columns[part]] += weight * self._weights[part]
        return likeness


class ColdStarts:
    """The cold start of the live tree, made in a thread of its own: no request holds a thread or a lock meanwhile.

    One with older `examples` answers until the next is ready. Thread-safe.
    """

    def __init__(self, examples: Callable[[], Iterable[Example]]) -> None:
        self._examples = examples
        self._lock = threading.Lock()
        self._made: tuple[int, float, ColdStart] | None = None
        self._making: tuple[int, Future[ColdStart]] | None = None

    async def of(self, tree: Tree, timeout_s: float) -> ColdStart:
        """That of this tree, with the products that were decided up to some minutes ago.

        Raises NotStarted where it is not ready in time, and what `examples` raises.
        """
        ready = self._look(tree)
        if isinstance(ready, ColdStart):
            return ready
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(asyncio.wrap_future(ready))
        except TimeoutError as error:
            raise NotStarted(
                f"The first answers for the tree of version {tree.version} are being prepared. Try again in a minute."
            ) from error

    def _look(self, tree: Tree) -> ColdStart | Future[ColdStart]:
        with self._lock:
            made = self._made if self._made is not None and self._made[0] == tree.version else None
            if made is not None and time.monotonic() - made[1] < _EXAMPLES_FRESH_S:
                return made[2]
            if self._making is None:
                making: Future[ColdStart] = Future()
                making.set_running_or_notify_cancel()  # so that nobody who stops waiting ends it for the others
                self._making = tree.version, making
                threading.Thread(target=self._make, args=(tree, making), name="cold-start", daemon=True).start()
            elif made is None and self._making[0] != tree.version:
                raise NotStarted("First answers are being prepared for another version of the tree. Try again.")
            return made[2] if made is not None else self._making[1]

    def _make(self, tree: Tree, making: Future[ColdStart]) -> None:
        try:
            made = ColdStart(tree, self._examples())
        except Exception as error:  # noqa: BLE001  a thread has no caller: the requests that wait raise it
            with self._lock:
                self._making = None
            making.set_exception(error)
            return
        with self._lock:
            self._made, self._making = (tree.version, time.monotonic(), made), None
        making.set_result(made)


class _Parents:
    """The features of the names above a leaf, which its neighbour needs as well."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], dict[int, float]] = {}

    def of(self, path: tuple[str, ...]) -> Mapping[int, float]:
        found = self._known.get(path)
        if found is None:
            found = defaultdict(float)
            _add(found, " ".join(path), _PARENT_WEIGHT)
            if len(self._known) >= _PARENTS_KEPT:
                self._known.clear()
            self._known[path] = found
        return found


def _document(tree: Tree, leaf: str, examples: Sequence[Example], parents: _Parents) -> dict[int, float]:
    """What describes a leaf: tokens with weights, as a vector that is not normalised."""
    category = tree[leaf]
    phrases = {category.path[-1], *category.names.values(), *category.synonyms}
    named: dict[int, float] = defaultdict(float)
    for phrase in sorted(phrases):
        _add(named, phrase, 1.0)
    for token, value in parents.of(category.path[:-1]).items():
        named[token] += value
    document = _normalised(named)
    if examples:
        shown: dict[int, float] = defaultdict(float)
        for example in examples:
            _add(shown, example.text, 1.0)
        weight = min(1.0, len(examples) / _EXAMPLES_FOR_WHOLE_WEIGHT)
        for token, value in _normalised(shown).items():
            document[token] = document.get(token, 0.0) + weight * value
    return document


def _add(document: dict[int, float], text: str, weight: float) -> None:
    """Add the features of `text`, as a vector of length `weight`."""
    found = features(text, _SPEC)
    length = float(np.linalg.norm(found.weights))
    for token, value in zip(found.tokens.tolist(), found.weights.tolist(), strict=True):
        document[token] += weight * value / length


def _normalised(document: Mapping[int, float]) -> dict[int, float]:
    length = math.sqrt(sum(value * value for value in document.values())) or 1.0
    return {token: value / length for token, value in document.items()}


def _index(
    documents: Iterable[Mapping[int, float]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.float32], NDArray[np.float64]]:
    """An inverted index: distinct tokens, where the entries of each begin, the entries' columns and weights of unit
    vectors, and the rarity of each token. One document is in memory at a time, and the rest as plain numbers.
    """
    parts = [
        (np.fromiter(each, np.int32, len(each)), np.fromiter(each.values(), np.float32, len(each)))
        for each in documents
    ]
    none = np.empty(0, np.int32), np.empty(0, np.float32)
    count = len(parts)
    columns = np.repeat(np.arange(count, dtype=np.int32), [len(part) for part, _ in parts])
    flat, values = (np.concatenate(each) for each in zip(none, *parts, strict=True))
    del parts
    seen = np.bincount(flat, minlength=_SPEC.buckets)
    tokens = np.flatnonzero(seen)
    counts, place = seen[tokens], np.zeros(len(seen), np.int32)
    place[tokens] = np.arange(len(tokens), dtype=np.int32)
    which = place[flat]
    del flat
    rarity = np.log((1 + count) / (1 + counts)) + 1
    values *= rarity.astype(np.float32)[which]
    lengths = np.sqrt(np.bincount(columns, values**2, count)).astype(np.float32)
    values /= np.where(lengths == 0, 1, lengths)[columns]
    order = np.argsort(which, kind="stable").astype(np.int32)
    return tokens, np.concatenate([[0], np.cumsum(counts)]), columns[order], values[order], rarity


def _prototypes(
    leaves: Sequence[str], examples: Mapping[str, Sequence[Example]]
) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
    """The leaves with photos among their examples, and their mean embeddings of length 1; None without any."""
    columns: list[int] = []
    means: list[NDArray[np.float32]] = []
    for column, leaf in enumerate(leaves):
        found = [each.embedding for each in examples.get(leaf, ()) if each.embedding is not None]
        if found:
            mean = np.mean(np.stack(found), axis=0)
            columns.append(column)
            means.append(mean / max(float(np.linalg.norm(mean)), 1e-9))
    return (np.array(columns), np.stack(means).astype(np.float32)) if len(columns) > 1 else None
