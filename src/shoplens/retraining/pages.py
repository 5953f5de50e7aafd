"""The pages Retraining, one retraining, and Labels in question."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from shoplens.accounts.access import guarded, note, principal_of, requester_of, require, requires
from shoplens.accounts.entities import Permission, Principal
from shoplens.errors import BlobNotFound, ImageNotKept, NotFound, ShoplensError
from shoplens.predictions.entities import Channel, photos_need
from shoplens.predictions.image_store import ImageSize, ImageStore
from shoplens.registry.entities import MAX_WHY
from shoplens.retraining.entities import OPEN
from shoplens.retraining.errors import RetrainingNotOpen
from shoplens.retraining.presenting import live_words, run_state, sample_address
from shoplens.retraining.service import RetrainingService
from shoplens.retraining.starting import RetrainingStarter
from shoplens.retraining.suspects import SuspectService
from shoplens.web.problems import public_detail, request_id_of, status_of
from shoplens.web.rendering import add_filters, page
from shoplens.web.routing import page_router

_RUNS = "/console/models/retraining"
_LABELS = "/console/models/labels"
_PER_PAGE = 24
_THUMBNAIL = ".thumbnail.jpg"
ModelsAdmin = Annotated[Principal, Depends(requires(Permission.MODELS_ADMIN))]


def retraining_pages(
    retraining: RetrainingService,
    starter: RetrainingStarter,
    suspects: SuspectService,
    images: ImageStore,
    channels: Mapping[str, Channel],
    *,
    console_channel: str,
) -> APIRouter:
    """The list with what starts one, one retraining with its photos and its forms, and labels that are probably wrong.

    `console_channel` is chosen at first. A photo also asks for the permission that photos of its channel ask for
    everywhere.
    """
    router = page_router()
    readers, admins = [guarded(Permission.MODELS_READ)], [guarded(Permission.MODELS_ADMIN)]

    _add_start_routes(router, retraining, starter, suspects, channels, console_channel=console_channel)

    def one(request: Request, run_id: str, *, status: int = 200, error: str | None = None) -> HTMLResponse:
        view, report = retraining.get(run_id), retraining.report(run_id)
        waits = view.run.state in OPEN
        return page(
            "retraining.html", status=status, view=view, run=view.run, report=report, waits=waits, error=error,
            now=live_words(view, starter.trouble(view.run), datetime.now(UTC)) if view.run.active else None,
            max_why=MAX_WHY, channels=channels, shows_photos=_sees_photos(request, channels, view.run.channel),
        )  # fmt: skip

    @router.get(_RUNS + "/{run_id}", dependencies=readers)
    def run(request: Request, run_id: str) -> HTMLResponse:
        return one(request, run_id)

    @router.get(_RUNS + "/{run_id}/live.json", dependencies=readers)
    def live(run_id: str) -> Response:
        view = retraining.get(run_id)
        return JSONResponse(live_words(view, starter.trouble(view.run), datetime.now(UTC)))

    @router.post(_RUNS + "/{run_id}/cancel")
    def cancel(request: Request, principal: ModelsAdmin, *, run_id: str) -> Response:
        try:
            retraining.cancel(run_id, by=principal)
        except RetrainingNotOpen as error:
            return one(request, run_id, status=status_of(type(error)), error=str(error))
        note(request, "retraining.cancelled", target=run_id)
        return RedirectResponse(f"{_RUNS}/{run_id}", status_code=303)

    @router.get(_RUNS + "/{run_id}/photos/{sha256}", dependencies=admins)
    def photo(request: Request, run_id: str, sha256: str) -> Response:
        require(request, photos_need(channels, retraining.get(run_id).run.channel))
        sample = retraining.example(run_id, sha256)
        return _thumbnail(images, sample.image_key, sample.sha256)

    @router.post(_RUNS + "/{run_id}")
    def decide(
        request: Request,
        principal: ModelsAdmin,
        *,
        run_id: str,
        answer: Annotated[Literal["approve", "reject"], Form()],
        why: Annotated[str, Form(max_length=MAX_WHY)] = "",
    ) -> Response:
        decided = retraining.approve if answer == "approve" else retraining.reject
        try:
            decided(run_id, by=principal, why=why)
        except NotFound:
            raise
        except ShoplensError as error:
            detail = public_detail(error, request_id_of(request))
            return one(request, run_id, status=status_of(type(error)), error=detail)
        return RedirectResponse(f"{_RUNS}/{run_id}", status_code=303)

    _add_label_routes(router, retraining, suspects, images, channels)
    return router


def _add_start_routes(
    router: APIRouter,
    retraining: RetrainingService,
    starter: RetrainingStarter,
    suspects: SuspectService,
    channels: Mapping[str, Channel],
    *,
    console_channel: str,
) -> None:
    readers = [guarded(Permission.MODELS_READ)]

    def listed(*, status: int = 200, error: str | None = None, chosen: str = "", dry_run: bool = False) -> HTMLResponse:
        return page(
            "retrainings.html", status=status, views=retraining.all(), channels=channels, error=error,
            chosen=chosen or console_channel,
            dry_run=dry_run, possible=starter.possible(channels), in_question=suspects.count(),
        )  # fmt: skip

    @router.get(_RUNS, dependencies=readers)
    def all_runs(request: Request) -> HTMLResponse:
        return listed(chosen=request.query_params.get("channel", "")[:100])

    @router.post(_RUNS, dependencies=[guarded(Permission.MODELS_ADMIN)])
    def start(
        request: Request,
        *,
        channel: Annotated[str, Form(max_length=100)],
        dry_run: Annotated[bool, Form()] = False,
    ) -> Response:
        try:
            run = starter.start(channel, by=requester_of(request, "page"), dry_run=dry_run)
        except ShoplensError as error:
            detail = public_detail(error, request_id_of(request))
            return listed(status=status_of(type(error)), error=detail, chosen=channel, dry_run=dry_run)
        note(request, "retraining.started", target=run.id, channel=run.channel, dry_run=run.dry_run)
        return RedirectResponse(f"{_RUNS}/{run.id}", status_code=303)


def _add_label_routes(
    router: APIRouter,
    retraining: RetrainingService,
    suspects: SuspectService,
    images: ImageStore,
    channels: Mapping[str, Channel],
) -> None:
    admins = [guarded(Permission.MODELS_ADMIN)]

    def listed(request: Request, channel: str, *, status: int = 200, error: str | None = None) -> HTMLResponse:
        counts = suspects.count()
        wanted = channel or next(iter(sorted(counts)), "")
        found = suspects.open(wanted, limit=_PER_PAGE)
        return page(
            "label_errors.html", status=status, error=error, found=found, counts=counts, channel=wanted,
            channels=channels, shows_photos=_sees_photos(request, channels, wanted), ran=bool(retraining.all(limit=1)),
        )  # fmt: skip

    @router.get(_LABELS, dependencies=admins)
    def labels(request: Request) -> HTMLResponse:
        return listed(request, request.query_params.get("channel", "")[:100])

    @router.get(_LABELS + "/{suspect_id}/photo", dependencies=admins)
    def photo(request: Request, suspect_id: str) -> Response:
        suspect = suspects.get(suspect_id)
        require(request, photos_need(channels, suspect.channel))
        return _thumbnail(images, suspect.image_key, suspect.image_sha256)

    @router.post(_LABELS + "/{suspect_id}")
    def settle(
        request: Request,
        principal: ModelsAdmin,
        *,
        suspect_id: str,
        answer: Annotated[Literal["keep", "take"], Form()],
    ) -> Response:
        suspect = suspects.get(suspect_id)
        try:
            if answer == "keep":
                suspects.keep(suspect_id, by=principal)
            else:
                suspects.take(suspect_id, by=principal)
        except NotFound:
            raise
        except ShoplensError as error:
            detail = public_detail(error, request_id_of(request))
            return listed(request, suspect.channel, status=status_of(type(error)), error=detail)
        return RedirectResponse(f"{_LABELS}?channel={quote(suspect.channel)}", status_code=303)


def _sees_photos(request: Request, channels: Mapping[str, Channel], channel: str) -> bool:
    return principal_of(request).may(photos_need(channels, channel))


def _thumbnail(images: ImageStore, key: str | None, sha256: str) -> Response:
    if key is None:
        raise ImageNotKept("The photo of this sample was not stored.")
    try:
        file = images.open_copy(key) if key.endswith(_THUMBNAIL) else images.open(key, sha256, ImageSize.THUMBNAIL)
    except BlobNotFound as error:
        raise ImageNotKept("The photo of this sample is no longer in the store.") from error
    return Response(file.data, media_type=file.media_type, headers={"Cache-Control": "private, max-age=300"})


add_filters(run_state, sample_address)
