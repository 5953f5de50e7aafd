"""Products, suggestions and numbers in the words of pages.

`static/catalogue-view.js` has the same for what a script shows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from shoplens.catalogue.entities import (
    CatalogueRun,
    CategoryDecision,
    DecisionKind,
    ImportJob,
    Product,
    ProductPhoto,
    ProductState,
)
from shoplens.catalogue.service import CatalogueChannel
from shoplens.catalogue.suggest import Ignored
from shoplens.catalogue.tree import Tree

STATE_WORDS: Final = {
    ProductState.NEW: "No suggestion yet",
    ProductState.SUGGESTED: "Suggested",
    ProductState.ACCEPTED: "Accepted",
    ProductState.CORRECTED: "Corrected",
}
CONFIDENCE_WORDS: Final = {"90": "90% or more", "70-90": "70% to 90%", "50-70": "50% to 70%", "50": "Below 50%"}
_OUTCOMES: Final = {
    ProductState.NEW: "none",
    ProductState.SUGGESTED: "none",
    ProductState.ACCEPTED: "accept",
    ProductState.CORRECTED: "accept",
}
_SAW: Final = {"photo": "the photo alone", "text": "the text alone", "both": "photo and text"}
_DECIDED: Final = {
    DecisionKind.ACCEPTED: "accepted",
    DecisionKind.CORRECTED: "corrected to",
    DecisionKind.UNDONE: "took the decision back",
}
SHOWN_OPTIONS: Final = 3
_MOST_LISTED: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One suggested category as a page shows it. The model is sure of the first `sure` names of its path."""

    category: str
    path: tuple[str, ...]
    score: float
    sure: int = 0


def category_path(category: str, tree: Tree, language: str = "") -> tuple[str, ...]:
    """The names from the root to a category; of one that the tree does not have, its id."""
    if category not in tree:
        return (category,)
    return tuple(tree.name(each, language) for each in tree.ancestors(category))


def options(
    suggestions: Sequence[tuple[str, float]], answer: str | None, tree: Tree, language: str = ""
) -> list[Option]:
    """The best suggestions (category and score) with their paths, as far as the answer is on them."""
    sure = set(tree.ancestors(answer)) if answer is not None and answer in tree else set()
    return [
        Option(
            category=category,
            path=category_path(category, tree, language),
            score=score,
            sure=_sure_parts(category, sure, tree),
        )
        for category, score in suggestions[:SHOWN_OPTIONS]
    ]


def sureness(
    suggestions: Sequence[str], answer: str | None, tree: Tree, language: str = "", *, needs_review: bool = False
) -> str:
    """How sure the model is, as the heading above its suggestions."""
    if not suggestions:
        return "The model has no suggestion."
    if answer is None:
        return "Not sure of any category. Best guesses:"
    if answer == suggestions[0]:
        return "Probably:" if needs_review else "Sure:"
    below = suggestions[0] in tree and answer in tree.ancestors(suggestions[0])
    return f"Sure as far as {category_path(answer, tree, language)[-1]}. Best guesses{' below it' if below else ''}:"


def product_sureness(product: Product, tree: Tree, language: str = "") -> str:
    """The same for a stored product."""
    found = [each.category for each in product.suggestions]
    return sureness(found, product.answer, tree, language, needs_review=product.needs_review)


def channel_query(channel: CatalogueChannel, channels: Collection[CatalogueChannel]) -> str:
    """What addresses of a page end with, so that it stays in its channel; nothing where there is only one."""
    return f"?{urlencode({'channel': channel.name})}" if len(channels) > 1 else ""


def photo_address(product: Product, photo: ProductPhoto, size: str) -> str:
    """Where the photo is: `thumbnail`, `view` or `original`."""
    query = urlencode({"channel": product.channel, "size": size})
    return f"/catalogue/products/{product.id}/photos/{photo.position}?{query}"


def product_state_word(product: Product) -> str:
    """How far a product is."""
    if product.state is ProductState.NEW and product.failure:
        return "Failed"
    return "Needs review" if product.needs_review else STATE_WORDS[product.state]


def state_outcome(product: Product) -> str:
    """The colour of that."""
    if product.state is ProductState.NEW and product.failure:
        return "reject"
    return "review" if product.needs_review else _OUTCOMES[product.state]


def saw(kind: str | None, ignored: Ignored | None = None) -> str | None:
    """What the model had of a product, and what it cannot look at although it was given."""
    if kind is None:
        return None
    return _SAW[kind] if ignored is None else f"{_SAW[kind]}; it takes no {ignored}"


def decision_words(decision: CategoryDecision) -> str:
    """Who did what, before the category that it led to."""
    words = f"{decision.by_name} {_DECIDED[decision.kind]}"
    if decision.bulk_id is not None:
        words += " with many others"
    return f"{words}:" if decision.category is not None else f"{words}."


def import_state(job: ImportJob) -> str:
    """How far an import is."""
    if job.error is not None:
        return "Failed"
    return "Importing" if job.finished_at is None else "Done"


def catalogue_run_state(run: CatalogueRun) -> str:
    """How far a run is."""
    if run.cancelled_by is not None:
        return f"Cancelled by {run.cancelled_by}"
    if run.finished_at is not None:
        return "Done" if run.failure is None else "Given up"
    return "Running" if run.owner is not None else "Waiting for its process"


def grouped(number: int) -> str:
    """1204 is "1,204"."""
    return f"{number:,}"


def some(ids: Sequence[str]) -> str:
    """How many there are; lists end at fifty."""
    return f"{_MOST_LISTED} or more" if len(ids) >= _MOST_LISTED else str(len(ids))


def _sure_parts(category: str, sure: AbstractSet[str], tree: Tree) -> int:
    """How many names of the path belong to the answer; none where the answer is not above the category."""
    if category not in tree or not sure <= set(tree.ancestors(category)):
        return 0
    return len(sure)
