"""The page on which a title, a description and photos get categories. It works as a plain form where no script runs."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, RedirectResponse, Response

from shoplens.accounts.access import guarded, principal_of, remember_browser, told_apart
from shoplens.accounts.entities import Permission
from shoplens.catalogue import presenting
from shoplens.catalogue.errors import NoCatalogue
from shoplens.catalogue.pages import HOME, CataloguePages, ChannelName, FormText
from shoplens.catalogue.service import Catalogue, CatalogueChannel
from shoplens.catalogue.suggest.service import MAX_PHOTOS, Suggestion, SuggestRequest
from shoplens.errors import ShoplensError
from shoplens.texts.cleaning import DESCRIPTION_CHARACTERS, TITLE_CHARACTERS
from shoplens.web.problems import public_detail, request_id_of, status_of
from shoplens.web.rendering import STATIC_DIR
from shoplens.web.routing import page_router
from shoplens.web.shares import address_of
from shoplens.web.uploads import Uploads

_FIELDS: Final = frozenset({"channel", "designation", "description", "reference", "sample"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A product to try; `photo` is a static file."""

    name: str
    designation: str = ""
    photo: str | None = None


SAMPLES: Final = (
    Sample(name="apples", designation="Granny Smith apples, loose, 1 kg"),
    Sample(name="loafers", designation="Men's leather loafers, camel, size 43", photo="samples/loafers.jpg"),
    Sample(name="dress", photo="samples/dress.jpg"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What somebody typed, to be shown again."""

    designation: str = ""
    description: str = ""
    reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSuggestion:
    """A suggestion in the words of the page."""

    options: list[presenting.Option]
    sureness: str
    saw: str | None
    model: str
    tree: int
    cold_start: bool


def suggest_pages(catalogue: Catalogue, uploads: Uploads, *, max_image_bytes: int, timeout_s: float) -> APIRouter:
    """The first page of the catalogue."""
    router = page_router()
    pages = CataloguePages(catalogue)

    def shown(
        channel: CatalogueChannel,
        *,
        asked: Asked | None = None,
        suggestion: Suggestion | None = None,
        error: ShoplensError | None = None,
        request: Request,
    ) -> HTMLResponse:
        return pages.page(
            "catalogue.html",
            channel,
            status=200 if error is None else status_of(type(error)),
            asked=asked or Asked(),
            suggestion=None if suggestion is None else _shown(suggestion, pages, channel),
            error=None if error is None else public_detail(error, request_id_of(request)),
            samples=SAMPLES,
            max_bytes=max_image_bytes,
            max_photos=MAX_PHOTOS,
            title_characters=TITLE_CHARACTERS,
            description_characters=DESCRIPTION_CHARACTERS,
        )

    @router.get(HOME, dependencies=[guarded(Permission.CATALOGUE_READ)])
    def show(request: Request, channel: ChannelName = "") -> Response:
        chosen = pages.channel(channel)
        if not principal_of(request).may(Permission.CATALOGUE_WRITE):
            return RedirectResponse(f"{HOME}/products", status_code=303)
        return shown(chosen, request=request)

    @router.post(HOME, dependencies=[guarded(Permission.CATALOGUE_WRITE)])
    async def post(request: Request) -> Response:
        fields: Mapping[str, str] = {}
        suggestion, error = None, None
        try:
            async with uploads.texts_and_photos(request, most=MAX_PHOTOS, fields=_FIELDS) as form:
                fields = form.fields
                chosen = pages.channel(fields.get("channel", ""))
                sample = next((each for each in SAMPLES if each.name == fields.get("sample")), None)
                photos = [photo for photo in form.photos if photo]
                if sample is not None:
                    fields = {"designation": sample.designation}
                    photos = [] if sample.photo is None else [(STATIC_DIR / sample.photo).read_bytes()]
                suggestion = await catalogue.suggest[chosen.name].suggest(
                    SuggestRequest(
                        designation=fields.get("designation", ""),
                        description=fields.get("description", ""),
                        photos=tuple(photos),
                        timeout_s=timeout_s,
                        client=address_of(request),
                    )
                )
        except NoCatalogue:
            raise
        except ShoplensError as found:
            chosen, error = pages.channel(fields.get("channel", "")), found
        asked = Asked(**{name: fields.get(name, "") for name in ("designation", "description", "reference")})
        return await run_in_threadpool(shown, chosen, asked=asked, suggestion=suggestion, error=error, request=request)

    @router.post(f"{HOME}/products", dependencies=[guarded(Permission.CATALOGUE_WRITE)])
    async def save(
        request: Request,
        *,
        category: FormText,
        designation: FormText = "",
        description: FormText = "",
        reference: FormText = "",
        channel: FormText = "",
    ) -> RedirectResponse:
        by, chosen = told_apart(request), pages.channel(channel)
        saved = await catalogue.save(
            chosen.name,
            reference=reference.strip() or f"page-{secrets.token_hex(5)}",
            designation=designation,
            description=description,
            photos=(),
            timeout_s=timeout_s,
            client=address_of(request),
        )
        await run_in_threadpool(
            catalogue.decisions.decide, chosen.name, saved.product.id, by=by, category=category, revision=None
        )
        answer = pages.back(f"/products/{saved.product.id}", chosen, said="saved")
        remember_browser(answer, request, by)
        return answer

    return router


def _shown(suggestion: Suggestion, pages: CataloguePages, channel: CatalogueChannel) -> ShownSuggestion:
    tree = pages.catalogue.trees[channel.name].get(suggestion.tree)
    scores = [(each.category, each.score) for each in suggestion.suggestions]
    answer = None if suggestion.answer is None else suggestion.answer.category
    return ShownSuggestion(
        options=presenting.options(scores, answer, tree, channel.language),
        sureness=presenting.sureness(
            [category for category, _ in scores], answer, tree, channel.language, needs_review=suggestion.needs_review
        ),
        saw=presenting.saw(suggestion.kind, suggestion.ignored),
        model=suggestion.model,
        tree=suggestion.tree,
        cold_start=suggestion.cold_start,
    )
