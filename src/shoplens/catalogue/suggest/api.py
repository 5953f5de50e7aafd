"""The JSON API of suggestions: categories for a text, photos or both, and why."""

from __future__ import annotations

import asyncio
from typing import Annotated, Self

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from shoplens.accounts.access import guarded
from shoplens.accounts.entities import Permission
from shoplens.bundles.manifest import SampleKind
from shoplens.catalogue.entities import CategoryScore
from shoplens.catalogue.service import Catalogue
from shoplens.catalogue.suggest.service import MAX_PHOTOS, Ignored, Suggestion, SuggestRequest, WordWeight
from shoplens.catalogue.tree.categories import Tree
from shoplens.errors import RequestInvalid
from shoplens.web.routing import api_router
from shoplens.web.schemas import BodySchema, Schema, json_response
from shoplens.web.shares import address_of
from shoplens.web.uploads import Uploads, no_file

FIELDS = frozenset({"designation", "description", "channel", "keys"})


class SuggestedOut(Schema):
    """A category with its path and its probability."""

    category: str = Field(examples=["food-fruit-apple-granny-smith"])
    path: str = Field(examples=["Food > Fruit > Apple > Granny Smith"])
    score: float = Field(examples=[0.91])

    @classmethod
    def of(cls, score: CategoryScore, tree: Tree, language: str) -> Self:
        """The category with its names in this language."""
        return cls(category=score.category, path=tree.path_text(score.category, language), score=score.score)


class SuggestionOut(Schema):
    """The best leaves of the tree, best first, and the deepest category that is sure enough."""

    suggestions: list[SuggestedOut]
    answer: SuggestedOut | None = Field(description="Null: not even a category at the top is sure enough.")
    kind: SampleKind = Field(description="What the model saw.")
    ignored: Ignored | None = Field(description="What was sent and the model cannot look at.")
    model: str = Field(examples=["starter-catalogue@1"])
    tree: int = Field(description="The version of the tree; 0 is what the model brought.")
    cold_start: bool = Field(
        description="No model was trained for this tree: the answer comes from its names and from decided products."
    )
    needs_review: bool = Field(description="The best score is below the channel's `accept_at`, or it is a cold start.")

    @classmethod
    def of(cls, suggestion: Suggestion, tree: Tree, language: str) -> Self:
        """The suggestion with paths."""
        answer = suggestion.answer
        return cls(
            suggestions=[SuggestedOut.of(each, tree, language) for each in suggestion.suggestions],
            answer=None if answer is None else SuggestedOut.of(answer, tree, language),
            kind=suggestion.kind,
            ignored=suggestion.ignored,
            model=suggestion.model,
            tree=suggestion.tree,
            cold_start=suggestion.cold_start,
            needs_review=suggestion.needs_review,
        )


class ExplainIn(BodySchema):
    """A text, and the category that it should be explained for."""

    designation: str = Field(max_length=20_000)
    description: str = Field(default="", max_length=40_000)
    category: str = Field(max_length=300)
    channel: str | None = Field(default=None, max_length=100)


class WordOut(Schema):
    """A word of the cleaned title at `start` to `end`, and by how much the score falls without it."""

    text: str
    start: int
    end: int
    weight: float


class ExplanationOut(Schema):
    """The first forty words of the title; those with a weight above zero speak for the category."""

    designation: str = Field(description="The cleaned title, to which the places refer.")
    category: str
    words: list[WordOut]

    @classmethod
    def of(cls, designation: str, category: str, words: list[WordWeight]) -> Self:
        """The words in their order."""
        return cls(designation=designation, category=category, words=[WordOut.model_validate(each) for each in words])


def suggest_router(catalogue: Catalogue, uploads: Uploads, *, timeout_s: float) -> APIRouter:
    """POST /catalogue/suggest and /catalogue/explain."""
    router = api_router(prefix="/catalogue", tags=["catalogue"], dependencies=[guarded(Permission.CATALOGUE_WRITE)])

    @router.post(
        "/suggest",
        response_model=SuggestionOut,
        summary="Suggest categories",
        openapi_extra={"requestBody": _BODY},
    )
    async def suggest(
        request: Request,
        language: Annotated[
            str | None, Query(max_length=20, description="Language of the paths; unset: the channel's.")
        ] = None,
    ) -> Response:
        """JSON with `designation`, `description` and `photos` (base64) or `keys`, or a form with these and files in
        `file`.

        Any of the three may be missing, but not all. `keys` are as of POST /catalogue/products. Nothing is stored.
        """
        async with uploads.texts_and_photos(request, most=MAX_PHOTOS, fields=FIELDS) as sample:
            channel = catalogue.channel(sample.fields.get("channel"))
            keys = sample.fields.get("keys", "").split()
            if len(keys) + len(sample.photos) > MAX_PHOTOS:
                raise RequestInvalid(f"At most {MAX_PHOTOS} photos may be sent or named.")
            async with catalogue.keyed_photos.read(channel.name, keys, timeout_s=timeout_s) as named:
                suggestion = await catalogue.suggest[channel.name].suggest(
                    SuggestRequest(
                        designation=sample.fields.get("designation", ""),
                        description=sample.fields.get("description", ""),
                        photos=(*sample.photos, *named),
                        timeout_s=timeout_s,
                        client=address_of(request),
                    )
                )
        tree = await asyncio.to_thread(catalogue.trees[channel.name].get, suggestion.tree)
        return json_response(SuggestionOut.of(suggestion, tree, language or channel.language))

    @router.post("/explain", response_model=ExplanationOut, summary="Which words speak for a category")
    async def explain(request: Request, body: ExplainIn) -> Response:
        """Each word is left out in turn; its weight is what the category's probability loses without it."""
        service = catalogue.suggest[catalogue.channel(body.channel).name]
        wanted = SuggestRequest(
            designation=body.designation, description=body.description, timeout_s=timeout_s, client=address_of(request)
        )
        designation, words = await service.explain(wanted, body.category)
        return json_response(ExplanationOut.of(designation, body.category, words))

    @router.post(
        "/heatmap",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}, "description": "A PNG to lay over the photo."}},
        openapi_extra={"requestBody": _HEAT_BODY},
        operation_id="make_catalogue_heatmap",
        summary="What the model sees in a photo",
    )
    async def heatmap(request: Request) -> Response:
        """Where a photo speaks for a category. 422 for a model without such a map, or without a label for it."""
        async with uploads.texts_and_photos(request, most=1, fields=frozenset({"channel", "category"})) as sample:
            channel = catalogue.channel(sample.fields.get("channel")).name
            if not sample.photos:
                raise no_file()
            category = sample.fields.get("category", "")
            data = await asyncio.to_thread(catalogue.heat_maps.of_photo, channel, sample.photos[0], category)
        return Response(data, media_type="image/png", headers={"Cache-Control": "no-store"})

    return router


_TEXT = {"type": "string"}
_KEYS = {**_TEXT, "description": "Paths, keys or addresses of photos, with blanks between."}
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "designation": _TEXT,
                    "description": _TEXT,
                    "channel": _TEXT,
                    "keys": _KEYS,
                    "photos": {"type": "array", "items": {"type": "string", "format": "byte"}, "maxItems": MAX_PHOTOS},
                },
                "additionalProperties": False,
            }
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "designation": _TEXT,
                    "description": _TEXT,
                    "channel": _TEXT,
                    "keys": _KEYS,
                    "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
                },
            }
        },
    },
}
_HEAT_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file", "category"],
                "properties": {
                    "file": {"type": "string", "format": "binary"},
                    "category": {**_TEXT, "description": "For which category, with all below it."},
                    "channel": _TEXT,
                },
            }
        }
    },
}
