"""The page of keyboard shortcuts: what each key does on which page, and another key for it.

The choice stays in the browser (`static/shortcuts.js`); here are the keys that the scripts of the pages know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from shoplens.accounts.access import identify_quietly, public
from shoplens.messages import marked
from shoplens.web.rendering import page
from shoplens.web.routing import page_router


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortcutGroup:
    """The keys of a page. `name` is `data-keys` of its body; each key has what it does in words."""

    name: str
    title: str
    keys: Sequence[tuple[str, str]]


SHORTCUTS: Final = (
    ShortcutGroup(
        name="records",
        title=marked("Records"),
        keys=(("j", marked("Next record")), ("k", marked("Previous record"))),
    ),
    ShortcutGroup(
        name="runs",
        title=marked("Photos of a run"),
        keys=(
            ("j", marked("Next photo, like →")),
            ("k", marked("Previous photo, like ←")),
            ("y", marked("Confirm the prediction")),
            ("2", marked("The second guess is right")),
            ("3", marked("The third guess is right")),
            ("n", marked("None of these categories")),
            ("x", marked("Not usable")),
            ("s", marked("Skip")),
            ("u", marked("Undo the last answer")),
            ("o", marked("Open the photo's page")),
            ("z", marked("Zoom")),
        ),
    ),
    ShortcutGroup(
        name="moderation",
        title=marked("Moderation"),
        keys=(
            ("a", marked("Accept")),
            ("r", marked("Reject, then choose the reason")),
            ("s", marked("Skip")),
            ("e", marked("Escalate to another person")),
            ("u", marked("Undo the last decision")),
            ("g", marked("Grid or single photo")),
            ("x", marked("Select in the grid")),
            ("*", marked("Select all in the grid")),
            ("v", marked("Show this photo as it is")),
            ("b", marked("Blurred, grey or as they are")),
            ("h", marked("Heat map: what the model saw")),
            ("?", marked("Show the keys")),
        ),
    ),
    ShortcutGroup(
        name="catalogue",
        title=marked("Catalogue"),
        keys=(
            ("1", marked("The first suggestion is right")),
            ("2", marked("The second suggestion is right")),
            ("3", marked("The third suggestion is right")),
            ("0", marked("Only the sure part of the category")),
            ("/", marked("Search another category")),
            ("s", marked("Skip")),
            ("n", marked("Next product")),
            ("u", marked("Undo")),
            ("w", marked("Why this category?")),
            ("h", marked("Heat map")),
            ("o", marked("Open the product's page")),
            ("?", marked("Show the keys")),
        ),
    ),
)


def shortcut_pages() -> APIRouter:
    """GET /console/shortcuts. It says nothing of the shop, so anybody may read it."""
    router = page_router(dependencies=[public])

    @router.get("/console/shortcuts")
    async def shortcuts(request: Request) -> HTMLResponse:
        await identify_quietly(request)
        return page("shortcuts.html", groups=SHORTCUTS)

    return router
