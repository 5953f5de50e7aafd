"""The JSON API of the tree: browse and search categories, its versions, and a new tree with what it changes."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import Field
from starlette.responses import Response, StreamingResponse

from shoplens.accounts.access import guarded, requires
from shoplens.accounts.entities import Permission, Principal
from shoplens.catalogue.errors import TreeInvalid
from shoplens.catalogue.service import Catalogue
from shoplens.catalogue.tree.categories import Tree
from shoplens.catalogue.tree.service import TreeChange, TreeService
from shoplens.catalogue.tree.source import MAX_BYTES, read_mapping, read_tree, tree_rows, with_names
from shoplens.spreadsheets import csv_chunks
from shoplens.web.downloads import download
from shoplens.web.routing import api_router
from shoplens.web.schemas import Schema, json_response
from shoplens.web.uploads import UploadedForm, Uploads

ChannelName = Annotated[
    str | None, Query(max_length=100, description="Optional if only one channel has a catalogue side.")
]
Language = Annotated[str | None, Query(max_length=20, description="Language of names; unset: the channel's.")]
Admin = Annotated[Principal, Depends(requires(Permission.CATALOGUE_ADMIN))]
CategoryId = Annotated[str, Path(max_length=300)]


class CategoryOut(Schema):
    """A category with its path in one language. `children` counts those directly below it."""

    id: str
    name: str
    path: str
    names: dict[str, str]
    synonyms: list[str]
    children: int

    @classmethod
    def of(cls, category: str, tree: Tree, language: str) -> Self:
        """The category with this id."""
        found = tree[category]
        return cls(
            id=found.id,
            name=tree.name(category, language),
            path=tree.path_text(category, language),
            names=dict(found.names),
            synonyms=list(found.synonyms),
            children=len(tree.children(category)),
        )


class CategoriesOut(Schema):
    """Categories of one version of the tree."""

    tree: int
    items: list[CategoryOut]


class TreeVersionOut(Schema):
    """One import of a tree."""

    version: int
    created_at: datetime
    created_by: str
    source: str
    note: str
    categories: int
    digest: str


class TreeVersionsOut(Schema):
    """All imports, newest first; `live` is the newest, 0 where the tree is still the one that the model brought."""

    live: int
    items: list[TreeVersionOut]


class TreeChangeOut(Schema):
    """What a new tree changes; of ids at most fifty each are listed."""

    version: int = Field(description="The number that the new tree has, or would get.")
    categories: int
    added: list[str]
    removed: list[str]
    moved: list[str] = Field(description="The same id with another path.")
    carried: int = Field(description="Decided products that go with their category to its successor.")
    uncertain: int = Field(description="Decided products whose category has no successor: people decide them again.")
    saved: bool

    @classmethod
    def of(cls, change: TreeChange) -> Self:
        """The same change."""
        return cls.model_validate(change)


def tree_router(catalogue: Catalogue, uploads: Uploads) -> APIRouter:
    """/catalogue/categories and /catalogue/tree."""
    router = api_router(prefix="/catalogue", tags=["catalogue"])
    reading = [guarded(Permission.CATALOGUE_READ)]

    def trees_of(channel: str | None) -> tuple[TreeService, str]:
        found = catalogue.channel(channel)
        return catalogue.trees[found.name], found.language

    @router.get("/categories", dependencies=reading, response_model=CategoriesOut, summary="Find categories")
    def categories(
        text: Annotated[str | None, Query(max_length=200, description="Beginnings of words.")] = None,
        below: Annotated[str | None, Query(max_length=300, description="Only those directly below.")] = None,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 20,
        channel: ChannelName = None,
        language: Language = None,
    ) -> Response:
        """With `text`: the best matches. With `below`: the children of a category. With neither: the roots."""
        trees, spoken = trees_of(channel)
        tree = trees.live()
        spoken = language or spoken
        if text is not None:
            found = [each.id for each in tree.search(text, limit=limit, language=spoken)]
        else:
            found = list(tree.children(None if below is None else tree[below].id))[:limit]
        items = [CategoryOut.of(each, tree, spoken) for each in found]
        return json_response(CategoriesOut(tree=tree.version, items=items))

    @router.get("/categories/{category_id}", dependencies=reading, response_model=CategoryOut, summary="One category")
    def category(category_id: CategoryId, channel: ChannelName = None, language: Language = None) -> Response:
        """A category of the live tree."""
        trees, spoken = trees_of(channel)
        return json_response(CategoryOut.of(category_id, trees.live(), language or spoken))

    @router.get("/tree", dependencies=reading, response_model=TreeVersionsOut, summary="Versions of the tree")
    def versions(channel: ChannelName = None) -> Response:
        """All imports of the channel's tree."""
        trees, _ = trees_of(channel)
        items = [TreeVersionOut.model_validate(each) for each in trees.versions()]
        return json_response(TreeVersionsOut(live=trees.live().version, items=items))

    @router.get("/tree.csv", dependencies=reading, summary="The tree as CSV", response_class=StreamingResponse)
    def export(
        version: Annotated[int | None, Query(ge=0, description="Unset: the live one.")] = None,
        channel: ChannelName = None,
    ) -> Response:
        """One row per category, in the form that the import reads."""
        trees, _ = trees_of(channel)
        tree = trees.live() if version is None else trees.get(version)
        header, rows = tree_rows(tree)
        name = f"tree-{trees.channel}-{tree.version}.csv"
        return download(csv_chunks(header, rows), name=name, media_type="text/csv; charset=utf-8")

    @router.post(
        "/tree",
        response_model=TreeChangeOut,
        summary="Import a tree",
        openapi_extra={"requestBody": _BODY},
    )
    async def replace(
        request: Request,
        by: Admin,
        dry_run: Annotated[bool, Query(description="Only say what would change.")] = False,
        channel: ChannelName = None,
    ) -> Response:
        """A form with the tree in `file`: our CSV, or the text of Google's or Shopify's taxonomy.

        A second file in `file` maps old categories to new ones (`before,after`). The field `add_language` adds the
        names of the file in that language to the live tree instead. `note` says why.
        """
        trees, _ = trees_of(channel)
        async with uploads.form(request, max_bytes=2 * MAX_BYTES, max_files=2, max_fields=10) as form:
            change = await asyncio.to_thread(_import, trees, form, by, dry_run=dry_run)
        return json_response(TreeChangeOut.of(change))

    return router


def _import(trees: TreeService, form: UploadedForm, by: Principal, *, dry_run: bool) -> TreeChange:
    if not form.files:
        raise TreeInvalid("The form has no file in the field 'file'. Send: curl -F file=@tree.csv …")
    language = form.fields.get("add_language", "")
    tree = read_tree(form.files[0].file.read(MAX_BYTES + 1), language=language or "en")
    if language:
        tree = with_names(trees.live(), tree, language)
    mapping = read_mapping(form.files[1].file.read(MAX_BYTES + 1)) if len(form.files) > 1 else {}
    if dry_run:
        return trees.compare(tree, mapping)
    source = (form.files[0].filename or "upload")[:200]
    return trees.save(tree, mapping, source=source, note=form.fields.get("note", "")[:1_000], by=by)


_TEXT = {"type": "string"}
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {"type": "array", "items": {"type": "string", "format": "binary"}, "maxItems": 2},
                    "note": _TEXT,
                    "add_language": _TEXT,
                },
            }
        }
    },
}
