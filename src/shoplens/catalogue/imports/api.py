"""The JSON API of what goes in and out: products one by one, whole tables, and exports."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Query, Request
from pydantic import Field
from starlette.datastructures import UploadFile
from starlette.responses import Response, StreamingResponse

from shoplens.accounts.access import guarded, note, requester_of
from shoplens.accounts.entities import Permission
from shoplens.catalogue.api import Asked, ChannelName, ProductOut
from shoplens.catalogue.entities import ImportJob
from shoplens.catalogue.errors import ImportInvalid
from shoplens.catalogue.export import ProductFormat
from shoplens.catalogue.imports.service import MAX_FAULTS, NewImport
from shoplens.catalogue.imports.uploaded_tables import MAX_BYTES, MAX_FILES, sorted_files
from shoplens.catalogue.products import SaveOutcome
from shoplens.catalogue.service import Catalogue
from shoplens.catalogue.suggest.service import MAX_PHOTOS
from shoplens.errors import RequestInvalid
from shoplens.web.downloads import download
from shoplens.web.routing import api_router
from shoplens.web.schemas import Schema, json_response
from shoplens.web.shares import address_of
from shoplens.web.uploads import Uploads

_PRODUCT_FIELDS = frozenset({"reference", "designation", "description", "channel", "keys"})


class SavedProductOut(ProductOut):
    """A product as it is stored now, with what became of it and of its suggestion."""

    outcome: SaveOutcome
    not_suggested: str | None = Field(description="Why there is no suggestion now; a run over the catalogue adds it.")


class ImportFaultOut(Schema):
    """A row that could not be used, or what it lacked. `line` is its line in the file, 1 for the header."""

    line: int
    code: str
    reason: str
    reference: str | None


class ImportOut(Schema):
    """An import. It has ended where `finished_at` is set; `error` says why it ended early."""

    id: str
    channel: str
    created_at: datetime
    created_by: str
    source: str
    rows: int
    added: int
    changed: int
    unchanged: int
    faults: int
    unnamed_photos: int = Field(description="Photos in ZIP files that no row names.")
    finished_at: datetime | None
    error: str | None


class ImportDetailOut(ImportOut):
    """An import with what it could not use. `next` is the value for `after`, null on the last page."""

    listed: list[ImportFaultOut]
    first_unnamed: list[str] = Field(description="The first of the photos that no row names, by name; at most 200.")
    next: int | None


def import_router(catalogue: Catalogue, uploads: Uploads, *, timeout_s: float) -> APIRouter:
    """POST /catalogue/products, /catalogue/import…, and GET /catalogue/export."""
    router = api_router(prefix="/catalogue", tags=["catalogue"])
    administering = [guarded(Permission.CATALOGUE_ADMIN)]

    @router.post(
        "/products",
        dependencies=[guarded(Permission.CATALOGUE_WRITE)],
        status_code=201,
        response_model=SavedProductOut,
        openapi_extra={"requestBody": _PRODUCT_BODY},
        summary="Create or replace a product",
    )
    async def create(request: Request) -> Response:
        """JSON with `reference`, texts and `photos` (base64) or `keys`, or a form with these and files in `file`.

        The product is stored, and then gets a suggestion. Without one it is stored all the same, and `not_suggested`
        says why. Photos replace those that it had; without any they stay.
        """
        async with uploads.texts_and_photos(request, most=MAX_PHOTOS, fields=_PRODUCT_FIELDS) as sample:
            channel = catalogue.channel(sample.fields.get("channel")).name
            saved = await catalogue.save(
                channel,
                reference=sample.fields.get("reference", ""),
                designation=sample.fields.get("designation", ""),
                description=sample.fields.get("description", ""),
                photos=tuple(sample.photos),
                keys=tuple(sample.fields.get("keys", "").split()),
                timeout_s=timeout_s,
                client=address_of(request),
            )
        paths = await asyncio.to_thread(catalogue.paths, channel)
        shown = ProductOut.of(saved.product, saved.photos, paths).model_dump()
        body = SavedProductOut(**shown, outcome=saved.outcome, not_suggested=saved.not_suggested)
        return json_response(body, status=201)

    @router.post(
        "/import",
        dependencies=administering,
        status_code=202,
        response_model=ImportOut,
        openapi_extra={"requestBody": _TABLE_BODY},
        summary="Import a table of products",
    )
    async def start(request: Request) -> Response:
        """A form with a CSV file in `file`, and a second one with categories for the format of the Rakuten challenge.

        Photos are named by keys or addresses, or sent beside the table: as ZIP files or one by one, each in a field
        `file`; rows name them by their file names. The import goes on in the background; GET /catalogue/imports/{id}
        says how far it is.
        """
        async with uploads.form(request, max_bytes=MAX_BYTES, max_files=MAX_FILES, max_fields=3) as form:
            if not form.files:
                raise ImportInvalid("Send the table as a file: curl -F file=@products.csv …")
            name = catalogue.channel(form.fields.get("channel")).name
            new = NewImport(
                channel=name,
                source="",
                by=requester_of(request, "http"),
                chosen=_columns(form.fields.get("columns")),
            )
            job = await asyncio.to_thread(_upload, catalogue, new, list(form.files))
        note(request, "catalogue.imported", target=job.id, channel=name, source=job.source)
        return json_response(ImportOut.model_validate(job), status=202)

    @router.get("/imports", dependencies=administering, response_model=list[ImportOut], summary="The newest imports")
    def imports(channel: ChannelName = None) -> Response:
        """The newest twenty first."""
        found = catalogue.imports.newest(catalogue.channel(channel).name)
        shown = [ImportOut.model_validate(each).model_dump(mode="json") for each in found]
        return Response(orjson.dumps(shown), media_type="application/json")

    @router.get(
        "/imports/{import_id}", dependencies=administering, response_model=ImportDetailOut, summary="One import"
    )
    def one(
        import_id: Annotated[str, Path(max_length=64)],
        limit: Annotated[int, Query(ge=1, le=MAX_FAULTS)] = 100,
        after: Annotated[int, Query(ge=0, description="Faults in lines after this one.")] = 0,
    ) -> Response:
        """How far it is, and what it could not use."""
        job = catalogue.imports.get(import_id)
        return json_response(_detail(catalogue, job, limit=limit, after=after))

    @router.get(
        "/export",
        dependencies=administering,
        response_class=StreamingResponse,
        operation_id="export_catalogue",
        summary="Export products",
    )
    def export(
        request: Request,
        asked: Asked,
        kind: Annotated[
            ProductFormat, Query(alias="format", description="`x` and `y`: the two files of the Rakuten challenge.")
        ] = ProductFormat.CSV,
    ) -> StreamingResponse:
        """Every product that matches, in the order of ids."""
        note(request, "catalogue.exported", query=request.url.query)
        chunks = catalogue.export(asked.filter(catalogue), kind)
        return download(chunks, name=kind.file_name, media_type=kind.media_type)

    return router


def _upload(catalogue: Catalogue, new: NewImport, files: list[UploadFile]) -> ImportJob:
    with ExitStack() as stack:
        found = sorted_files(files, stack)
        new = replace(new, source=found.source)
        return catalogue.imports.upload(new, found.table, found.codes, found.archives)


def _columns(text: str | None) -> dict[str, str]:
    if text is None:
        return {}
    try:
        chosen = orjson.loads(text)
    except orjson.JSONDecodeError:
        chosen = None
    if not isinstance(chosen, dict) or not all(isinstance(each, str) for each in chosen.values()):
        raise RequestInvalid('Send `columns` as JSON: {"designation": "TITLE", "reference": "SKU"}.')
    return chosen


def _detail(catalogue: Catalogue, job: ImportJob, *, limit: int, after: int) -> ImportDetailOut:
    listed = catalogue.imports.faults(job.id, limit=limit, after=after)
    shown: dict[str, Any] = ImportOut.model_validate(job).model_dump()
    return ImportDetailOut(
        **shown,
        listed=[ImportFaultOut.model_validate(each) for each in listed],
        first_unnamed=list(job.first_unnamed),
        next=listed[-1].line if len(listed) == limit else None,
    )


_TEXT = {"type": "string"}
_PRODUCT = {
    "reference": {**_TEXT, "description": "The shop's own id; a product with it is replaced."},
    "designation": _TEXT,
    "description": _TEXT,
    "channel": _TEXT,
    "keys": {**_TEXT, "description": "Paths, keys or addresses of photos, with blanks between."},
}
_PRODUCT_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["reference"],
                "properties": {
                    **_PRODUCT,
                    "photos": {"type": "array", "items": {"type": "string", "format": "byte"}, "maxItems": MAX_PHOTOS},
                },
                "additionalProperties": False,
            }
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["reference"],
                "properties": {**_PRODUCT, "file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            }
        },
    },
}
_TABLE_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {"type": "array", "items": {"type": "string", "format": "binary"}, "maxItems": MAX_FILES},
                    "channel": _TEXT,
                    "columns": {**_TEXT, "description": "JSON: the column of each field that is not guessed."},
                },
            }
        }
    },
}
