"""The page of a customer: photos by state, strikes with their dates, receipts, and the button that erases all of it."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form
from starlette.responses import HTMLResponse, RedirectResponse

from shoplens.accounts.access import requires
from shoplens.accounts.entities import Permission, Principal
from shoplens.errors import RequestInvalid
from shoplens.moderation.consequences.customers import MAX_REFERENCE, CustomerService
from shoplens.web.rendering import page
from shoplens.web.routing import page_router

HOME: Final = "/console/moderation/customers"


def customer_pages(customers: CustomerService) -> APIRouter:
    """A reference may have slashes in it."""
    router = page_router()

    @router.get(f"{HOME}/{{reference:path}}")
    def show(
        reference: str,
        by: Annotated[Principal, Depends(requires(Permission.MODERATION_REVIEW))],
        said: str = "",
    ) -> HTMLResponse:
        return page(
            "moderation_customer.html",
            customer=customers.get(reference),
            may_erase=by.may(Permission.MODERATION_ADMIN),
            erased=bool(said),
        )

    @router.post(f"{HOME}/{{reference:path}}")
    def erase(
        reference: str,
        by: Annotated[Principal, Depends(requires(Permission.MODERATION_ADMIN))],
        confirm: Annotated[str, Form(max_length=MAX_REFERENCE)] = "",
    ) -> RedirectResponse:
        if confirm.strip() != reference:
            raise RequestInvalid(
                "Nothing was erased. Type the customer's reference exactly as it stands above the form."
            )
        customers.erase(reference, by=by)
        return RedirectResponse(f"{HOME}/{quote(reference, safe='')}?said=1", status_code=303)

    return router
