"""The pages of products for a merchandiser: review, list, one product.

All forms work without a script.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import HTMLResponse, RedirectResponse

from shoplens.accounts.access import guarded, may, remember_browser, told_apart
from shoplens.accounts.entities import Permission
from shoplens.catalogue import presenting
from shoplens.catalogue.api import ProductOut
from shoplens.catalogue.entities import Product, ProductState
from shoplens.catalogue.errors import CategoryNotFound
from shoplens.catalogue.repository import ProductFilter, ProductOrder
from shoplens.catalogue.service import Catalogue, CatalogueChannel
from shoplens.catalogue.tree.categories import Tree, split_path
from shoplens.errors import RequestInvalid
from shoplens.messages import gettext, marked
from shoplens.web.rendering import add_filters, page
from shoplens.web.routing import page_router

HOME = "/console/catalogue"
PAGE_ROWS = 50
_QUEUE = 20
_SAID = {
    "decided": marked("Saved."),
    "undone": marked("Taken back. The product is as it was before."),
    "saved": marked("The product was saved with its category."),
}
_CONFIDENCE = {"90": (0.9, None), "70-90": (0.7, 0.9), "50-70": (0.5, 0.7), "50": (None, 0.5)}

FormText = Annotated[str, Form(max_length=25_000)]
ChannelName = Annotated[str, Query(max_length=100)]

add_filters(
    presenting.category_path,
    presenting.product_sureness,
    presenting.channel_query,
    presenting.photo_address,
    presenting.product_state_word,
    presenting.state_outcome,
    presenting.saw,
    presenting.decision_words,
    presenting.import_state,
    presenting.grouped,
    presenting.some,
    catalogue_state_words=presenting.STATE_WORDS,
    catalogue_confidence_words=presenting.CONFIDENCE_WORDS,
)


class CataloguePages:
    """What all pages of the catalogue share: their channel, its tree, and how many products need a person."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue

    def channel(self, name: str) -> CatalogueChannel:
        """The channel of this name; without one, the first. Raises NoCatalogue."""
        return self.catalogue.channel(name or next(iter(self.catalogue.channels), None))

    def tree(self, channel: CatalogueChannel) -> Tree:
        """Its live tree."""
        return self.catalogue.trees[channel.name].live()

    def waiting(self, channel: CatalogueChannel) -> int:
        """How many products need a person."""
        return self.catalogue.products.count(ProductFilter(channel=channel.name, needs_review=True))

    def page(self, template: str, channel: CatalogueChannel, *, status: int = 200, **values: Any) -> HTMLResponse:
        """A page of the channel."""
        shared = {"channel": channel, "channels": list(self.catalogue.channels.values())}
        return page(template, status=status, **{**shared, "waiting": self.waiting(channel), **values})

    def back(self, path: str, channel: CatalogueChannel, **query: str) -> RedirectResponse:
        """To another page of the channel, after a form."""
        if len(self.catalogue.channels) > 1:
            query["channel"] = channel.name
        return RedirectResponse(f"{HOME}{path}?{urlencode(query)}", status_code=303)


def review_pages(catalogue: Catalogue) -> APIRouter:
    """The queue of unsure products, and what its buttons do as forms."""
    router = page_router(dependencies=[guarded(Permission.CATALOGUE_WRITE)])
    pages = CataloguePages(catalogue)

    @router.get(f"{HOME}/review")
    def review(request: Request, channel: ChannelName = "", said: str = "") -> HTMLResponse:
        by = told_apart(request)
        chosen = pages.channel(channel)
        wanted = ProductFilter(channel=chosen.name, needs_review=True)
        found = catalogue.products.page(wanted, order=ProductOrder.SCORE, limit=_QUEUE)
        tree, waiting = pages.tree(chosen), pages.waiting(chosen)
        first = found.products[0] if found.products else None
        paths = catalogue.paths(chosen.name)
        items = [ProductOut.of(each, found.photos.get(each.id, ()), paths) for each in found.products]
        shown = pages.page(
            "catalogue_review.html",
            chosen,
            tree=tree,
            product=first,
            photos=found.photos.get(first.id, ()) if first else (),
            options=_options(first, tree, chosen) if first else [],
            total=waiting or catalogue.products.count(ProductFilter(channel=chosen.name)),
            boot={"items": [each.model_dump(mode="json") for each in items], "waiting": waiting},
            me=hashlib.sha256(by.id.encode()).hexdigest()[:16],
            said=gettext(_SAID.get(said, "")),
        )
        remember_browser(shown, request, by)
        return shown

    @router.post(f"{HOME}/products/{{product_id}}/category")
    def decide(
        request: Request,
        product_id: str,
        *,
        channel: FormText = "",
        category: FormText = "",
        typed: FormText = "",
        action: FormText = "",
        revision: Annotated[int | None, Form(ge=0)] = None,
        back: FormText = "",
    ) -> RedirectResponse:
        by, chosen = told_apart(request), pages.channel(channel)
        if action == "undo":
            catalogue.decisions.undo(chosen.name, product_id, by=by)
        else:
            wanted = category or typed_category(typed, pages.tree(chosen))
            catalogue.decisions.decide(chosen.name, product_id, by=by, category=wanted, revision=revision)
        said = "undone" if action == "undo" else "decided"
        answer = pages.back("/review" if back == "review" else f"/products/{product_id}", chosen, said=said)
        remember_browser(answer, request, by)
        return answer

    return router


def product_pages(catalogue: Catalogue) -> APIRouter:
    """The list of products, and one with everything."""
    router = page_router(dependencies=[guarded(Permission.CATALOGUE_READ)])
    pages = CataloguePages(catalogue)

    @router.get(f"{HOME}/products")
    def products(request: Request, channel: ChannelName = "", said: str = "") -> HTMLResponse:
        chosen = pages.channel(channel)
        tree = pages.tree(chosen)
        bar = read_filter(request, chosen, tree, many=len(catalogue.channels) > 1)
        after = request.query_params.get("after") or None
        order = ProductOrder.SCORE if bar.needs_review else ProductOrder.ID
        found = catalogue.products.page(bar.wanted, order=order, limit=PAGE_ROWS, after=after)
        return pages.page(
            "catalogue_products.html",
            chosen,
            tree=tree,
            bar=bar,
            products=found.products,
            photos=found.photos,
            found=catalogue.products.count(bar.wanted),
            next=found.next,
            after=after,
            said=gettext(_SAID.get(said, "")),
        )

    @router.get(f"{HOME}/products/{{product_id}}")
    def one(request: Request, product_id: str, channel: ChannelName = "", said: str = "") -> HTMLResponse:
        chosen = pages.channel(channel)
        product, photos = catalogue.products.get(chosen.name, product_id)
        tree = pages.tree(chosen)
        shown = pages.page(
            "catalogue_product.html",
            chosen,
            tree=tree,
            product=product,
            photos=photos,
            options=_options(product, tree, chosen),
            history=list(reversed(catalogue.decisions.history(chosen.name, product.id))),
            said=gettext(_SAID.get(said, "")),
        )
        if may(Permission.CATALOGUE_WRITE):
            remember_browser(shown, request, told_apart(request))
        return shown

    return router


def typed_category(text: str, tree: Tree) -> str:
    """The category that a person typed: an id, a path, or a name that only one has. Raises CategoryNotFound."""
    wanted = text.strip()
    if not wanted:
        raise RequestInvalid("Choose a category, or type one.")
    if wanted in tree:
        return wanted
    path = tuple(name.casefold() for name in split_path(wanted.replace("›", ">")))
    named = [each for each in tree if each.path[-1].casefold() == path[-1]] if path else []
    found = [each.id for each in named if len(path) == 1 or tuple(map(str.casefold, each.path)) == path]
    if len(found) == 1:
        return found[0]
    if found:
        raise RequestInvalid(f'{len(found)} categories are called "{wanted[:80]}". Type the whole path, like "A > B".')
    near = tree.search(wanted, limit=3)
    hint = gettext(" Near it: %(join)s.", join="; ".join(" > ".join(each.path) for each in near)) if near else ""
    raise CategoryNotFound(f'There is no category "{wanted[:80]}".{hint}')


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductBar:
    """A filter as the form shows it."""

    wanted: ProductFilter
    state: ProductState | None
    confidence: str
    category_text: str
    channel: str | None

    @property
    def text(self) -> str | None:
        """The words that are searched."""
        return self.wanted.text

    @property
    def kind(self) -> str | None:
        """What the model saw."""
        return self.wanted.kind

    @property
    def needs_review(self) -> bool:
        """Whether only products are wanted that need a person."""
        return bool(self.wanted.needs_review)

    @property
    def active(self) -> bool:
        """Whether anything is filtered out."""
        return bool(self._parameters())

    def query(self, **more: str) -> str:
        """The query string with `more` parameters after the filter's own."""
        channel = {"channel": self.channel} if self.channel else {}
        return f"?{urlencode({**channel, **self._parameters(), **more})}"

    def _parameters(self) -> dict[str, str]:
        state = "review" if self.needs_review else self.state.value if self.state else ""
        found = {
            "q": self.text or "",
            "state": state,
            "category": self.category_text,
            "confidence": self.confidence,
            "kind": self.kind or "",
        }
        return {name: value for name, value in found.items() if value}


def read_filter(request: Request, channel: CatalogueChannel, tree: Tree, *, many: bool) -> ProductBar:
    """The filter in a query; empty fields mean any. Raises RequestInvalid and CategoryNotFound."""
    query = {name: value.replace("\x00", "").strip() for name, value in request.query_params.items()}
    state, confidence, kind = query.get("state", ""), query.get("confidence", ""), query.get("kind", "")
    if state not in {"", "review", *ProductState}:
        raise RequestInvalid(f'"{state[:40]}" is not a state. Use one of: review, {", ".join(ProductState)}.')
    if confidence not in {"", *_CONFIDENCE}:
        raise RequestInvalid(f'"{confidence[:40]}" is no range of confidence. Use one of: {", ".join(_CONFIDENCE)}.')
    if kind not in {"", "photo", "text", "both"}:
        raise RequestInvalid(f'"{kind[:40]}" is not what a model sees. Use one of: photo, text, both.')
    category = query.get("category", "")
    below = frozenset(tree.below(typed_category(category, tree))) if category else None
    least, most = _CONFIDENCE.get(confidence, (None, None))
    known = ProductState(state) if state not in ("", "review") else None
    wanted = ProductFilter(
        channel=channel.name,
        state=known,
        categories=below,
        needs_review=True if state == "review" else None,
        text=query.get("q", "")[:200] or None,
        kind=kind or None,
        min_score=least,
        max_score=most,
    )
    return ProductBar(
        wanted=wanted,
        state=known,
        confidence=confidence,
        category_text=category[:500],
        channel=channel.name if many else None,
    )


def _options(product: Product, tree: Tree, channel: CatalogueChannel) -> list[presenting.Option]:
    scores = [(each.category, each.score) for each in product.suggestions]
    return presenting.options(scores, product.answer, tree, channel.language)
