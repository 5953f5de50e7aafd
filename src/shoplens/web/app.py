"""Join the JSON APIs and pages of all features to one application over a platform that is already built."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import APIRouter, Depends, FastAPI
from starlette.responses import HTMLResponse, RedirectResponse

import shoplens
from shoplens.accounts.access import declared, identify_quietly, public, public_operations, require_declared
from shoplens.accounts.admin_api import audit_router, keys_router
from shoplens.accounts.admin_pages import audit_pages, key_pages
from shoplens.accounts.api import auth_router, people_router
from shoplens.accounts.openid_pages import openid_pages
from shoplens.accounts.own_pages import OwnServices, own_pages, second_factor_pages
from shoplens.accounts.pages import code_pages, reset_pages, sign_in_pages
from shoplens.accounts.people_pages import people_change_pages, people_pages
from shoplens.batch.api import ingest_router, runs_router
from shoplens.batch.items_api import items_router
from shoplens.batch.pages import channel_pages, item_pages, record_link_finder, run_pages
from shoplens.catalogue.api import products_router
from shoplens.catalogue.bulk.api import bulk_router
from shoplens.catalogue.bulk.pages import accept_pages
from shoplens.catalogue.imports.api import import_router
from shoplens.catalogue.imports.pages import import_job_pages, import_pages
from shoplens.catalogue.numbers.api import numbers_router
from shoplens.catalogue.numbers.pages import number_pages
from shoplens.catalogue.pages import product_pages, review_pages
from shoplens.catalogue.runs.api import run_router
from shoplens.catalogue.runs.pages import catalogue_run_pages
from shoplens.catalogue.service import Catalogue
from shoplens.catalogue.suggest.api import suggest_router
from shoplens.catalogue.suggest.pages import suggest_pages
from shoplens.catalogue.tree.api import tree_router
from shoplens.catalogue.tree.pages import tree_pages
from shoplens.configuration.api import retention_router
from shoplens.configuration.pages import settings_pages, threshold_pages
from shoplens.errors import NotFound, ShoplensError
from shoplens.labels.api import labels_router
from shoplens.moderation.api import media_router, moderation_router
from shoplens.moderation.consequences.api import appeals_router, customers_router
from shoplens.moderation.consequences.pages import customer_pages
from shoplens.moderation.policy.api import policy_router
from shoplens.moderation.policy.pages import policy_pages
from shoplens.moderation.queue.api import queue_router
from shoplens.moderation.queue.pages import form_pages, moderation_pages, photo_pages
from shoplens.moderation.queue.photo_api import photo_router
from shoplens.moderation.queue.review_api import review_router
from shoplens.monitoring.accuracy.api import accuracy_router
from shoplens.monitoring.accuracy.pages import accuracy_pages
from shoplens.monitoring.alerts.api import alerts_router
from shoplens.monitoring.alerts.pages import alert_pages
from shoplens.monitoring.drift.api import drift_router
from shoplens.monitoring.drift.pages import SampleAddresses, drift_pages
from shoplens.monitoring.series.api import monitoring_router
from shoplens.monitoring.series.pages import monitoring_pages
from shoplens.platform.accounts import Accounts
from shoplens.platform.server import Platform, WebLimits
from shoplens.predictions.api import PhotoIn, feedback_router, predict_router, records_router
from shoplens.predictions.classify_pages import classify_pages
from shoplens.predictions.pages import change_pages, record_pages
from shoplens.registry.api import models_router
from shoplens.registry.live import faults_of
from shoplens.registry.pages import model_pages
from shoplens.registry.registry_api import registry_router
from shoplens.registry.registry_pages import registry_pages
from shoplens.retraining.api import retraining_router
from shoplens.retraining.pages import retraining_pages
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.tracing import end_tracing
from shoplens.web.api_pages import api_pages
from shoplens.web.bodies import UploadPace
from shoplens.web.handlers import handle_problems
from shoplens.web.language_pages import language_pages
from shoplens.web.middleware import RequestMiddleware
from shoplens.web.operations import operations_router
from shoplens.web.problems import ProblemOut
from shoplens.web.rendering import STATIC_DIR, STATIC_URL, HashedFiles
from shoplens.web.routing import page_router
from shoplens.web.shortcut_pages import shortcut_pages
from shoplens.web.uploads import Uploads
from shoplens.webhooks.api import webhooks_router
from shoplens.webhooks.pages import webhook_pages

_SECURITY_SCHEMES = {
    "OAuth2PasswordBearer": {
        "type": "oauth2",
        "description": "A person signs in for a token. Needed once there are accounts.",
        "flows": {"password": {"tokenUrl": "/auth/token", "scopes": {}}},
    },
    "ApiKey": {"type": "http", "scheme": "bearer", "description": "The key of a service, `slk_…`, made by an admin."},
}
_PRIVATE_PARAMETERS: Final = ("reference", "token")
"""Parts of paths that name a person, or that let somebody in."""
_log = get_logger(__name__)


class _Application(FastAPI):
    """Adds the schemas to the document to which operations only refer."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        document = super().openapi()
        for schema in (ProblemOut, PhotoIn):
            document["components"]["schemas"].setdefault(schema.__name__, schema.model_json_schema())
        document["components"]["securitySchemes"] = _SECURITY_SCHEMES
        document["security"] = [{name: []} for name in _SECURITY_SCHEMES]
        for method, path in public_operations(self):
            if operation := document["paths"].get(path, {}).get(method.lower()):
                operation["security"] = []
        return document


def create_app(platform: Platform) -> FastAPI:
    """The application. It resumes a run whose process died, and closes the platform when the server stops."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        platform.sender.start()
        platform.consequences.retention.start()
        platform.retention.start()
        platform.shadow_times.start()
        if platform.monitoring.recorder is not None:
            platform.monitoring.recorder.start()
        platform.watch.start()
        platform.mails.sender.start()
        platform.alerts.watcher.start()
        resuming = asyncio.create_task(asyncio.to_thread(_resume_run, platform))
        yield
        await resuming
        await platform.close()
        await asyncio.to_thread(end_tracing)

    app = _Application(
        title="Shoplens",
        version=shoplens.__version__,
        summary="Image classification that a shop runs itself.",
        lifespan=lifespan,
        openapi_url=None,  # its route and those of the pages about it ask for a permission
        docs_url=None,
        redoc_url=None,
        # The framework's own traces would hold paths and queries, which may name people: see telemetry/tracing.py.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.principals = platform.principals
    app.state.audit = platform.audit
    app.state.sections = frozenset({"catalogue"} if platform.catalogue.channels else ())
    app.state.badges = lambda: {"Monitoring": len(platform.alerts.service.firing)}
    limits = platform.limits
    app.state.language = limits.language
    uploads = Uploads(
        max_image_bytes=limits.max_image_bytes,
        max_queued_bytes=limits.max_queued_bytes,
        uploads_per_minute=limits.uploads_per_minute,
    )
    for router in (*_api_routers(platform, uploads), api_pages(app.openapi), *_page_routers(platform, uploads)):
        app.router.routes.extend(router.routes)  # not include_router: see routing.py
    app.mount(STATIC_URL, HashedFiles(directory=STATIC_DIR), name="static")
    require_declared(app)
    app.state.private_paths = private_paths(app)
    handle_problems(app, platform.metrics)
    pace = UploadPace(idle_s=limits.upload_idle_s, least_rate=limits.upload_least_rate)
    app.add_middleware(RequestMiddleware, allowed_hosts=limits.allowed_hosts, pace=pace, metrics=platform.metrics)
    return app


def private_paths(app: FastAPI) -> tuple[str, ...]:
    """The beginnings of paths that go on with a value of which no log may have a copy."""
    named = re.compile(r"(.*?)\{(?:" + "|".join(_PRIVATE_PARAMETERS) + r")\b")
    found = (named.match(context.path or "") for context, _ in declared(app))
    return tuple(sorted({each[1] for each in found if each is not None}))


def _api_routers(platform: Platform, uploads: Uploads) -> Iterator[APIRouter]:
    yield predict_router(
        platform.predictions,
        uploads,
        platform.metrics,
        photo_urls=platform.photo_urls,
        deadline_s=platform.limits.deadline_s,
    )
    yield records_router(platform.records, platform.images, platform.export, channels=platform.channels)
    yield feedback_router(platform.records, platform.export)
    yield ingest_router(
        platform.batch,
        uploads,
        max_image_bytes=platform.limits.max_image_bytes,
        max_queued_bytes=platform.limits.max_queued_bytes,
    )
    yield runs_router(platform.batch)
    yield items_router(platform.batch)
    yield models_router(platform.models)
    yield registry_router(platform.registry)
    yield retraining_router(platform.retraining, platform.retrainings)
    yield moderation_router(platform.moderation, uploads)
    yield media_router(platform.moderation, max_age_s=platform.limits.media_max_age_s)
    yield webhooks_router(platform.webhooks)
    yield auth_router(platform.accounts.sessions, platform.accounts.sign_in, platform.accounts.second_factor)
    yield people_router(platform.accounts.people, platform.accounts.second_factor)
    yield keys_router(platform.keys, platform.principals.forget)
    yield audit_router(platform.audit)
    yield policy_router(platform.moderation)
    yield queue_router(platform.moderation)
    yield review_router(platform.moderation)
    yield photo_router(platform.moderation)
    yield appeals_router(platform.consequences.appeals)
    yield customers_router(platform.consequences.customers)
    yield labels_router(platform.consequences.labels)
    yield products_router(platform.catalogue)
    yield import_router(platform.catalogue, uploads, timeout_s=platform.limits.deadline_s)
    yield suggest_router(platform.catalogue, uploads, timeout_s=platform.limits.deadline_s)
    yield tree_router(platform.catalogue, uploads)
    yield numbers_router(platform.catalogue)
    yield monitoring_router(platform.monitoring.series)
    yield drift_router(platform.watch.drift, SampleAddresses(platform.channels).page)
    yield accuracy_router(platform.watch.accuracy)
    yield alerts_router(platform.alerts.service)
    yield bulk_router(platform.catalogue)
    yield run_router(platform.catalogue)
    yield retention_router(platform.configuration)
    yield operations_router(
        platform.probes,
        platform.metrics,
        metrics_open_to=platform.limits.metrics_open_to,
        model_faults=lambda: faults_of(platform.models.followed()),
    )


def _page_routers(platform: Platform, uploads: Uploads) -> Iterator[APIRouter]:
    yield classify_pages(
        platform.predictions,
        uploads,
        photo_urls=platform.photo_urls,
        channels=platform.channels,
        policy_of=platform.configuration.thresholds.current,
        console_channel=platform.console_channel,
        max_image_bytes=platform.limits.max_image_bytes,
        deadline_s=platform.limits.deadline_s,
    )
    yield change_pages(platform.views, platform.deletion, channels=platform.channels)
    yield record_pages(
        platform.records,
        platform.similar,
        platform.views,
        channels=platform.channels,
        policy_of=platform.configuration.thresholds.current,
        find_links=record_link_finder(platform.batch.browse),
    )
    yield item_pages(platform.batch, platform.records, platform.channels)
    yield channel_pages(platform.batch, platform.channels)
    yield run_pages(platform.batch, platform.channels)
    yield retraining_pages(
        platform.retraining,
        platform.retrainings,
        platform.suspects,
        platform.images,
        platform.channels,
        console_channel=platform.console_channel,
    )
    yield model_pages(platform.models, platform.channels, confusion=platform.records.confusion)
    yield registry_pages(platform.registry)
    yield webhook_pages(platform.webhooks)
    yield key_pages(platform.keys, platform.principals.forget)
    yield audit_pages(platform.audit)
    yield moderation_pages(platform.moderation)
    yield form_pages(platform.moderation)
    yield photo_pages(platform.moderation)
    yield customer_pages(platform.consequences.customers)
    yield from _catalogue_pages(platform.catalogue, uploads, platform.limits)
    yield from _account_pages(platform.accounts)
    yield policy_pages(platform.moderation)
    watched = platform.monitoring
    yield monitoring_pages(
        watched.series,
        records=watched.recorder is not None,
        prometheus_url=watched.prometheus_url,
        grafana_url=watched.grafana_url,
    )
    yield drift_pages(platform.watch.drift)
    yield accuracy_pages(platform.watch.accuracy)
    yield alert_pages(platform.alerts.service, platform.mails.service, platform.webhooks)
    yield language_pages()
    yield settings_pages(platform.configuration)
    yield threshold_pages(platform.configuration)
    yield shortcut_pages()
    yield _other_pages()


def _catalogue_pages(catalogue: Catalogue, uploads: Uploads, limits: WebLimits) -> Iterator[APIRouter]:
    yield suggest_pages(catalogue, uploads, max_image_bytes=limits.max_image_bytes, timeout_s=limits.deadline_s)
    yield review_pages(catalogue)
    yield product_pages(catalogue)
    yield accept_pages(catalogue)
    yield catalogue_run_pages(catalogue)
    yield number_pages(catalogue)
    yield tree_pages(catalogue, uploads)
    yield import_pages(catalogue, uploads)
    yield import_job_pages(catalogue)


def _account_pages(accounts: Accounts) -> Iterator[APIRouter]:
    openid = accounts.openid
    name = openid.provider.config.name if openid else None
    yield sign_in_pages(accounts.people, accounts.sessions, accounts.sign_in, openid_name=name)
    if openid is not None:
        yield openid_pages(openid)
    yield code_pages(accounts.sessions, accounts.sign_in)
    yield reset_pages(accounts.people)
    services = OwnServices(
        people=accounts.people,
        sessions=accounts.sessions,
        sign_ins=accounts.sign_in,
        second_factor=accounts.second_factor,
    )
    yield own_pages(services)
    yield second_factor_pages(services)
    yield people_pages(accounts.people)
    yield people_change_pages(accounts.people, accounts.second_factor)


def _other_pages() -> APIRouter:
    """The console's other addresses. Comes last, since it matches all of them."""
    router = page_router(dependencies=[public, Depends(identify_quietly)])  # whose menu the page has

    @router.get("/console")
    def start() -> RedirectResponse:
        return RedirectResponse("/", status_code=307)

    @router.get("/console/{path:path}")
    def nothing(path: str) -> HTMLResponse:
        raise NotFound(f"There is no page at /console/{path[:100]}.")

    return router


def _resume_run(platform: Platform) -> None:
    try:
        platform.batch.resume()
        platform.catalogue.resume()
        platform.retrainings.resume(platform.channels)
    except ShoplensError as error:  # the server starts anyway, and reports by itself what is unavailable
        _log.warning("run.not_resumed", code=error.code, reason=str(error))
