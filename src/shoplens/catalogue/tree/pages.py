"""The page of the catalogue with its tree: browse, search, compare and import."""

from __future__ import annotations

import base64
import binascii
import zlib
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, Response

from shoplens.accounts.access import guarded, told_apart
from shoplens.accounts.entities import Permission, Principal
from shoplens.catalogue.pages import HOME, CataloguePages, ChannelName
from shoplens.catalogue.service import Catalogue, CatalogueChannel
from shoplens.catalogue.tree.source import MAX_BYTES, read_mapping, read_tree
from shoplens.errors import RequestInvalid
from shoplens.messages import gettext, marked
from shoplens.web.routing import page_router
from shoplens.web.uploads import FORM_FRAMING_BYTES, Uploads

_SAID = {"tree": marked("The new tree is live.")}
_MOST_PACKED: Final = 900_000
"""Of a tree that a form carries from the comparison to the import, in characters."""
_FOUND: Final = 50


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
    router = page_router()
    pages = CataloguePages(catalogue)

    @router.get(f"{HOME}/tree", dependencies=[guarded(Permission.CATALOGUE_READ)])
    def show(channel: ChannelName = "", q: str = "", said: str = "") -> HTMLResponse:
        return _tree_page(
            pages, pages.channel(channel), query=q.replace("\x00", "").strip()[:200], said=gettext(_SAID.get(said, ""))
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
