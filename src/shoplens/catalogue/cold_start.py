"""First answers for a tree that no model was trained for: from its names and synonyms, and a few examples.

A category is described by the words of its names in all languages, its synonyms, the names of its parents, and the
products that people already put into it. A text is as near to a category as the angle between their n-grams says, each
n-gram weighted by how few categories have it (TF-IDF, Spärck Jones 1972); a photo as its embedding is to the mean
embedding of the examples. `bench/cold_start.py` measures how right that is. It is a beginning, not a model, and every
answer says so.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shoplens.catalogue.tree import Tree
from shoplens.texts.features import features
from shoplens.texts.spec import TextSpec

EXAMPLES: Final = 20
"""Products per category that are looked at."""
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
        documents = [_document(tree, leaf, by_category.get(leaf, ())) for leaf in self._leaves]
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


def _document(tree: Tree, leaf: str, examples: Sequence[Example]) -> dict[int, float]:
    """What describes a leaf: tokens with weights, as a vector that is not normalised."""
    category = tree[leaf]
    phrases = {category.path[-1], *category.names.values(), *category.synonyms}
    named: dict[int, float] = defaultdict(float)
    for phrase in sorted(phrases):
        _add(named, phrase, 1.0)
    _add(named, " ".join(category.path[:-1]), _PARENT_WEIGHT)
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
    documents: Sequence[Mapping[int, float]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """An inverted index: distinct tokens, where the entries of each begin, the entries' columns and weights of unit
    vectors, and the rarity of each token.
    """
    sizes = [len(each) for each in documents]
    columns = np.repeat(np.arange(len(documents)), sizes)
    flat = np.fromiter((token for each in documents for token in each), np.int64, sum(sizes))
    values = np.fromiter((value for each in documents for value in each.values()), np.float64, sum(sizes))
    tokens, which, counts = np.unique(flat, return_inverse=True, return_counts=True)
    rarity = np.log((1 + len(documents)) / (1 + counts)) + 1
    values *= rarity[which]
    lengths = np.sqrt(np.bincount(columns, values**2, len(documents)))
    values /= np.where(lengths == 0, 1, lengths)[columns]
    order = np.argsort(which, kind="stable")
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
