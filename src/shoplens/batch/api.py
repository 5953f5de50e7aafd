"""POST and GET /batch/runs…: start a run of returned goods, watch it, and take its results away."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any, TypedDict

from fastapi import APIRouter, Depends, Path, Query
from starlette.responses import HTMLResponse, Response, StreamingResponse

from shoplens.batch.api_schemas import (
    ItemPageOut,
    RunPageOut,
    RunProgressOut,
    item_json,
    progress_json,
    run_json,
)
from shoplens.batch.browse import MAX_PAGE, RunView
from shoplens.batch.entities import BatchRun, ItemFilter, ItemState
from shoplens.batch.export import MEDIA_TYPES, ExportFormat
from shoplens.batch.status import OwnerState
from shoplens.db.ids import is_id
from shoplens.errors import RequestInvalid, RunNotFound
from shoplens.platform.server import Platform

REQUESTED_BY = "http"
_MOST_RUNS = 100

# The report is one file with its own style and pictures. It may run nothing and reach nothing.
_REPORT_HEADERS = {
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; sandbox allow-top-navigation-by-user-activation allow-popups"
    ),
}
_EXPORT_CONTENT: dict[str, Any] = {media.partition(";")[0]: {} for media in MEDIA_TYPES.values()}

ChannelName = Annotated[
    str | None, Query(max_length=200, description="The channel; may be left out when only one has a batch side.")
]
RunId = Annotated[str, Path(max_length=64, description="The run's id.")]
Cursor = Annotated[int | None, Query(ge=0, lt=1 << 63)]


def item_filter(
    state: Annotated[ItemState | None, Query()] = None,
    label: Annotated[
        str | None, Query(max_length=200, description="What a person said it is, else what was predicted.")
    ] = None,
    text: Annotated[str | None, Query(max_length=200, description="How the item or order reference begins.")] = None,
) -> ItemFilter:
    """The filter in the query of a request."""
    return ItemFilter(state=state, label=label, text=text)


Wanted = Annotated[ItemFilter, Depends(item_filter)]


class _KnownHere(TypedDict):
    """What this server knows of a run beside its row."""

    worker: OwnerState
    trouble: str | None


def batch_router(platform: Platform) -> APIRouter:
    """All routes on runs."""
    router = APIRouter(tags=["batch"])
    batch = platform.batch

    def known_of(run: BatchRun) -> _KnownHere:
        return {"worker": batch.owner_of(run), "trouble": batch.launcher.trouble(run.id)}

    def shown(view: RunView) -> dict[str, Any]:
        return progress_json(view, **known_of(view.run))

    @router.post(
        "/batch/runs",
        status_code=202,
        response_model=RunProgressOut,
        responses={202: {"headers": {"Location": {"schema": {"type": "string"}, "description": "Where to watch it."}}}},
        summary="Work through everything that waits",
    )
    def start(response: Response, channel: ChannelName = None) -> dict[str, Any]:
        """It goes on by itself, also when this server stops. A run whose process is gone is gone on with.

        Answers 409 `run_in_progress` while another one works: there is one at a time.
        """
        run = batch.start(batch.channel(channel).name, requested_by=REQUESTED_BY)
        response.headers["Location"] = f"/batch/runs/{run.id}"
        return shown(batch.browse.run(run.id))

    @router.get("/batch/runs", response_model=RunPageOut, summary="Runs, newest first")
    def runs(
        channel: ChannelName = None,
        limit: Annotated[int, Query(ge=1, le=_MOST_RUNS)] = 30,
        before: Annotated[str | None, Query(max_length=64, description="The cursor `older` of a page.")] = None,
    ) -> dict[str, Any]:
        """Page by the cursor `older` of the answer."""
        if before is not None and not is_id(before):
            raise RequestInvalid(f"{before!r} is not a cursor; use `older` of a page.")
        found = batch.browse.runs(batch.channel(channel).name, limit=limit + 1, before=before)
        on_page = found[:limit]
        return {
            "runs": [run_json(each, **known_of(each.run)) for each in on_page],
            "older": on_page[-1].run.id if len(found) > limit else None,
        }

    @router.get("/batch/runs/{run_id}", response_model=RunProgressOut, summary="How far a run is")
    def run(run_id: RunId) -> dict[str, Any]:
        """Counts, speed, the time left, and whether the process that works on it lives."""
        return shown(batch.browse.run(_known(run_id)))

    @router.get("/batch/runs/{run_id}/items", response_model=ItemPageOut, summary="The photos of a run")
    def items(
        run_id: RunId,
        wanted: Wanted,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
        before: Cursor = None,
        after: Cursor = None,
    ) -> dict[str, Any]:
        """Newest first. Page by the cursors `older` and `newer` of the answer."""
        within = replace(wanted, run_id=_known(run_id))
        found = batch.browse.items(within, limit=limit, before=before, after=after)
        return {"items": [item_json(item) for item in found.items], "older": found.older, "newer": found.newer}

    @router.get(
        "/batch/runs/{run_id}/export",
        response_class=StreamingResponse,
        responses={200: {"content": _EXPORT_CONTENT, "description": "The table as a file."}},
        summary="The results of a run as a file",
    )
    def export(
        run_id: RunId,
        wanted: Wanted,
        format: Annotated[ExportFormat, Query()] = ExportFormat.CSV,
    ) -> StreamingResponse:
        """One row per photo, duplicates among them, in the order of arrival. CSV is safe to open in a spreadsheet."""
        within = replace(wanted, run_id=_known(run_id))
        return _download(batch.export.stream(within, format), f"run-{run_id}.{format.value}", MEDIA_TYPES[format])

    @router.get("/batch/runs/{run_id}/report", response_class=HTMLResponse, summary="The morning report of a run")
    def report(run_id: RunId) -> HTMLResponse:
        """One page that needs nothing but itself, as the results stand now."""
        return HTMLResponse(batch.report.render(_known(run_id)), headers=_REPORT_HEADERS)

    return router


def _known(run_id: str) -> str:
    if not is_id(run_id):
        raise RunNotFound(f"{run_id!r} is not the id of a run.")
    return run_id


def _download(chunks: Iterable[bytes], name: str, media_type: str) -> StreamingResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(chunks, media_type=media_type, headers=headers)
