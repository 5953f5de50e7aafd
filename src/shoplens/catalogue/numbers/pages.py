"""The page of the catalogue with its numbers."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter
from starlette.responses import HTMLResponse

from shoplens.accounts.access import guarded
from shoplens.accounts.entities import Permission
from shoplens.catalogue.numbers.charts import LEAST_DECIDED, coverage_chart
from shoplens.catalogue.pages import HOME, CataloguePages, ChannelName
from shoplens.catalogue.service import Catalogue
from shoplens.web.routing import page_router

_LISTED: Final = ("0.5", "0.6", "0.7", "0.8", "0.9", "0.95", "0.99")


def number_pages(catalogue: Catalogue) -> APIRouter:
    """Coverage, accuracy and the rate of acceptance."""
    router = page_router(dependencies=[guarded(Permission.CATALOGUE_READ)])
    pages = CataloguePages(catalogue)

    @router.get(f"{HOME}/numbers")
    def show(channel: ChannelName = "") -> HTMLResponse:
        chosen = pages.channel(channel)
        numbers = catalogue.numbers.of(chosen.name)
        return pages.page(
            "catalogue_numbers.html",
            chosen,
            numbers=numbers,
            chart=coverage_chart(numbers, catalogue.suggest[chosen.name].accept_at()),
            least_decided=LEAST_DECIDED,
            listed=[numbers.at(float(each)) for each in _LISTED],
        )

    return router
