"""Suggest categories for a product: its text and photos through the channel's model, and the scores up the live tree.

A tree that the model does not know gets answers from its names and the decided products (`cold_start.py`) instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from shoplens.bundles.manifest import SampleKind
from shoplens.catalogue.entities import CategoryScore
from shoplens.catalogue.errors import NothingToCategorise
from shoplens.catalogue.suggest.cold_start import ColdStart, ColdStarts, Example
from shoplens.catalogue.tree.categories import Tree, split_path
from shoplens.catalogue.tree.service import TreeService
from shoplens.errors import RequestInvalid
from shoplens.images.picture import ImageFacts
from shoplens.predictions.policy import Policy
from shoplens.registry.shadow import AnsweredSample, Offer, offer_nothing
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, Engine, Prediction, Priority
from shoplens.telemetry.metrics import Metrics
from shoplens.texts.cleaning import DESCRIPTION_CHARACTERS, TITLE_CHARACTERS, clean
from shoplens.texts.features import words_of

MAX_PHOTOS: Final = 10
Ignored = Literal["text", "photos"]
"""What a product has and the model cannot look at."""
COLD_START: Final = "cold-start"
"""What answers where no model knows the tree; its version is that of the tree."""
_MOST_LABELS: Final = 500
"""Of models with more labels only the best count; the others' scores are below one in five hundred."""
_LEAST_KNOWN: Final = 0.5
"""The share of a model's labels that the tree must have for the model to answer."""
_EXPLAINED_WORDS: Final = 40
_EXPLAINED_AT_ONCE: Final = 4
_EXPLAINED_DESCRIPTION: Final = 2_000
"""Characters of the description; each word of the title costs a look at all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestRequest:
    """A product: its texts as they came, and its encoded photos. `product` is its id, None if it is not stored."""

    designation: str = ""
    description: str = ""
    photos: tuple[bytes, ...] = ()
    product: str | None = None
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
    that is sure enough, None where not even a root is. `kind` is what the model saw, `ignored` what it cannot look at.

    With `cold_start` no model knows the tree, and the scores are rough. `embedding` is the mean embedding of the photos
    (float16). `audit_share` of the suggestions that need no person are checked by one nevertheless.
    """

    suggestions: tuple[CategoryScore, ...]
    answer: CategoryScore | None
    kind: SampleKind
    model: str
    tree: int
    cold_start: bool
    needs_review: bool
    ignored: Ignored | None = None
    images: tuple[ImageFacts, ...] = ()
    embedding: bytes | None = None
    audit_share: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WordWeight:
    """A word of the text at `start:end`, and by how much the category's score falls without it."""

    text: str
    start: int
    end: int
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestRules:
    """What a channel's settings say: its model, how sure an answer must be, how many leaves are suggested, and the
    share of sure ones that a person checks.
    """

    model: str
    answer_at: float
    suggestions: int
    audit_share: float = 0.0


class SuggestService:
    """Suggestions in one channel. `policy` gives its thresholds as they are now, and may block.

    `examples` gives decided products of the live tree; `answered` is called with each sample that the model answered.
    `metrics` count what people and programs wait for; None in a run.
    """

    def __init__(
        self,
        engine: Engine,
        trees: TreeService,
        rules: SuggestRules,
        *,
        policy: Callable[[], Policy],
        examples: Callable[[], Iterable[Example]],
        answered: Offer = offer_nothing,
        metrics: Metrics | None = None,
    ) -> None:
        self._answered = answered
        self._metrics = metrics
        self._engine = engine
        self._trees = trees
        self.rules = rules
        self._policy = policy
        self._known = _KnownLabels(trees)
        self._cold = ColdStarts(examples)

    def tree(self, version: int) -> Tree:
        """The tree of a suggestion. Raises TreeNotFound."""
        return self._trees.get(version)

    def accept_at(self) -> float:
        """The score from which a suggestion needs no person, as it is now. Blocks; raises DatabaseUnavailable."""
        return self._policy().accept_at or self.rules.answer_at

    async def suggest(self, request: SuggestRequest) -> Suggestion:
        """The best categories, from what the model can look at: the text, the photos, or both.

        Raises NothingToCategorise, RequestInvalid for a product of which the model can look at nothing, SampleError for
        a photo that cannot be used, NotStarted while the first answers for a new tree are prepared for longer than the
        request waits, and as Engine.classify.
        """
        if self._metrics is None:
            return await self._suggest(request)
        channel, model = self._trees.channel, self.rules.model.partition("@")[0]
        with self._metrics.request_of(channel, model):
            found = await self._suggest(request)
        outcome = "review" if found.needs_review else "accept"
        self._metrics.channel_predictions.labels(channel=channel, model=model, outcome=outcome).inc()
        return found

    async def _suggest(self, request: SuggestRequest) -> Suggestion:
        labels = self._engine.labels(self.rules.model)
        text, tree, by_label, accept_at = await asyncio.to_thread(self._prepared, request, labels)
        cold = None if by_label is not None else await self._cold.of(tree, request.timeout_s)
        request, text, ignored = self._usable(request, text, cold=cold is not None)
        if by_label is not None:
            asked = self._request(request, text)
            result = await self._engine.classify(asked)
            self._answered(
                AnsweredSample(
                    request=asked,
                    channel=self._trees.channel,
                    prediction=result.prediction,
                    product_id=request.product,
                )
            )
            found = self._of_model(result, by_label, tree, accept_at)
        else:
            assert cold is not None
            embedded = await self._engine.classify(self._request(request, "")) if request.photos else None
            found = await asyncio.to_thread(self._of_cold_start, cold, tree, text, embedded)
        return replace(found, ignored=ignored)

    async def explain(self, request: SuggestRequest, category: str) -> tuple[str, list[WordWeight]]:
        """The cleaned title, and how much each of its first forty words speaks for the category: by leaving it out.

        Of the description the beginning counts. Raises as `suggest`, CategoryNotFound, and RequestInvalid for a model
        that reads no texts.
        """
        designation, description = await asyncio.to_thread(request.cleaned)
        description = description[:_EXPLAINED_DESCRIPTION]
        tree = await asyncio.to_thread(self._trees.live)
        below = frozenset(tree.below(category))
        by_label = await asyncio.to_thread(self._known.by_label, self._engine.labels(self.rules.model), tree)
        cold = None if by_label is not None else await self._cold.of(tree, request.timeout_s)
        if cold is None and "text" not in self._engine.kinds(self.rules.model):
            raise RequestInvalid(f"The model {self.rules.model} looks at photos only, so no word counts.")
        words = words_of(designation)[:_EXPLAINED_WORDS]
        gate = asyncio.Semaphore(_EXPLAINED_AT_ONCE)

        async def score(title: str) -> float:
            text = _text_of(clean(title, TITLE_CHARACTERS), description)
            if not text:
                return 0.0
            async with gate:
                if cold is not None:
                    scores: Mapping[str, float] = await asyncio.to_thread(cold.scores, text)
                else:
                    alone = replace(request, photos=())
                    answer = await self._engine.classify(self._request(alone, text))
                    scores = _scores(answer.prediction, by_label or {})
                return sum(scores.get(each, 0.0) for each in below)

        whole = await score(designation)
        without = await asyncio.gather(
            *(score(designation[: word.start] + " " + designation[word.end :]) for word in words)
        )
        return designation, [
            WordWeight(text=word.text, start=word.start, end=word.end, weight=whole - each)
            for word, each in zip(words, without, strict=True)
        ]

    def _prepared(
        self, request: SuggestRequest, labels: tuple[str, ...]
    ) -> tuple[str, Tree, Mapping[str, str] | None, float]:
        """The text, the live tree, its category of each label, and the threshold, in one change of threads."""
        text, tree = _text_of(*request.cleaned()), self._trees.live()
        return text, tree, self._known.by_label(labels, tree), self.accept_at()

    def _usable(self, request: SuggestRequest, text: str, *, cold: bool) -> tuple[SuggestRequest, str, Ignored | None]:
        """The request and the text without what the model cannot look at; a cold start reads texts by itself."""
        kinds = self._engine.kinds(self.rules.model)
        if request.photos and "photo" not in kinds:
            if not text:
                raise RequestInvalid(f"The model {self.rules.model} reads texts only: send a title or a description.")
            return replace(request, photos=()), text, "photos"
        if text and "text" not in kinds and not cold:
            if not request.photos:
                raise RequestInvalid(f"The model {self.rules.model} looks at photos only: send a photo.")
            return request, "", "text"
        return request, text, None

    def _request(self, request: SuggestRequest, text: str) -> ClassifyRequest:
        return ClassifyRequest(
            model=self.rules.model,
            images=request.photos,
            text=text,
            top_k=_MOST_LABELS,
            timeout_s=request.timeout_s,
            client=request.client,
            priority=request.priority,
            embed=bool(request.photos),
        )

    def _of_model(
        self, result: ClassifyResult, by_label: Mapping[str, str], tree: Tree, accept_at: float
    ) -> Suggestion:
        prediction = result.prediction
        found = self._ranked(
            _scores(prediction, by_label),
            tree,
            kind=prediction.kind,
            model=str(prediction.model),
            cold_start=False,
            result=result,
        )
        return replace(found, needs_review=not found.suggestions or found.suggestions[0].score < accept_at)

    def _of_cold_start(self, cold: ColdStart, tree: Tree, text: str, embedded: ClassifyResult | None) -> Suggestion:
        embedding = None if embedded is None or embedded.embedding is None else as_vector(embedded.embedding)
        scores = cold.scores(text, embedding)
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
        return Suggestion(
            suggestions=suggestions,
            answer=tree.answer(scores, self.rules.answer_at),
            kind=kind,
            model=model,
            tree=tree.version,
            cold_start=cold_start,
            # What no model has learned is not accepted without a person, however sure it looks.
            needs_review=True,
            images=() if result is None else result.images,
            embedding=None if result is None else result.embedding,
            audit_share=self.rules.audit_share,
        )


def _text_of(designation: str, description: str) -> str:
    return f"{designation}\n{description}".strip("\n") if description else designation


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
        found = categories_of(labels, self._trees)
        known = found if knows(found, labels) else None
        self._last = labels, tree.version, known
        return known


def categories_of(labels: Sequence[str], trees: TreeService) -> dict[str, str]:
    """The live category of each label of a model, also where the model was trained for an earlier tree."""
    paths = {label: split_path(label) for label in labels}
    by_path = trees.of_labels(paths.values())
    return {label: by_path[path] for label, path in paths.items() if path in by_path}


def knows(found: Mapping[str, str], labels: Sequence[str]) -> bool:
    """Whether a model with these labels can answer for the tree in which `found` has their categories."""
    return len(found) > 0 and len(found) >= _LEAST_KNOWN * len(labels)


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
