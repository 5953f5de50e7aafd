"""The registry over HTTP and as a page: by the guide, with refusals, and with an audit entry and an event."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from shoplens.platform.server import Platform
from shoplens.registry.object_registry import ObjectRegistry
from shoplens.storage import open_store
from shoplens.testing.registry_contract import Make, promote, publish
from tests.acceptance.api.guides import run_guide
from tests.conftest import RunningServer, client_of, colourful, jpeg_of, running_server
from tests.registry_bundles import bundle_maker
from tests.unit.registry.test_object_registry import utc_now

PROMOTE = "/registry/{name}/aliases/champion"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the registry."""
    return tmp_path_factory.mktemp("published")


@pytest.fixture(scope="module")
def registry(place: Path) -> ObjectRegistry:
    """As another machine sees it."""
    return ObjectRegistry(open_store(str(place)), str(place), clock=utc_now)


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, models_dir: Path, place: Path, registry: ObjectRegistry
) -> Iterator[RunningServer]:
    """With that registry, and a channel whose model has a champion that is not the newest version."""
    root = tmp_path_factory.mktemp("shop")
    published(registry, root / "made", "followed", "1.0", "2.0")
    promote(registry, "followed", "1.0")
    channels = {"channels__followed": json.dumps({"model": "followed"})}
    with running_server(root, models_dir, models_url=str(place), **channels) as started:
        yield started


def published(registry: ObjectRegistry, folder: Path, name: str, *versions: str) -> Make:
    """Versions of a model."""
    make = bundle_maker(folder, name)
    publish(registry, *map(make, versions))
    return make


def post(server: RunningServer, name: str, body: dict[str, object], alias: str = "champion") -> httpx.Response:
    """A change of an alias."""
    return httpx.post(f"{server.url}/registry/{name}/aliases/{alias}", json=body)


def test_the_guide_works_as_written(server: RunningServer, registry: ObjectRegistry, tmp_path: Path) -> None:
    """The model has an earlier version; audit and webhooks learn of both changes."""
    hooks = httpx.post(f"{server.url}/webhooks", json={"url": "https://shop.example/h", "events": ["model.promoted"]})
    assert 201 == hooks.status_code
    published(registry, tmp_path, "clothing-2", "1.3.0", "1.4.0")
    assert post(server, "clothing-2", {"version": "1.3.0", "why": "first model of our own"}).is_success
    said = run_guide("publish-models.md", server, tmp_path)
    assert '"why":"complaints about boots"' in said
    assert "1.3.0" == registry.aliases("clothing-2").champion
    actions = [entry["action"] for entry in httpx.get(f"{server.url}/audit?target=clothing-2").json()["entries"]]
    assert ["model.rolled_back", "model.promoted", "model.promoted"] == actions
    events = httpx.get(f"{server.url}/webhooks/deliveries").json()["items"]
    assert ["model.promoted"] * 3 == [event["type"] for event in events]


def test_a_channel_without_a_version_follows_the_champion(server: RunningServer) -> None:
    """Though a newer version is published."""
    answer = httpx.post(f"{server.url}/predict?channel=followed", files={"file": jpeg_of(colourful(1))})
    assert {"name": "followed", "version": "1.0"} == answer.json()["model"]


@pytest.mark.parametrize(
    ("body", "alias", "status", "code"),
    [
        ({"version": "7", "why": "?"}, "champion", 404, "model_not_found"),
        ({"version": "1.0"}, "champion", 422, "request_invalid"),
        ({"version": "1.0", "why": " "}, "champion", 422, "request_invalid"),
        ({"version": "1.0", "why": "again"}, "champion", 409, "alias_unchanged"),
        ({"version": "2.0", "why": "late", "etag": "old"}, "champion", 409, "alias_changed"),
        ({"version": "2.0", "why": "late", "etag": ""}, "champion", 409, "alias_changed"),
        ({"version": "2.0", "why": "?"}, "winner", 422, "request_invalid"),
        ({"action": "rollback", "why": "?"}, "champion", 409, "no_earlier_champion"),
        ({"action": "rollback", "why": "?"}, "challenger", 422, "request_invalid"),
        ({"action": "withdraw", "version": "1.0", "why": "?"}, "champion", 422, "request_invalid"),
        ({"action": "promote", "why": "?"}, "champion", 422, "request_invalid"),
        ({"version": "2.0", "why": "?", "figures": {"F1": "NaN"}}, "champion", 422, "request_invalid"),
    ],
)
def test_a_change_that_cannot_be_is_refused(
    server: RunningServer,
    registry: ObjectRegistry,
    tmp_path: Path,
    body: dict[str, object],
    alias: str,
    status: int,
    code: str,
) -> None:
    """With a code and a sentence, and nothing is changed."""
    name = "berry"
    if not registry.versions(name):
        published(registry, tmp_path, name, "1.0", "2.0")
        assert post(server, name, {"version": "1.0", "why": "the first"}).is_success
    answer = post(server, name, body, alias)
    assert (status, code) == (answer.status_code, answer.json()["code"])
    assert {"champion": "1.0"} == registry.aliases(name).by_alias


def test_what_is_live_is_told_with_since_when_and_why(
    server: RunningServer, registry: ObjectRegistry, tmp_path: Path
) -> None:
    """And nothing for a moment before, or for a model that nobody knows."""
    published(registry, tmp_path, "plum", "1.0")
    assert {"version": None, "since": None} == httpx.get(f"{server.url}/registry/plum/live").json()
    change = post(server, "plum", {"version": "1.0", "why": "the first", "figures": {"F1": 0.5}}).json()
    live = httpx.get(f"{server.url}/registry/plum/live").json()
    assert {"version": "1.0", "since": change} == live
    model = httpx.get(f"{server.url}/registry/plum").json()
    assert ("1.0", change, ["1.0"]) == (
        model["champion"],
        model["live"],
        [each["version"] for each in model["versions"]],
    )
    assert 404 == httpx.get(f"{server.url}/registry/nothing/history").status_code
    assert change["at"] in json.dumps(httpx.get(f"{server.url}/registry").json())


def test_the_page_promotes_and_rolls_back_with_a_reason(
    server: RunningServer, registry: ObjectRegistry, tmp_path: Path
) -> None:
    """A form that is out of date, or without a reason, changes nothing and says so."""
    published(registry, tmp_path, "fig", "1.0", "2.0")
    page = f"{server.url}/console/registry/fig"
    with httpx.Client(follow_redirects=True) as client:
        assert "No version is champion" in client.get(page).text
        for version in ("1.0", "2.0"):
            seen = registry.aliases("fig").etag or ""
            form = {"action": "promote", "version": version, "etag": seen, "why": f"{version} <b>is</b> better"}
            shown = client.post(f"{page}/aliases/champion", data=form)
            assert f"{version} is the champion now." in shown.text
        assert "2.0 &lt;b&gt;is&lt;/b&gt; better" in shown.text
        stale = client.post(f"{page}/aliases/champion", data={"action": "rollback", "etag": "", "why": "late"})
        assert (409, True) == (stale.status_code, "have changed" in stale.text)
        etag = registry.aliases("fig").etag or ""
        silent = client.post(f"{page}/aliases/champion", data={"action": "rollback", "etag": etag, "why": ""})
        assert (422, True) == (silent.status_code, "Say why" in silent.text)
        assert "2.0" == registry.aliases("fig").champion
        back = client.post(f"{page}/aliases/champion", data={"action": "rollback", "etag": etag, "why": "worse"})
        assert "1.0 is the champion now." in back.text
        assert "fig" in client.get(f"{server.url}/console/registry").text
        assert 404 == client.get(f"{server.url}/console/registry/nothing").status_code


def linked(models_dir: Path, into: Path) -> Path:
    """A folder of models with those of `models_dir`, to which others can be added."""
    into.mkdir()
    for own in models_dir.iterdir():
        (into / own.name).symlink_to(own)
    return into


async def test_an_installed_model_is_published_by_a_form_or_a_request(
    make_platform: Callable[..., Platform], models_dir: Path, tmp_path: Path
) -> None:
    """The form offers what is not published yet. Only installed models can be named, no folders."""
    models = linked(models_dir, tmp_path / "models")
    make = bundle_maker(tmp_path / "made", "kiwi")
    for version in ("1.0", "2.0"):
        shutil.copytree(make(version).root, models / "kiwi" / version)
    platform = make_platform(models_dir=models, models_url=str(tmp_path / "registry"))
    async with client_of(platform) as client:
        offered = (await client.get("/console/registry")).text
        assert 2 == offered.count("<option>kiwi@")
        assert "efficientnet" not in offered
        form = {"model": "kiwi@1.0", "why": "bought"}
        assert 303 == (await client.post("/console/registry", data=form)).status_code
        assert "<option>kiwi@1.0" not in (await client.get("/console/registry")).text
        silent = await client.post("/console/registry", data={"model": "kiwi@2.0", "why": " "})
        assert (422, True) == (silent.status_code, "Say why" in silent.text)
        done = await client.post("/registry/kiwi/versions", json={"version": "2.0", "why": "bought"})
        assert (201, "2.0", "bought") == (done.status_code, done.json()["version"], done.json()["note"])
        assert done.json() == (await client.post("/registry/kiwi/versions", json={"version": "2.0", "why": "b"})).json()
        for wrong in (str(models / "kiwi" / "1.0"), "../models/kiwi/1.0", "kiwi@3.0", "kiwi"):
            refused = await client.post("/console/registry", data={"model": wrong, "why": "bought"})
            assert (404, True) == (refused.status_code, "on this machine" in refused.text)
