"""The JSON API of the numbers of a catalogue."""

from __future__ import annotations

from datetime import date
from typing import Self

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from shoplens.accounts.access import guarded
from shoplens.accounts.entities import Permission
from shoplens.catalogue.api import ChannelName
from shoplens.catalogue.entities import ProductState
from shoplens.catalogue.numbers.service import CatalogueNumbers
from shoplens.catalogue.repository import ProductFilter
from shoplens.catalogue.service import Catalogue
from shoplens.web.routing import api_router
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
    """GET /catalogue/numbers."""
    router = api_router(prefix="/catalogue", tags=["catalogue"], dependencies=[guarded(Permission.CATALOGUE_READ)])

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

    return router
