"""Suggest categories for a product: its text and photos through the channel's model, and the scores up the live tree.

A tree that the model does not know gets answers from its names and the decided products (`cold_start.py`) instead.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shoplens.bundles.manifest import SampleKind
from shoplens.catalogue.cold_start import ColdStart, Example
from shoplens.catalogue.entities import CategoryScore
from shoplens.catalogue.errors import NothingToCategorise
from shoplens.catalogue.tree import Tree, split_path
from shoplens.catalogue.trees import TreeService
from shoplens.images.picture import ImageFacts
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, Engine, Prediction, Priority
from shoplens.texts.cleaning import DESCRIPTION_CHARACTERS, TITLE_CHARACTERS, clean
from shoplens.texts.features import words_of

MAX_PHOTOS: Final = 10
COLD_START: Final = "cold-start"
"""What answers where no model knows the tree; its version is that of the tree."""
_MOST_LABELS: Final = 500
"""Of models with more labels only the best count; the others' scores are below one in five hundred."""
_LEAST_KNOWN: Final = 0.5
"""The share of a model's labels that the tree must have for the model to answer."""
_EXAMPLES_FRESH_S: Final = 300.0
_EXPLAINED_WORDS: Final = 40
_EXPLAINED_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestRequest:
    """A product without an id: its texts as they came, and its encoded photos."""

    designation: str = ""
    description: str = ""
    photos: tuple[bytes, ...] = ()
    timeout_s: float = 10.0
    client: str = ""
    priority: Priority = "online"

    def cleaned(self) -> tuple[str, str]:
        """Title and description without markup and hidden characters. Raises NothingToCategorise."""
        designation = clean(self.designation, TITLE_CHARACTERS)
        description = clean(self.description, DESCRIPTION_CHARACTERS)
        if not designation and not description and not self.photos:
            raise NothingToCategorise("Send a title, a description or a photo: there is nothing to categorise.")
        return designation, description


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """Categories for one product. `suggestions` are the best leaves, best first; `answer` is the deepest category
    that is sure enough, None where not even a root is. `kind` is what the model saw.

    With `cold_start` no model knows the tree, and the scores are rough. `embedding` is the mean embedding of the photos
    (float16).
    """

    suggestions: tuple[CategoryScore, ...]
    answer: CategoryScore | None
    kind: SampleKind
    model: str
    tree: int
    cold_start: bool
    needs_review: bool
    images: tuple[ImageFacts, ...] = ()
    embedding: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WordWeight:
    """A word of the text at `start:end`, and by how much the category's score falls without it."""

    text: str
    start: int
    end: int
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestRules:
    """What a channel's settings say: its model, how sure an answer must be, and how many leaves are suggested."""

    model: str
    answer_at: float
    accept_at: float | None
    suggestions: int


class SuggestService:
    """Suggestions in one channel. `examples` gives decided products of the live tree."""

    def __init__(
        self,
        engine: Engine,
        trees: TreeService,
        rules: SuggestRules,
        *,
        examples: Callable[[], Iterable[Example]],
    ) -> None:
        self._engine = engine
        self._trees = trees
        self.rules = rules
        self._examples = examples
        self._known = _KnownLabels(trees)
        self._cold: tuple[int, float, ColdStart] | None = None
        self._lock = threading.Lock()

    def tree(self, version: int) -> Tree:
        """The tree of a suggestion. Raises TreeNotFound."""
        return self._trees.get(version)

    async def suggest(self, request: SuggestRequest) -> Suggestion:
        """The best categories.

        Raises NothingToCategorise, SampleError for a photo that cannot be used, and as Engine.classify.
        """
        designation, description = request.cleaned()
        text = f"{designation}\n{description}".strip("\n") if description else designation
        tree = await asyncio.to_thread(self._trees.live)
        by_label = await asyncio.to_thread(self._known.by_label, self._engine.labels(self.rules.model), tree)
        if by_label is not None:
            result = await self._classify(request, text)
            return self._of_model(result, by_label, tree)
        embedded = await self._classify(request, "") if request.photos else None
        cold = await asyncio.to_thread(self._cold_start, tree)
        embedding = None if embedded is None or embedded.embedding is None else as_vector(embedded.embedding)
        scores = await asyncio.to_thread(cold.scores, text, embedding)
        return self._of_cold_start(scores, tree, text, embedded)

    async def explain(self, request: SuggestRequest, category: str) -> list[WordWeight]:
        """How much each word of the title speaks for the category: by leaving it out. The first forty words.

        Raises as `suggest`, and CategoryNotFound.
        """
        designation, _ = request.cleaned()
        below = frozenset(self._trees.live().below(category))
        words = words_of(designation)[:_EXPLAINED_WORDS]
        gate = asyncio.Semaphore(_EXPLAINED_AT_ONCE)

        async def score(title: str) -> float:
            async with gate:
                left = SuggestRequest(
                    designation=title, description=request.description, timeout_s=request.timeout_s,
                    client=request.client,
                )  # fmt: skip
                try:
                    return await self._score(left, below)
                except NothingToCategorise:
                    return 0.0

        whole = await score(designation)
        without = await asyncio.gather(
            *(score(designation[: word.start] + " " + designation[word.end :]) for word in words)
        )
        return [
            WordWeight(text=word.text, start=word.start, end=word.end, weight=whole - each)
            for word, each in zip(words, without, strict=True)
        ]

    async def _score(self, request: SuggestRequest, categories: frozenset[str]) -> float:
        """The probability of all these categories together, by the text alone."""
        designation, description = request.cleaned()
        text = f"{designation}\n{description}" if description else designation
        tree = self._trees.live()
        by_label = self._known.by_label(self._engine.labels(self.rules.model), tree)
        if by_label is None:
            scores: Mapping[str, float] = self._cold_start(tree).scores(text)
        else:
            scores = _scores((await self._classify(request, text)).prediction, by_label)
        return sum(score for category, score in scores.items() if category in categories)

    async def _classify(self, request: SuggestRequest, text: str) -> ClassifyResult:
        return await self._engine.classify(
            ClassifyRequest(
                model=self.rules.model,
                images=request.photos,
                text=text,
                top_k=_MOST_LABELS,
                timeout_s=request.timeout_s,
                client=request.client,
                priority=request.priority,
                embed=bool(request.photos),
            )
        )

    def _of_model(self, result: ClassifyResult, by_label: Mapping[str, str], tree: Tree) -> Suggestion:
        prediction = result.prediction
        return self._ranked(
            _scores(prediction, by_label),
            tree,
            kind=prediction.kind,
            model=str(prediction.model),
            cold_start=False,
            result=result,
        )

    def _of_cold_start(
        self, scores: Mapping[str, float], tree: Tree, text: str, embedded: ClassifyResult | None
    ) -> Suggestion:
        kind: SampleKind = "text" if embedded is None else "both" if text else "photo"
        return self._ranked(
            scores, tree, kind=kind, model=f"{COLD_START}@{tree.version}", cold_start=True, result=embedded
        )

    def _ranked(
        self,
        scores: Mapping[str, float],
        tree: Tree,
        *,
        kind: SampleKind,
        model: str,
        cold_start: bool,
        result: ClassifyResult | None,
    ) -> Suggestion:
        best = sorted(scores.items(), key=lambda each: (-each[1], each[0]))[: self.rules.suggestions]
        suggestions = tuple(CategoryScore(category=category, score=score) for category, score in best)
        accept_at = self.rules.accept_at or self.rules.answer_at
        return Suggestion(
            suggestions=suggestions,
            answer=tree.answer(scores, self.rules.answer_at),
            kind=kind,
            model=model,
            tree=tree.version,
            cold_start=cold_start,
            # What no model has learned is not accepted without a person, however sure it looks.
            needs_review=cold_start or not suggestions or suggestions[0].score < accept_at,
            images=() if result is None else result.images,
            embedding=None if result is None else result.embedding,
        )

    def _cold_start(self, tree: Tree) -> ColdStart:
        """That of this tree, with the products that were decided up to some minutes ago."""
        with self._lock:
            found = self._cold
            if found is not None and found[0] == tree.version and time.monotonic() - found[1] < _EXAMPLES_FRESH_S:
                return found[2]
            made = ColdStart(tree, self._examples())
            self._cold = tree.version, time.monotonic(), made
            return made


class _KnownLabels:
    """Which category of the live tree each label of the model stands for; remembered until one of them changes."""

    def __init__(self, trees: TreeService) -> None:
        self._trees = trees
        self._last: tuple[tuple[str, ...], int, dict[str, str] | None] | None = None

    def by_label(self, labels: tuple[str, ...], tree: Tree) -> Mapping[str, str] | None:
        """None where the tree has too few of them: then the model was trained for another one."""
        last = self._last
        if last is not None and last[1] == tree.version and (last[0] is labels or last[0] == labels):
            return last[2]
        found = {label: category for label in labels if (category := self._trees.of_label(split_path(label)))}
        known = found if found and len(found) >= _LEAST_KNOWN * len(labels) else None
        self._last = labels, tree.version, known
        return known


def _scores(prediction: Prediction, by_label: Mapping[str, str]) -> dict[str, float]:
    """The scores by category; labels that became one category are added, those without one are left out."""
    scores: dict[str, float] = {}
    for each in prediction.labels:
        category = by_label.get(each.label)
        if category is not None:
            scores[category] = scores.get(category, 0.0) + each.score
    return scores


def as_vector(embedding: bytes) -> NDArray[np.float32]:
    """A stored embedding as numbers."""
    return np.frombuffer(embedding, np.float16).astype(np.float32)
