"""Who may do what: every route of the application, with every role, with keys, and with nothing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace

import anyio
import httpx
import pytest
from fastapi import APIRouter, FastAPI

from shoplens.accounts.access import declared, public, require_declared
from shoplens.accounts.entities import PERMISSIONS, SYSTEM, Permission, Role, SessionKind
from shoplens.accounts.sessions import Client
from shoplens.db.tables import new_id
from shoplens.moderation.decisions import NewDecision, record_decision
from shoplens.moderation.entities import DecisionKind, PhotoState, QueueReason
from shoplens.moderation.repository import PhotoRepository
from shoplens.platform.parts import utc_now
from shoplens.platform.server import Platform, build_platform
from shoplens.retraining.entities import RetrainingRun, RetrainingState, Stage, Suspect
from shoplens.retraining.repository import RetrainingRepository, SuspectRepository
from shoplens.settings import read_settings
from shoplens.web.app import create_app
from tests.acceptance.moderation_photos import blurred
from tests.conftest import client_of

pytestmark = pytest.mark.anyio

PUBLIC = None
NO_ID = "0" * 26
OWN = re.compile(r" /(account\b|me\b)")
"""These ask for no permission, and yet for somebody."""

# What each route asks for; of several permissions one is enough. A new route without a row here fails the first test.
ROUTES: Mapping[str, Permission | tuple[Permission, ...] | None] = {
    # predictions
    "POST /predict": Permission.PREDICT,
    "GET /predictions": Permission.RECORDS_READ,
    "GET /predictions.csv": Permission.RECORDS_READ,
    "GET /predictions/{prediction_id}": Permission.RECORDS_READ,
    "GET /predictions/{prediction_id}/image": Permission.RECORDS_READ,
    "POST /feedback": Permission.FEEDBACK_WRITE,
    "GET /feedback.csv": Permission.RECORDS_READ,
    "GET /": Permission.RECORDS_READ,
    "POST /": Permission.PREDICT,
    "GET /view_db": Permission.RECORDS_READ,
    "GET /console/records": Permission.RECORDS_READ,
    "GET /console/records/{record_id}": Permission.RECORDS_READ,
    "POST /console/records/views": Permission.RECORDS_READ,
    "POST /console/records/views/{view_id}/remove": Permission.RECORDS_READ,
    "POST /console/records/delete": Permission.RECORDS_DELETE,
    "POST /console/records/delete/confirmed": Permission.RECORDS_DELETE,
    "POST /console/records/{record_id}/feedback": Permission.FEEDBACK_WRITE,
    # batch
    "POST /batch/ingest": Permission.BATCH_RUN,
    "POST /batch/runs": Permission.BATCH_RUN,
    "GET /batch/runs": Permission.BATCH_READ,
    "GET /batch/runs/{run_id}": Permission.BATCH_READ,
    "POST /batch/runs/{run_id}/cancel": Permission.BATCH_RUN,
    "GET /batch/runs/{run_id}/items": Permission.BATCH_READ,
    "GET /batch/runs/{run_id}/export": Permission.BATCH_READ,
    "GET /batch/runs/{run_id}/report": Permission.BATCH_READ,
    "GET /batch/items/{item_id}": Permission.BATCH_READ,
    "GET /batch/items/{item_id}/photo": Permission.BATCH_READ,
    "POST /batch/items/{item_id}/label": Permission.BATCH_REVIEW,
    "POST /batch/items/{item_id}/reopen": Permission.BATCH_REVIEW,
    "POST /batch/looks": Permission.BATCH_REVIEW,
    "POST /batch/items/{item_id}/skip": Permission.BATCH_REVIEW,
    "POST /batch/items/{item_id}/retry": Permission.BATCH_REVIEW,
    "DELETE /batch/items/{item_id}/photo": Permission.BATCH_REVIEW,
    "GET /console/batch/{channel}": Permission.BATCH_READ,
    "GET /console/batch/{channel}/live.json": Permission.BATCH_READ,
    "POST /console/batch/{channel}/ingest": Permission.BATCH_RUN,
    "POST /console/batch/{channel}/runs": Permission.BATCH_RUN,
    "GET /console/batch/{channel}/{run_id}": Permission.BATCH_READ,
    "GET /console/batch/{channel}/{run_id}/live.json": Permission.BATCH_READ,
    "POST /console/batch/{channel}/{run_id}/retry": Permission.BATCH_REVIEW,
    "POST /console/batch/{channel}/{run_id}/cancel": Permission.BATCH_RUN,
    "POST /console/batch/{channel}/{run_id}/confirm": Permission.BATCH_REVIEW,
    "POST /console/batch/{channel}/{run_id}/confirm/undo": Permission.BATCH_REVIEW,
    "GET /console/batch/{channel}/items/{item_id}": Permission.BATCH_READ,
    "POST /console/batch/{channel}/items/{item_id}/label": Permission.BATCH_REVIEW,
    "POST /console/batch/{channel}/items/{item_id}/reopen": Permission.BATCH_REVIEW,
    "POST /console/batch/{channel}/items/{item_id}/skip": Permission.BATCH_REVIEW,
    "POST /console/batch/{channel}/items/{item_id}/retry": Permission.BATCH_REVIEW,
    "POST /console/batch/{channel}/items/{item_id}/delete": Permission.BATCH_REVIEW,
    # models
    "GET /models": Permission.MODELS_READ,
    "GET /console/models": Permission.MODELS_READ,
    "GET /console/models/{name}": Permission.MODELS_READ,
    "GET /console/models/{name}/labels.json": Permission.MODELS_READ,
    "GET /registry": Permission.MODELS_READ,
    "GET /registry/{name}": Permission.MODELS_READ,
    "GET /registry/{name}/history": Permission.MODELS_READ,
    "GET /registry/{name}/live": Permission.MODELS_READ,
    "POST /registry/{name}/aliases/{alias}": Permission.MODELS_ADMIN,
    "POST /registry/{name}/versions": Permission.MODELS_ADMIN,
    "GET /console/registry": Permission.MODELS_READ,
    "POST /console/registry": Permission.MODELS_ADMIN,
    "GET /retraining/runs": Permission.MODELS_READ,
    "POST /retraining/runs": Permission.MODELS_ADMIN,
    "GET /retraining/runs/{run_id}": Permission.MODELS_READ,
    "POST /retraining/runs/{run_id}/cancel": Permission.MODELS_ADMIN,
    "POST /retraining/runs/{run_id}/approve": Permission.MODELS_ADMIN,
    "POST /retraining/runs/{run_id}/reject": Permission.MODELS_ADMIN,
    "GET /console/models/retraining": Permission.MODELS_READ,
    "POST /console/models/retraining": Permission.MODELS_ADMIN,
    "GET /console/models/retraining/{run_id}": Permission.MODELS_READ,
    "GET /console/models/retraining/{run_id}/live.json": Permission.MODELS_READ,
    "POST /console/models/retraining/{run_id}/cancel": Permission.MODELS_ADMIN,
    "POST /console/models/retraining/{run_id}": Permission.MODELS_ADMIN,
    "GET /console/models/retraining/{run_id}/photos/{sha256}": Permission.MODELS_ADMIN,
    "GET /console/models/labels": Permission.MODELS_ADMIN,
    "GET /console/models/labels/{suspect_id}/photo": Permission.MODELS_ADMIN,
    "POST /console/models/labels/{suspect_id}": Permission.MODELS_ADMIN,
    "GET /console/registry/{name}": Permission.MODELS_READ,
    "POST /console/registry/{name}/aliases/{alias}": Permission.MODELS_ADMIN,
    # accounts
    "GET /keys": Permission.ACCOUNTS_ADMIN,
    "POST /keys": Permission.ACCOUNTS_ADMIN,
    "DELETE /keys/{key_id}": Permission.ACCOUNTS_ADMIN,
    "GET /console/keys": Permission.ACCOUNTS_ADMIN,
    "POST /console/keys": Permission.ACCOUNTS_ADMIN,
    "POST /console/keys/{key_id}/revoke": Permission.ACCOUNTS_ADMIN,
    "GET /audit": Permission.AUDIT_READ,
    "GET /audit.csv": Permission.AUDIT_READ,
    "GET /audit.jsonl": Permission.AUDIT_READ,
    "GET /console/audit": Permission.AUDIT_READ,
    "GET /retention": Permission.SETTINGS_READ,
    "GET /console/settings": Permission.SETTINGS_READ,
    "GET /console/settings/thresholds": Permission.SETTINGS_READ,
    "POST /console/settings/thresholds/try": Permission.SETTINGS_READ,
    "POST /console/settings/thresholds": Permission.SETTINGS_EDIT,
    "POST /console/settings/thresholds/back": Permission.SETTINGS_EDIT,
    # webhooks and moderation
    "POST /moderation/photos": Permission.MODERATION_SUBMIT,
    "GET /moderation/photos": (Permission.MODERATION_SUBMIT, Permission.MODERATION_REVIEW),
    "GET /moderation/photos/{photo_id}": (Permission.MODERATION_SUBMIT, Permission.MODERATION_REVIEW),
    "GET /media/{photo_id}": PUBLIC,
    "GET /webhooks": Permission.WEBHOOKS_ADMIN,
    "POST /webhooks": Permission.WEBHOOKS_ADMIN,
    "GET /webhooks/deliveries": Permission.WEBHOOKS_ADMIN,
    "POST /webhooks/deliveries/{delivery_id}/replay": Permission.WEBHOOKS_ADMIN,
    "POST /webhooks/replay": Permission.WEBHOOKS_ADMIN,
    "PATCH /webhooks/{endpoint_id}": Permission.WEBHOOKS_ADMIN,
    "DELETE /webhooks/{endpoint_id}": Permission.WEBHOOKS_ADMIN,
    "POST /webhooks/{endpoint_id}/test": Permission.WEBHOOKS_ADMIN,
    "GET /moderation/policy": Permission.MODERATION_REVIEW,
    "PUT /moderation/policy": Permission.MODERATION_ADMIN,
    "GET /moderation/policy/versions": Permission.MODERATION_REVIEW,
    "POST /moderation/policy/rollback": Permission.MODERATION_ADMIN,
    "POST /moderation/policy/dry-run": Permission.MODERATION_REVIEW,
    "GET /console/webhooks": Permission.WEBHOOKS_ADMIN,
    "POST /console/webhooks": Permission.WEBHOOKS_ADMIN,
    "POST /console/webhooks/replay": Permission.WEBHOOKS_ADMIN,
    "POST /console/webhooks/deliveries/{delivery_id}/replay": Permission.WEBHOOKS_ADMIN,
    "POST /console/webhooks/{endpoint_id}/{action}": Permission.WEBHOOKS_ADMIN,
    "GET /moderation/queue": Permission.MODERATION_REVIEW,
    "POST /moderation/claims": Permission.MODERATION_REVIEW,
    "POST /moderation/photos/{photo_id}/skip": Permission.MODERATION_REVIEW,
    "PUT /moderation/moderator": Permission.MODERATION_REVIEW,
    "POST /moderation/photos/{photo_id}/report": Permission.MODERATION_SUBMIT,
    "POST /moderation/photos/{photo_id}/decision": Permission.MODERATION_REVIEW,
    "POST /moderation/decisions": Permission.MODERATION_REVIEW,
    "POST /moderation/photos/{photo_id}/escalate": Permission.MODERATION_REVIEW,
    "POST /moderation/photos/{photo_id}/undo": Permission.MODERATION_REVIEW,
    "GET /moderation/photos/{photo_id}/context": Permission.MODERATION_REVIEW,
    "GET /moderation/photos/{photo_id}/statement": Permission.MODERATION_SUBMIT,
    "GET /moderation/photos/{photo_id}/statement.txt": Permission.MODERATION_SUBMIT,
    "POST /moderation/photos/{photo_id}/appeal": Permission.MODERATION_SUBMIT,
    "GET /moderation/photos/{photo_id}/appeal": Permission.MODERATION_SUBMIT,
    "GET /moderation/appeals": Permission.MODERATION_REVIEW,
    "GET /moderation/customers/{reference:path}": Permission.MODERATION_REVIEW,
    "DELETE /moderation/customers/{reference:path}": Permission.MODERATION_ADMIN,
    "GET /console/moderation/customers/{reference:path}": Permission.MODERATION_REVIEW,
    "POST /console/moderation/customers/{reference:path}": Permission.MODERATION_ADMIN,
    "GET /labels/{channel}/sets": Permission.LABELS_READ,
    "POST /labels/{channel}/sets": Permission.LABELS_READ,
    "GET /labels/{channel}/sets/{version}.csv": Permission.LABELS_READ,
    "GET /labels/{channel}/sets/{version}.parquet": Permission.LABELS_READ,
    "GET /moderation": Permission.MODERATION_REVIEW,
    "GET /console/moderation": Permission.MODERATION_REVIEW,
    "POST /console/moderation/photos/{photo_id}": Permission.MODERATION_REVIEW,
    "POST /console/moderation/selection": Permission.MODERATION_REVIEW,
    "POST /console/moderation/moderator": Permission.MODERATION_REVIEW,
    "GET /console/moderation/photos/{photo_id}": Permission.MODERATION_REVIEW,
    "GET /console/moderation/search": Permission.MODERATION_REVIEW,
    "GET /status": PUBLIC,
    "GET /console/shortcuts": PUBLIC,
    "POST /console/language": PUBLIC,
    "GET /console/texts/{tag}.js": PUBLIC,
    "GET /sign-in": PUBLIC,
    "POST /sign-in": PUBLIC,
    "POST /sign-out": PUBLIC,
    "GET /sign-in/code": PUBLIC,
    "POST /sign-in/code": PUBLIC,
    "GET /reset/{token}": PUBLIC,
    "POST /reset/{token}": PUBLIC,
    "GET /account": PUBLIC,
    "POST /account/password": PUBLIC,
    "POST /account/sessions/end-all": PUBLIC,
    "POST /account/sessions/{session_id}/end": PUBLIC,
    "POST /account/second-factor": PUBLIC,
    "POST /account/second-factor/confirm": PUBLIC,
    "POST /account/second-factor/recovery-codes": PUBLIC,
    "POST /account/second-factor/remove": PUBLIC,
    "POST /auth/token": PUBLIC,
    "GET /me": PUBLIC,
    "POST /me/recovery-codes": PUBLIC,
    "GET /people": Permission.ACCOUNTS_ADMIN,
    "POST /people": Permission.ACCOUNTS_ADMIN,
    "PATCH /people/{person_id}": Permission.ACCOUNTS_ADMIN,
    "POST /people/{person_id}/reset": Permission.ACCOUNTS_ADMIN,
    "GET /console/people": Permission.ACCOUNTS_ADMIN,
    "POST /console/people": Permission.ACCOUNTS_ADMIN,
    "POST /console/people/{person_id}/reset": Permission.ACCOUNTS_ADMIN,
    "POST /console/people/{person_id}/role": Permission.ACCOUNTS_ADMIN,
    "POST /console/people/{person_id}/second-factor/remove": Permission.ACCOUNTS_ADMIN,
    "POST /console/people/{person_id}/disable": Permission.ACCOUNTS_ADMIN,
    "POST /console/people/{person_id}/enable": Permission.ACCOUNTS_ADMIN,
    "GET /console/moderation/policy": Permission.MODERATION_REVIEW,
    "POST /console/moderation/policy/try": Permission.MODERATION_REVIEW,
    "POST /console/moderation/policy": Permission.MODERATION_ADMIN,
    "POST /console/moderation/policy/rollback": Permission.MODERATION_ADMIN,
    "GET /moderation/photos/{photo_id}/image": Permission.MODERATION_REVIEW,
    "GET /moderation/photos/{photo_id}/heatmap": Permission.MODERATION_REVIEW,
    # catalogue
    "POST /catalogue/suggest": Permission.CATALOGUE_WRITE,
    "POST /catalogue/explain": Permission.CATALOGUE_WRITE,
    "POST /catalogue/heatmap": Permission.CATALOGUE_WRITE,
    "GET /catalogue/categories": Permission.CATALOGUE_READ,
    "GET /catalogue/categories/{category_id}": Permission.CATALOGUE_READ,
    "GET /catalogue/tree": Permission.CATALOGUE_READ,
    "GET /catalogue/tree.csv": Permission.CATALOGUE_READ,
    "POST /catalogue/tree": Permission.CATALOGUE_ADMIN,
    "POST /catalogue/products": Permission.CATALOGUE_WRITE,
    "POST /catalogue/import": Permission.CATALOGUE_ADMIN,
    "GET /catalogue/imports": Permission.CATALOGUE_ADMIN,
    "GET /catalogue/imports/{import_id}": Permission.CATALOGUE_ADMIN,
    "GET /catalogue/export": Permission.CATALOGUE_ADMIN,
    "GET /catalogue/products": Permission.CATALOGUE_READ,
    "GET /catalogue/products/{product_id}": Permission.CATALOGUE_READ,
    "GET /catalogue/products/{product_id}/photos/{position}": Permission.CATALOGUE_READ,
    "POST /catalogue/products/{product_id}/category": Permission.CATALOGUE_WRITE,
    "DELETE /catalogue/products/{product_id}": Permission.CATALOGUE_WRITE,
    "GET /catalogue/products/{product_id}/photos/{position}/heatmap": Permission.CATALOGUE_READ,
    "GET /catalogue/numbers": Permission.CATALOGUE_READ,
    "POST /catalogue/runs": Permission.CATALOGUE_ADMIN,
    "GET /catalogue/runs": Permission.CATALOGUE_READ,
    "GET /catalogue/runs/{run_id}": Permission.CATALOGUE_READ,
    "POST /catalogue/runs/{run_id}/cancel": Permission.CATALOGUE_ADMIN,
    "GET /console/catalogue/runs": Permission.CATALOGUE_READ,
    "POST /console/catalogue/runs": Permission.CATALOGUE_ADMIN,
    "POST /console/catalogue/runs/{run_id}/cancel": Permission.CATALOGUE_ADMIN,
    "GET /console/catalogue/runs/{run_id}/live.json": Permission.CATALOGUE_READ,
    "GET /monitoring/drift": Permission.MONITORING_READ,
    "GET /monitoring/accuracy": Permission.MONITORING_READ,
    "GET /console/monitoring/drift": Permission.MONITORING_READ,
    "POST /console/monitoring/drift/normal": Permission.MONITORING_ADMIN,
    "POST /console/monitoring/drift/normal/withdraw": Permission.MONITORING_ADMIN,
    "GET /console/monitoring/accuracy": Permission.MONITORING_READ,
    "POST /catalogue/accept": Permission.CATALOGUE_WRITE,
    "GET /catalogue/acceptances": Permission.CATALOGUE_WRITE,
    "GET /catalogue/acceptances/{acceptance_id}": Permission.CATALOGUE_WRITE,
    "POST /catalogue/acceptances/{acceptance_id}/undo": Permission.CATALOGUE_WRITE,
    "POST /catalogue/acceptances/{acceptance_id}/cancel": Permission.CATALOGUE_WRITE,
    "GET /console/catalogue": Permission.CATALOGUE_READ,
    "POST /console/catalogue": Permission.CATALOGUE_WRITE,
    "POST /console/catalogue/products": Permission.CATALOGUE_WRITE,
    "GET /console/catalogue/imports": Permission.CATALOGUE_ADMIN,
    "POST /console/catalogue/imports": Permission.CATALOGUE_ADMIN,
    "POST /console/catalogue/imports/preview.json": Permission.CATALOGUE_ADMIN,
    "GET /console/catalogue/imports/{import_id}": Permission.CATALOGUE_ADMIN,
    "GET /console/catalogue/imports/{import_id}/live.json": Permission.CATALOGUE_ADMIN,
    "GET /console/catalogue/imports/{import_id}/faults.csv": Permission.CATALOGUE_ADMIN,
    "GET /console/catalogue/review": Permission.CATALOGUE_WRITE,
    "GET /console/catalogue/products": Permission.CATALOGUE_READ,
    "GET /console/catalogue/products/{product_id}": Permission.CATALOGUE_READ,
    "POST /console/catalogue/products/{product_id}/category": Permission.CATALOGUE_WRITE,
    "GET /console/catalogue/accept": Permission.CATALOGUE_WRITE,
    "POST /console/catalogue/accept": Permission.CATALOGUE_WRITE,
    "POST /console/catalogue/accept/undo": Permission.CATALOGUE_WRITE,
    "POST /console/catalogue/accept/cancel": Permission.CATALOGUE_WRITE,
    "GET /console/catalogue/accept/{job_id}/live.json": Permission.CATALOGUE_WRITE,
    "GET /console/catalogue/numbers": Permission.CATALOGUE_READ,
    "GET /console/catalogue/tree": Permission.CATALOGUE_READ,
    "POST /console/catalogue/tree": Permission.CATALOGUE_ADMIN,
    # operations, documentation, and what leads nowhere
    "GET /metrics": Permission.METRICS_READ,
    "GET /monitoring/alerts": Permission.MONITORING_READ,
    "GET /console/monitoring/alerts": Permission.MONITORING_READ,
    "GET /console/monitoring/alerts/{name}": Permission.MONITORING_READ,
    "POST /console/monitoring/alerts/silence": Permission.MONITORING_ADMIN,
    "POST /console/monitoring/alerts/unsilence": Permission.MONITORING_ADMIN,
    "GET /monitoring/series": Permission.MONITORING_READ,
    "GET /console/monitoring": Permission.MONITORING_READ,
    "GET /docs": Permission.DOCS_READ,
    "GET /openapi.json": Permission.DOCS_READ,
    "GET /health/live": PUBLIC,
    "GET /health/ready": PUBLIC,
    "GET /console": PUBLIC,
    "GET /console/{path:path}": PUBLIC,
}


@dataclass(kw_only=True)
class Shop:
    """A system with a person of each role and keys of all kinds; `headers` sign a request in."""

    client: httpx.AsyncClient
    platform: Platform
    people: dict[Role, dict[str, str]] = field(default_factory=dict)
    only: dict[Permission, dict[str, str]] = field(default_factory=dict)
    all_but: dict[frozenset[Permission], dict[str, str]] = field(default_factory=dict)


@pytest.fixture(scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory, models_dir: object) -> AsyncIterator[Shop]:
    """One for the module: the tests only knock at doors."""
    data_dir = tmp_path_factory.mktemp("access")
    platform = build_platform(read_settings(data_dir=data_dir, models_dir=models_dir))
    async with client_of(platform) as client:
        shop = Shop(client=client, platform=platform)
        for role in Role:
            shop.people[role] = {
                "cookie": f"shoplens_session={session_of(platform, role)}",
                "origin": "http://127.0.0.1",
            }
        for permission in Permission:
            shop.only[permission] = key_of(platform, {permission})
        for left_out in {asked_of(route) for route in ROUTES} - {frozenset()}:
            shop.all_but[left_out] = key_of(platform, set(Permission) - left_out)
        await anyio.sleep(1.1)
        assert await platform.principals.closed()
        yield shop
    await platform.close()


def asked_of(route: str) -> frozenset[Permission]:
    """The permissions of which a route asks for one; none for a public one."""
    asked = ROUTES[route]
    return frozenset(asked if isinstance(asked, tuple) else () if asked is PUBLIC else (asked,))


def session_of(platform: Platform, role: Role) -> str:
    """The token of a new person's session."""
    person = platform.accounts.people.add(f"{role.value}.person", role, by=SYSTEM)
    with platform.database.transaction() as tx:
        opened = platform.accounts.sessions.open(tx, person, SessionKind.COOKIE, Client(), needs_totp=False)
    return opened.token


def key_of(platform: Platform, scopes: set[Permission]) -> dict[str, str]:
    """The header with a new key."""
    return {"authorization": f"Bearer {platform.keys.create(SYSTEM, name='test', scopes=scopes)[1]}"}


async def knock(shop: Shop, route: str, headers: Mapping[str, str]) -> httpx.Response:
    """A request to a route, with ids of nothing in its address."""
    method, path = route.split(" ")
    path = path.replace("{channel}", "returns")
    return await shop.client.request(method, re.sub(r"\{[^}]+\}", NO_ID, path), headers=dict(headers))


def is_denied(answer: httpx.Response) -> bool:
    """Whether it was refused for who asks."""
    return answer.status_code == 401 or (answer.status_code == 403 and "permission_denied" in answer.text)


async def test_every_route_has_a_row_in_the_table(shop: Shop) -> None:
    """And asks for exactly what the row says."""
    table = {route: asked_of(route) for route in ROUTES}
    declarations = {
        f"{method} {context.path}": permissions
        for context, permissions in declared(create_app(shop.platform))
        for method in sorted((context.methods or set()) - {"HEAD"})
    }
    assert table == declarations


@pytest.mark.parametrize("route", [route for route, asked in ROUTES.items() if asked is not PUBLIC])
async def test_a_route_opens_for_whom_it_should_and_for_nobody_else(shop: Shop, route: str) -> None:
    """People of each role; a key with one such scope; one with all others; nobody; a wrong key; a wrong cookie."""
    asked = asked_of(route)
    for role, headers in shop.people.items():
        answer = await knock(shop, route, headers)
        assert asked.isdisjoint(PERMISSIONS[role]) == is_denied(answer), (role, answer.status_code, answer.text[:300])
    for permission in asked:
        assert not is_denied(await knock(shop, route, shop.only[permission]))
    beyond = await knock(shop, route, shop.all_but[asked])
    assert (403, "permission_denied") == (beyond.status_code, beyond.json()["code"])
    assert all(permission.value in beyond.json()["detail"] for permission in asked)
    forged = {"cookie": "shoplens_session=forged", "origin": "http://127.0.0.1"}
    for headers in ({}, forged):
        answer = await knock(shop, route, headers)
        assert (401, "not_authenticated") == (answer.status_code, answer.json()["code"])
        assert "Bearer" == answer.headers["www-authenticate"]


@pytest.mark.parametrize(
    "route", [route for route, asked in ROUTES.items() if asked is PUBLIC and not OWN.search(route)]
)
async def test_a_public_route_asks_nobody(shop: Shop, route: str) -> None:
    """Such as the probes of a load balancer."""
    assert not is_denied(await knock(shop, route, {}))


@pytest.mark.parametrize("route", [route for route in ROUTES if OWN.search(route)])
async def test_the_own_account_opens_for_every_person_and_for_nobody_else(shop: Shop, route: str) -> None:
    """Whatever their role; a key is no person."""
    assert is_denied(await knock(shop, route, {}))
    assert (route != "GET /me") == is_denied(await knock(shop, route, shop.only[Permission.ACCOUNTS_ADMIN]))


async def test_a_wrong_or_revoked_key_is_refused(shop: Shop) -> None:
    """With the same sentence: which of the two it is, is not said."""
    key, text = shop.platform.keys.create(SYSTEM, name="test", scopes={Permission.MODELS_READ})
    headers = {"authorization": f"bearer {text}"}
    assert 200 == (await shop.client.get("/models", headers=headers)).status_code
    assert 200 == (await shop.client.get("/models", headers={"x-api-key": text})).status_code
    shop.platform.keys.revoke(SYSTEM, key.id)
    shop.platform.principals.forget()
    revoked = await shop.client.get("/models", headers=headers)
    wrong = await shop.client.get("/models", headers={"authorization": "Bearer slk_wrong"})
    assert (401, 401) == (revoked.status_code, wrong.status_code)
    assert revoked.json()["detail"] == wrong.json()["detail"]


async def test_a_browser_is_sent_to_the_sign_in_page_and_back(shop: Shop) -> None:
    """A script of a page gets JSON instead; what a form would have sent is not repeated."""
    browser = {"accept": "text/html,application/xhtml+xml"}
    page = await shop.client.get("/console/records?channel=look", headers=browser)
    assert (303, "/sign-in?next=/console/records%3Fchannel%3Dlook") == (page.status_code, page.headers["location"])
    file = await shop.client.get("/predictions.csv", headers=browser)
    assert (303, "/sign-in?next=/predictions.csv") == (file.status_code, file.headers["location"])
    form = await shop.client.post("/console/keys", headers={**browser, "origin": "http://127.0.0.1"})
    assert (303, "/sign-in") == (form.status_code, form.headers["location"])
    script = await shop.client.get("/console/batch/returns/live.json", headers={"accept": "*/*"})
    assert (401, "application/problem+json") == (script.status_code, script.headers["content-type"])


async def test_a_page_without_the_right_names_the_roles_that_have_it(shop: Shop) -> None:
    """So that somebody knows whom to ask."""
    headers = {**shop.people[Role.VIEWER], "accept": "text/html"}
    answer = await shop.client.get("/console/keys", headers=headers)
    assert 403 == answer.status_code
    assert "accounts:admin, which the role admin has" in answer.text


@pytest.mark.parametrize(
    ("role", "entries"),
    [
        (Role.ADMIN, {"Classify", "Records", "Returns", "Models", "Keys", "Audit"}),
        (Role.CLERK, {"Classify", "Records", "Returns", "Models"}),
        (Role.VIEWER, {"Records", "Returns", "Models"}),
    ],
)
async def test_pages_show_the_entries_that_a_role_can_use(shop: Shop, role: Role, entries: set[str]) -> None:
    """Also the page of an address where nothing is."""
    for path in ("/console/records", "/nowhere"):
        answer = await shop.client.get(path, headers={**shop.people[role], "accept": "text/html"})
        navigation = answer.text.partition('<nav aria-label="Pages">')[2].partition("</nav>")[0]
        assert entries <= set(re.findall(r">([A-Z][\w ]+)</a>", navigation))
        assert {"Keys", "Audit", "Classify"} - entries == {"Keys", "Audit", "Classify"} - set(
            re.findall(r">([A-Z][\w ]+)</a>", navigation)
        )


async def test_who_may_not_classify_begins_with_the_records(shop: Shop) -> None:
    """Instead of a refusal as the first page."""
    answer = await shop.client.get("/", headers=shop.people[Role.VIEWER])
    assert (303, "/console/records") == (answer.status_code, answer.headers["location"])


async def test_a_person_reviews_without_the_number_of_a_browser(shop: Shop) -> None:
    """Their id takes its place, in every browser that they use; a program needs no cookie either."""
    for headers in (shop.people[Role.CLERK], shop.only[Permission.BATCH_REVIEW]):
        answer = await shop.client.post("/batch/looks", headers=headers, json={"items": []})
        assert 200 == answer.status_code


def test_a_route_that_declares_nothing_keeps_the_application_from_starting() -> None:
    """Deny by default: neither forgotten nor open."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    router = APIRouter()

    @router.get("/open", dependencies=[public])
    def opened() -> None: ...

    app.include_router(router)
    require_declared(app)

    @router.get("/forgotten")
    def forgotten() -> None: ...

    with pytest.raises(TypeError, match="/forgotten is neither guarded nor public"):
        require_declared(app)


async def test_exports_and_runs_stand_in_the_audit_log(shop: Shop, photo: bytes) -> None:
    """With who asked for them; runs carry the name of the person too."""
    headers = shop.people[Role.CLERK]
    for path in ("/predictions.csv?channel=look", "/feedback.csv"):
        assert 200 == (await shop.client.get(path, headers=headers)).status_code
    sent = await shop.client.post("/batch/ingest", headers=headers, files={"file": photo})
    assert 200 == sent.status_code
    started = await shop.client.post("/batch/runs", headers=headers)
    assert (202, "clerk.person") == (started.status_code, started.json()["requested_by"])
    answer = await shop.client.get("/audit?limit=3", headers=shop.people[Role.ADMIN])
    entries = answer.json()["entries"]
    assert ["run.started", "feedback.exported", "predictions.exported"] == [each["action"] for each in entries]
    assert {"clerk.person"} == {each["actor_name"] for each in entries}
    assert started.json()["id"] == entries[0]["target"]
    assert {"query": "channel=look"} == entries[2]["details"]
    assert entries[2]["request_id"]


@pytest.mark.parametrize(("role", "forms"), [(Role.CLERK, True), (Role.VIEWER, False)])
async def test_pages_show_no_button_that_would_be_refused(shop: Shop, photo: bytes, role: Role, forms: bool) -> None:
    """Import and start of a run, feedback on a record."""
    headers = {**shop.people[role], "accept": "text/html"}
    batch = await shop.client.get("/console/batch/returns", headers=headers)
    assert forms == ("/console/batch/returns/ingest" in batch.text)
    sent = await shop.client.post("/predict", headers=shop.only[Permission.PREDICT], files={"file": photo})
    record = await shop.client.get(f"/console/records/{sent.json()['id']}", headers=headers)
    assert forms == ("/feedback" in record.text.replace("/feedback.csv", ""))


async def test_photos_of_a_backlog_of_shoppers_open_only_for_moderators(
    make_platform: Callable[..., Platform], photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rights of the batch pages show neither what waits for a run nor what a run held; also once the channel has no
    batch side any more.
    """
    monkeypatch.setenv("SHOPLENS_CHANNELS__REVIEWS__BATCH__QUIET_S", "0")
    platform = make_platform()
    people = {role: f"shoplens_session={session_of(platform, role)}" for role in Role}
    sent = key_of(platform, {Permission.BATCH_RUN})
    await anyio.sleep(1.1)
    async with client_of(platform) as client:
        for channel, allowed in (("reviews", {Role.ADMIN, Role.MODERATOR}), ("returns", set(Role))):
            answer = await client.post(f"/batch/ingest?channel={channel}", headers=sent, files={"file": photo})
            path = f"/batch/items/{answer.json()['photos'][0]['item']['id']}/photo"
            for role, cookie in people.items():
                for size in ("thumbnail", "view", "original"):
                    got = await client.get(f"{path}?size={size}", headers={"cookie": cookie})
                    assert (200 if role in allowed else 403) == got.status_code, (channel, role, size, got.text)
    assert platform.batch.photos_need("gone") is Permission.MODERATION_REVIEW


async def test_who_reviews_reads_states_but_nothing_of_a_first_opinion(shop: Shop) -> None:
    """The shop sees what is true; people and keys that review see the photo as if nobody had decided it."""
    headers = shop.only[Permission.MODERATION_SUBMIT]
    sent = await shop.client.post("/moderation/photos", headers=headers, files={"file": blurred(1)})
    link = sent.json()["photos"][0]["link"]
    photo_id = link.rpartition("/")[2]
    moderator = shop.people[Role.MODERATOR]
    assert "held" == (await shop.client.get(link, headers=moderator)).json()["state"]
    with shop.platform.database.transaction() as tx:
        photo = PhotoRepository(tx).get(photo_id, lock=True)
        first = NewDecision(to_state=PhotoState.PUBLISHED, kind=DecisionKind.PERSON, by=SYSTEM, now=utc_now())
        record_decision(tx, photo, replace(first, queue=QueueReason.SECOND_OPINION))
    blind = (moderator, shop.people[Role.ADMIN], shop.only[Permission.MODERATION_REVIEW])
    for reader, state in (*((each, "held") for each in blind), (headers, "published")):
        one = (await shop.client.get(link, headers=reader)).json()
        page = (await shop.client.get("/moderation/photos", headers=reader)).json()
        assert (state, [one]) == (one["state"], [each for each in page["items"] if each["id"] == photo_id])
        assert (state == "published") == (one["media"] is not None)


async def test_photos_of_a_channel_with_moderation_are_for_people_who_moderate(shop: Shop, photo: bytes) -> None:
    """Also where /predict classified them; the records themselves are for everybody who reads records."""
    key = shop.only[Permission.PREDICT]
    records = {
        channel: (await shop.client.post(f"/predict?channel={channel}", content=photo, headers=key)).json()["id"]
        for channel in ("look", "reviews")
    }
    for role, headers in shop.people.items():
        for channel, record in records.items():
            allowed = channel == "look" or role in (Role.ADMIN, Role.MODERATOR)
            for size in ("thumbnail", "view"):
                answer = await shop.client.get(f"/predictions/{record}/image?size={size}", headers=headers)
                assert (200 if allowed else 403) == answer.status_code, (role, channel)
            assert 200 == (await shop.client.get(f"/predictions/{record}", headers=headers)).status_code
            for place in ("/console/records", f"/console/records/{record}"):
                page = await shop.client.get(place, headers=headers)
                assert allowed is (f"/predictions/{record}/image" in page.text), (role, place)


async def test_photos_of_labels_in_question_ask_for_what_photos_of_their_channel_ask_for(shop: Shop) -> None:
    """The right to look at labels shows no photo of shoppers to those who do not moderate."""
    admin = key_of(shop.platform, {Permission.MODELS_ADMIN})
    moderates = key_of(shop.platform, {Permission.MODELS_ADMIN, Permission.MODERATION_REVIEW})
    reads = key_of(shop.platform, {Permission.MODELS_ADMIN, Permission.RECORDS_READ})
    suspects = {channel: suspect_of(shop.platform, channel) for channel in ("look", "reviews")}
    for headers, allowed in ((admin, set()), (moderates, {"reviews"}), (reads, {"look"})):
        for channel, suspect in suspects.items():
            path = f"/console/models/labels/{suspect.id}/photo"
            answer = await shop.client.get(path, headers=headers)
            # The photo itself is not stored here: who may see it is told so.
            assert (404 if channel in allowed else 403) == answer.status_code, (channel, answer.text)
            page = await shop.client.get(f"/console/models/labels?channel={channel}", headers=headers)
            assert suspect.suggested in page.text
            assert (channel in allowed) is (path in page.text)
            run_photo = f"/console/models/retraining/{suspect.run_id}/photos/{'0' * 64}"
            answer = await shop.client.get(run_photo, headers=headers)
            assert (404 if channel in allowed else 403) == answer.status_code, (channel, answer.text)


def suspect_of(platform: Platform, channel: str) -> Suspect:
    """A label in question of a channel, and the retraining that found it."""
    now = utc_now()
    run = RetrainingRun(
        id=new_id(now), created_at=now, channel=channel, model=f"m-{channel}", requested_by="a test", recipe="head",
        base=None, test=None, promote="at_once", dry_run=False, state=RetrainingState.REFUSED, stage=Stage.DONE,
        candidate="1.0.0",
    )  # fmt: skip
    suspect = Suspect(
        id=new_id(now), run_id=run.id, channel=channel, rank=0, source="feedback", sample_id="x", label="vase",
        suggested="jug", score=0.9, image_key="images/gone.jpg", image_sha256="0" * 64,
    )  # fmt: skip
    with platform.database.transaction() as tx:
        RetrainingRepository(tx).add(run)
        SuspectRepository(tx).replace_open(run, [suspect])
    return suspect
