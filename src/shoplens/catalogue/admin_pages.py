"""The pages of the catalogue about many products: accept above a confidence, the numbers, and the tree."""

from __future__ import annotations

import base64
import binascii
import zlib
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Form, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, RedirectResponse, Response

from shoplens.accounts.access import guarded, remember_browser, told_apart
from shoplens.accounts.entities import Permission, Principal
from shoplens.catalogue.charts import coverage_chart
from shoplens.catalogue.entities import ProductState
from shoplens.catalogue.numbers import ConfidencePoint
from shoplens.catalogue.pages import HOME, CataloguePages, ChannelName, FormText
from shoplens.catalogue.repository import ProductFilter, ProductOrder
from shoplens.catalogue.service import Catalogue, CatalogueChannel
from shoplens.catalogue.tree_source import MAX_BYTES, read_mapping, read_tree
from shoplens.errors import RequestInvalid
from shoplens.web.rendering import PageRoute, add_filters
from shoplens.web.uploads import FORM_FRAMING_BYTES, Uploads

_SAID = {"undone": "Taken back. These products wait for a decision again.", "tree": "The new tree is live."}
_EXAMPLES: Final = 6
_LISTED: Final = ("0.5", "0.6", "0.7", "0.8", "0.9", "0.95", "0.99")
_MOST_PACKED: Final = 900_000
"""Of a tree that a form carries from the comparison to the import, in characters."""
_FOUND: Final = 50


def accuracy_words(point: ConfidencePoint) -> str:
    """How many of the suggestions in a range were right, as far as people decided."""
    if point.accuracy is None:
        return "People have decided none in this range yet, so nothing says how many are right."
    return f"Of the {point.decided:,} that people decided in this range, {point.accuracy:.1%} were right."


add_filters(accuracy_words)


def accept_pages(catalogue: Catalogue) -> APIRouter:
    """Accept many suggestions at once, and take that back."""
    router = APIRouter(route_class=PageRoute, dependencies=[guarded(Permission.CATALOGUE_WRITE)])
    pages = CataloguePages(catalogue)

    @router.get(f"{HOME}/accept")
    def show(
        request: Request,
        channel: ChannelName = "",
        at_least: Annotated[float, Query(ge=0, le=1)] = 0.9,
        done: Annotated[int | None, Query(ge=0)] = None,
        said: str = "",
    ) -> HTMLResponse:
        by, chosen = told_apart(request), pages.channel(channel)
        numbers = catalogue.numbers.of(chosen.name)
        at_least = round(at_least, 2)
        wanted = ProductFilter(channel=chosen.name, state=ProductState.SUGGESTED, min_score=at_least)
        found = catalogue.products.page(wanted, order=ProductOrder.SCORE, limit=_EXAMPLES)
        total = numbers.curve[0].waiting
        undoable = _last_bulk(catalogue, chosen, by)
        nothing = "No product was accepted: the suggestions changed meanwhile." if done == 0 else None
        shown = pages.page(
            "catalogue_accept.html",
            chosen,
            tree=pages.tree(chosen),
            at_least=at_least,
            point=numbers.at(at_least),
            total=total,
            curve=[
                {"at_least": each.at_least, "waiting": each.waiting, "decided": each.decided, "right": each.right}
                for each in numbers.curve
            ],
            examples=found.products,
            photos=found.photos,
            undoable=undoable,
            said=nothing or _SAID.get(said),
        )
        remember_browser(shown, request, by)
        return shown

    @router.post(f"{HOME}/accept")
    def accept(
        request: Request, at_least: Annotated[float, Form(ge=0, le=1)], channel: FormText = ""
    ) -> RedirectResponse:
        by, chosen = told_apart(request), pages.channel(channel)
        wanted = ProductFilter(channel=chosen.name, min_score=at_least)
        made = catalogue.decisions.accept_bulk(wanted, by=by)
        answer = pages.back("/accept", chosen, at_least=str(at_least), done=str(made.accepted))
        remember_browser(answer, request, by)
        return answer

    @router.post(f"{HOME}/accept/undo")
    def undo(request: Request, bulk: FormText, channel: FormText = "") -> RedirectResponse:
        chosen = pages.channel(channel)
        catalogue.decisions.undo_bulk(bulk, by=told_apart(request))
        return pages.back("/accept", chosen, said="undone")

    return router


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoableBulk:
    """The last bulk acceptance of a person, as far as it stands."""

    id: str
    created_at: datetime
    count: int


def _last_bulk(catalogue: Catalogue, channel: CatalogueChannel, by: Principal) -> UndoableBulk | None:
    for _, decision in catalogue.decisions.recent(channel.name, by=by):
        if decision.bulk_id is not None:
            count = catalogue.numbers.bulk_size(decision.bulk_id)
            return UndoableBulk(id=decision.bulk_id, created_at=decision.created_at, count=count)
    return None


def number_pages(catalogue: Catalogue) -> APIRouter:
    """Coverage, accuracy and the rate of acceptance."""
    router = APIRouter(route_class=PageRoute, dependencies=[guarded(Permission.CATALOGUE_READ)])
    pages = CataloguePages(catalogue)

    @router.get(f"{HOME}/numbers")
    def show(channel: ChannelName = "") -> HTMLResponse:
        chosen = pages.channel(channel)
        numbers = catalogue.numbers.of(chosen.name)
        return pages.page(
            "catalogue_numbers.html",
            chosen,
            numbers=numbers,
            chart=coverage_chart(numbers, chosen.accept_at),
            listed=[numbers.at(float(each)) for each in _LISTED],
        )

    return router


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proposal:
    """A tree as it was uploaded: what a form carries from the comparison to the import."""

    tree: bytes
    mapping: bytes
    source: str
    note: str

    def packed(self) -> dict[str, str]:
        """The fields of the form. Raises RequestInvalid for a tree that is too large for one."""
        fields = {
            "tree": _packed(self.tree),
            "mapping": _packed(self.mapping),
            "source": self.source,
            "note": self.note,
        }
        if len(fields["tree"]) > _MOST_PACKED or len(fields["mapping"]) > _MOST_PACKED:
            raise RequestInvalid(
                "This tree is too large for the page. Import it with `shoplens catalogue tree import`."
            )
        return fields


def tree_pages(catalogue: Catalogue, uploads: Uploads) -> APIRouter:
    """The tree, its versions, and a new one: first what it would change, then the import."""
    router = APIRouter(route_class=PageRoute)
    pages = CataloguePages(catalogue)

    @router.get(f"{HOME}/tree", dependencies=[guarded(Permission.CATALOGUE_READ)])
    def show(channel: ChannelName = "", q: str = "", said: str = "") -> HTMLResponse:
        return _tree_page(
            pages, pages.channel(channel), query=q.replace("\x00", "").strip()[:200], said=_SAID.get(said)
        )

    @router.post(f"{HOME}/tree", dependencies=[guarded(Permission.CATALOGUE_ADMIN)])
    async def post(request: Request) -> Response:
        by = told_apart(request)
        async with uploads.form(request, max_bytes=2 * MAX_BYTES, max_files=2, max_fields=6) as form:
            fields = form.fields
            chosen = pages.channel(fields.get("channel", ""))
            if fields.get("stage") == "save":
                proposal = _Proposal(
                    tree=_unpacked(fields.get("tree", "")),
                    mapping=_unpacked(fields.get("mapping", "")),
                    source=fields.get("source", "")[:200],
                    note=fields.get("note", "")[:500],
                )
                await run_in_threadpool(_save, catalogue, chosen, proposal, by)
                return pages.back("/tree", chosen, said="tree")
            if not form.files:
                raise RequestInvalid("Choose the file with the tree.")
            proposal = _Proposal(
                tree=await form.files[0].read(MAX_BYTES + FORM_FRAMING_BYTES),
                mapping=await form.files[1].read(MAX_BYTES) if len(form.files) > 1 else b"",
                source=(form.files[0].filename or "upload")[:200],
                note=fields.get("note", "")[:500],
            )
        return await run_in_threadpool(_compared, catalogue, pages, chosen, proposal)

    return router


def _tree_page(
    pages: CataloguePages, channel: CatalogueChannel, *, query: str = "", said: str | None = None, **more: Any
) -> HTMLResponse:
    tree = pages.tree(channel)
    values: dict[str, Any] = {
        "tree": tree,
        "versions": pages.catalogue.trees[channel.name].versions(),
        "query": query,
        "matches": tree.search(query, limit=_FOUND, language=channel.language) if query else [],
        "said": said,
        "change": None,
        "proposed": None,
        "fields": {},
    }
    return pages.page("catalogue_tree.html", channel, **(values | more))


def _compared(
    catalogue: Catalogue, pages: CataloguePages, channel: CatalogueChannel, proposal: _Proposal
) -> HTMLResponse:
    tree = read_tree(proposal.tree, language=channel.language)
    mapping = read_mapping(proposal.mapping) if proposal.mapping else {}
    change = catalogue.trees[channel.name].compare(tree, mapping)
    return _tree_page(pages, channel, change=change, proposed=tree, fields=proposal.packed())


def _save(catalogue: Catalogue, channel: CatalogueChannel, proposal: _Proposal, by: Principal) -> None:
    tree = read_tree(proposal.tree, language=channel.language)
    mapping = read_mapping(proposal.mapping) if proposal.mapping else {}
    catalogue.trees[channel.name].save(tree, mapping, source=proposal.source, note=proposal.note, by=by)


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode()


def _unpacked(text: str) -> bytes:
    try:
        stream = zlib.decompressobj()
        return stream.decompress(base64.b64decode(text, validate=True), MAX_BYTES)
    except (binascii.Error, zlib.error) as error:
        raise RequestInvalid("The form is damaged. Upload the tree again.") from error
