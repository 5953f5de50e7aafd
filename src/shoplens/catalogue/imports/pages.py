"""The pages on which products are imported: a file, what its columns are, the progress, and what could not be used."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.responses import HTMLResponse, JSONResponse, Response

from shoplens.accounts.access import guarded, note, requester_of
from shoplens.accounts.entities import Permission
from shoplens.catalogue import presenting
from shoplens.catalogue.entities import ImportJob, ProductState
from shoplens.catalogue.errors import ImportNotFound
from shoplens.catalogue.export import ProductFormat
from shoplens.catalogue.imports.columns import FIELDS, Columns, columns_of
from shoplens.catalogue.imports.rows import ProductTable, TableRow
from shoplens.catalogue.imports.service import MAX_FAULTS, NewImport
from shoplens.catalogue.imports.uploaded_tables import MAX_BYTES, MAX_FILES, sorted_files
from shoplens.catalogue.pages import HOME, CataloguePages, ChannelName
from shoplens.catalogue.repository import ProductFilter
from shoplens.catalogue.service import Catalogue
from shoplens.db.tables import is_id
from shoplens.errors import RequestInvalid, ShoplensError
from shoplens.messages import gettext, localised, marked, whole_number
from shoplens.spreadsheets import csv_chunks
from shoplens.web.bodies import body_of
from shoplens.web.downloads import download
from shoplens.web.routing import page_router
from shoplens.web.uploads import Uploads, form_too_large

PREVIEW_BYTES: Final = 300_000
_PREVIEWED: Final = 5
_SHOWN_CHARACTERS: Final = 200
_SHOWN_FAULTS: Final = 100
_EXPORTS: Final = {
    ProductFormat.CSV: "CSV",
    ProductFormat.PARQUET: "Parquet",
    ProductFormat.X: marked("Rakuten X (texts)"),
    ProductFormat.Y: marked("Rakuten Y (categories)"),
}
_FAULT_COLUMNS: Final = ("line", "reference", "code", "reason")


def import_pages(catalogue: Catalogue, uploads: Uploads) -> APIRouter:
    """All imports of a channel, and a new one."""
    router = page_router(dependencies=[guarded(Permission.CATALOGUE_ADMIN)])
    pages = CataloguePages(catalogue)

    @router.get(f"{HOME}/imports")
    def show(channel: ChannelName = "") -> HTMLResponse:
        chosen = pages.channel(channel)
        return pages.page(
            "catalogue_imports.html",
            chosen,
            imports=catalogue.imports.newest(chosen.name),
            preview_bytes=PREVIEW_BYTES,
            max_bytes=MAX_BYTES,
            max_photos=MAX_FILES - 2,
            exports=[(each.value, words) for each, words in _EXPORTS.items()],
        )

    @router.post(f"{HOME}/imports")
    async def post(request: Request) -> Response:
        async with uploads.form(request, max_bytes=MAX_BYTES, max_files=MAX_FILES, max_fields=10) as form:
            chosen = pages.channel(form.fields.get("channel", ""))
            files = [each for each in form.files if each.filename]
            if not files:
                raise RequestInvalid("Choose a CSV file with products.")
            new = NewImport(
                channel=chosen.name, source="", by=requester_of(request, "page"), chosen=_chosen(form.fields)
            )
            job = await run_in_threadpool(_upload, catalogue, new, files)
        await run_in_threadpool(
            note, request, "catalogue.imported", target=job.id, channel=chosen.name, source=job.source
        )
        return pages.back(f"/imports/{job.id}", chosen)

    @router.post(f"{HOME}/imports/preview.json")
    async def preview(request: Request) -> Response:
        body_of(request).allow(PREVIEW_BYTES, lambda _: form_too_large(None, PREVIEW_BYTES))
        beginning = await request.body()
        try:
            return JSONResponse(await run_in_threadpool(previewed, beginning))
        except ShoplensError as error:
            return JSONResponse({"columns": [], "rows": [], "fields": {}, "problem": str(error)})

    return router


def import_job_pages(catalogue: Catalogue) -> APIRouter:
    """One import: its progress, and what could not be used."""
    router = page_router(dependencies=[guarded(Permission.CATALOGUE_ADMIN)])
    pages = CataloguePages(catalogue)

    @router.get(f"{HOME}/imports/{{import_id}}")
    def one(import_id: str, channel: ChannelName = "") -> HTMLResponse:
        job = _job_of(catalogue, import_id)
        return pages.page(
            "catalogue_import.html",
            pages.channel(channel or job.channel),
            job=job,
            now=live_words(job, datetime.now(UTC)),
            faults=catalogue.imports.faults(job.id, limit=_SHOWN_FAULTS),
            unsuggested=catalogue.products.count(ProductFilter(channel=job.channel, state=ProductState.NEW)),
        )

    @router.get(f"{HOME}/imports/{{import_id}}/live.json")
    def live(import_id: str) -> Response:
        return JSONResponse(live_words(_job_of(catalogue, import_id), datetime.now(UTC)))

    @router.get(f"{HOME}/imports/{{import_id}}/faults.csv")
    def faults(import_id: str, limit: Annotated[int, Query(ge=1, le=MAX_FAULTS)] = MAX_FAULTS) -> Response:
        job = _job_of(catalogue, import_id)
        rows = (
            (str(each.line), each.reference or "", each.code, each.reason)
            for each in catalogue.imports.faults(job.id, limit=limit)
        )
        return download(
            csv_chunks(_FAULT_COLUMNS, rows), name=f"faults-{job.id}.csv", media_type="text/csv; charset=utf-8"
        )

    return router


def _job_of(catalogue: Catalogue, import_id: str) -> ImportJob:
    if not is_id(import_id):
        raise ImportNotFound("This import doesn't exist.")
    return catalogue.imports.get(import_id)


def previewed(beginning: bytes) -> dict[str, Any]:
    """The columns of a table, what each is guessed to be, and its first rows. Raises ImportInvalid.

    `challenge` says that it is one of the Rakuten challenge, whose columns are known.
    """
    table = ProductTable(io.BytesIO(beginning))
    problem = None
    try:
        columns = columns_of(table.columns)
    except ShoplensError as error:
        columns, problem = Columns(reference=""), str(error)
    rows = [
        [str(row.values.get(name, ""))[:_SHOWN_CHARACTERS] for name in table.columns]
        for row in islice(table, _PREVIEWED)
        if isinstance(row, TableRow)
    ]
    return {
        "columns": list(table.columns),
        "rows": rows,
        "challenge": columns.image is not None,
        "fields": {
            "reference": columns.reference,
            "designation": columns.designation,
            "description": columns.description,
            "category": columns.category,
            "photos": columns.image or ", ".join(columns.photos),
        },
        "problem": problem,
    }


def live_words(job: ImportJob, now: datetime) -> dict[str, Any]:
    """The progress of an import in the form that `batch-live.js` shows."""
    seconds = max(1.0, ((job.finished_at or now) - job.created_at).total_seconds())
    of = "" if job.total is None else gettext(" of %(total)s", total=whole_number(job.total))
    ended = job.finished_at is not None
    return {
        "active": not ended,
        "done": 100.0 if ended and not job.error else round(100 * job.rows / (job.total or max(job.rows, 1)), 2),
        "condition": None,
        "resumable": False,
        "words": {
            "progress": gettext("%(rows)s%(of)s rows", rows=whole_number(job.rows), of=of),
            "speed": gettext("%(seconds)s rows per second", seconds=localised(f"{job.rows / seconds:,.0f}")),
            "state": presenting.import_state(job),
            **{name: f"{getattr(job, name):,}" for name in ("added", "changed", "unchanged", "faults")},
        },
    }


def _chosen(fields: Mapping[str, str]) -> dict[str, str]:
    """The columns that a person chose, by field."""
    return {name: value for name in FIELDS if (value := fields.get(f"column_{name}", ""))}


def _upload(catalogue: Catalogue, new: NewImport, files: list[UploadFile]) -> ImportJob:
    with ExitStack() as stack:
        found = sorted_files(files, stack)
        new = replace(new, source=found.source)
        return catalogue.imports.upload(new, found.table, found.codes, found.archives)
