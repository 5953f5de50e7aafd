"""The API of what people ask about a catalogue: its numbers, and what the model saw in a photo."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Self

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.responses import Response

from shoplens.accounts.access import guarded
from shoplens.accounts.entities import Permission
from shoplens.catalogue.api import ChannelName, ProductId
from shoplens.catalogue.entities import ProductState
from shoplens.catalogue.numbers import CatalogueNumbers
from shoplens.catalogue.repository import ProductFilter
from shoplens.catalogue.service import Catalogue
from shoplens.web.schemas import Schema, json_response


class ConfidencePointOut(Schema):
    """What holds for suggestions with a score of at least `at_least`."""

    at_least: float
    products: int = Field(description="Products with such a suggestion.")
    waiting: int = Field(description="Those of them that nobody decided: what a bulk acceptance from here on accepts.")
    decided: int = Field(description="Such suggestions that people decided one by one.")
    right: int = Field(description="Those of them with which people agreed.")


class WeekOut(Schema):
    """The decisions of people on suggestions, one by one, in a week from Monday on (UTC)."""

    start: date
    decided: int
    accepted: int


class NumbersOut(Schema):
    """Coverage and accuracy of a catalogue together, and how often people accept suggestions."""

    products: int
    needs_review: int
    states: dict[ProductState, int]
    curve: list[ConfidencePointOut] = Field(description="For each hundredth of confidence, from 0 to 1.")
    weeks: list[WeekOut] = Field(description="The last half year, newest first; weeks without a decision are left out.")

    @classmethod
    def of(cls, numbers: CatalogueNumbers, needs_review: int) -> Self:
        """The numbers of a channel."""
        return cls(
            products=numbers.total,
            needs_review=needs_review,
            states=dict(numbers.states),
            curve=[ConfidencePointOut.model_validate(each) for each in numbers.curve],
            weeks=[WeekOut.model_validate(each) for each in numbers.weeks],
        )


def numbers_router(catalogue: Catalogue) -> APIRouter:
    """/catalogue/numbers, and the heat maps of photos."""
    router = APIRouter(prefix="/catalogue", tags=["catalogue"], dependencies=[guarded(Permission.CATALOGUE_READ)])

    @router.get(
        "/numbers",
        operation_id="get_catalogue_numbers",
        response_model=NumbersOut,
        summary="Coverage, accuracy and acceptance",
    )
    def numbers(channel: ChannelName = None) -> Response:
        """How many products have a suggestion at which confidence, and how many of such suggestions were right."""
        name = catalogue.channel(channel).name
        waiting = catalogue.products.count(ProductFilter(channel=name, needs_review=True))
        return json_response(NumbersOut.of(catalogue.numbers.of(name), waiting))

    @router.get(
        "/products/{product_id}/photos/{position}/heatmap",
        operation_id="get_catalogue_product_heatmap",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}, "description": "A PNG to lay over the photo."}},
        summary="What the model saw in a photo",
    )
    def heatmap(
        product_id: ProductId,
        position: Annotated[int, Path(ge=0, le=100)],
        category: Annotated[str, Query(max_length=300, description="For which category, with all below it.")],
        channel: ChannelName = None,
    ) -> Response:
        """Where the photo speaks for a category. 422 for a model without such a map, or without a label for it."""
        data = catalogue.heat_maps.of(catalogue.channel(channel).name, product_id, position, category)
        return Response(data, media_type="image/png", headers={"Cache-Control": "private, max-age=600"})

    return router
