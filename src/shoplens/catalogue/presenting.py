"""Products, suggestions and numbers in the words of pages.

`static/catalogue-view.js` has the same for what a script shows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from shoplens.catalogue.entities import (
    CatalogueRun,
    CategoryDecision,
    CategoryDecisionKind,
    ImportJob,
    Product,
    ProductPhoto,
    ProductState,
)
from shoplens.catalogue.service import CatalogueChannel
from shoplens.catalogue.suggest.service import Ignored
from shoplens.catalogue.tree.categories import Tree
from shoplens.messages import DEFAULT, gettext, marked, whole_number
from shoplens.messages import language as page_language

STATE_WORDS: Final = {
    ProductState.NEW: marked("No suggestion yet"),
    ProductState.SUGGESTED: marked("Suggested"),
    ProductState.ACCEPTED: marked("Accepted"),
    ProductState.CORRECTED: marked("Corrected"),
}
CONFIDENCE_WORDS: Final = {
    "90": marked("90%% or more"),
    "70-90": marked("70%% to 90%%"),
    "50-70": marked("50%% to 70%%"),
    "50": marked("Below 50%%"),
}
_OUTCOMES: Final = {
    ProductState.NEW: "none",
    ProductState.SUGGESTED: "none",
    ProductState.ACCEPTED: "accept",
    ProductState.CORRECTED: "accept",
}
_SAW: Final = {"photo": marked("the photo alone"), "text": marked("the text alone"), "both": marked("photo and text")}
_IGNORED: Final[Mapping[Ignored, str]] = {"text": marked("text"), "photos": marked("photos")}
_DECIDED: Final = {
    CategoryDecisionKind.ACCEPTED: marked("accepted"),
    CategoryDecisionKind.CORRECTED: marked("corrected to"),
    CategoryDecisionKind.UNDONE: marked("took the decision back"),
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
    """The names from the root to a category; of one that the tree does not have, its id.

    A page that is not in English shows its own language where the tree has it, else the channel's `language`.
    """
    if category not in tree:
        return (category,)
    spoken = page_language.get()
    return tuple(
        tree[each].names[spoken] if spoken != DEFAULT and spoken in tree[each].names else tree.name(each, language)
        for each in tree.ancestors(category)
    )


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
        return gettext("The model has no suggestion.")
    if answer is None:
        return gettext("Not sure of any category. Best guesses:")
    if answer == suggestions[0]:
        return gettext("Probably:") if needs_review else gettext("Sure:")
    below = suggestions[0] in tree and answer in tree.ancestors(suggestions[0])
    known = category_path(answer, tree, language)[-1]
    if below:
        return gettext("Sure as far as %(category)s. Best guesses below it:", category=known)
    return gettext("Sure as far as %(category)s. Best guesses:", category=known)


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
        return gettext("Failed")
    return gettext("Needs review") if product.needs_review else gettext(STATE_WORDS[product.state])


def state_outcome(product: Product) -> str:
    """The colour of that."""
    if product.state is ProductState.NEW and product.failure:
        return "reject"
    return "review" if product.needs_review else _OUTCOMES[product.state]


def saw(kind: str | None, ignored: Ignored | None = None) -> str | None:
    """What the model had of a product, and what it cannot look at although it was given."""
    if kind is None:
        return None
    seen = gettext(_SAW[kind])
    return (
        seen
        if ignored is None
        else gettext("%(saw)s; it takes no %(ignored)s", saw=seen, ignored=gettext(_IGNORED[ignored]))
    )


def decision_words(decision: CategoryDecision) -> str:
    """Who did what, before the category that it led to."""
    words = f"{decision.by_name} {gettext(_DECIDED[decision.kind])}"
    if decision.bulk_id is not None:
        words += gettext(" with many others")
    return f"{words}:" if decision.category is not None else f"{words}."


def import_state(job: ImportJob) -> str:
    """How far an import is."""
    if job.error is not None:
        return gettext("Failed")
    return gettext("Importing") if job.finished_at is None else gettext("Done")


def catalogue_run_state(run: CatalogueRun) -> str:
    """How far a run is."""
    if run.cancelled_by is not None:
        return gettext("Cancelled by %(cancelled_by)s", cancelled_by=run.cancelled_by)
    if run.finished_at is not None:
        return gettext("Done") if run.failure is None else gettext("Given up")
    return gettext("Running") if run.owner is not None else gettext("Waiting for its process")


def grouped(number: int) -> str:
    """1204 is "1,204"."""
    return whole_number(number)


def some(ids: Sequence[str]) -> str:
    """How many there are; lists end at fifty."""
    return gettext("%(most_listed)s or more", most_listed=_MOST_LISTED) if len(ids) >= _MOST_LISTED else str(len(ids))


def _sure_parts(category: str, sure: AbstractSet[str], tree: Tree) -> int:
    """How many names of the path belong to the answer; none where the answer is not above the category."""
    if category not in tree or not sure <= set(tree.ancestors(category)):
        return 0
    return len(sure)
