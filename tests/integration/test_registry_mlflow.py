"""The registry on a real MLflow server: the contract, and what is particular to it.

The server is that of SHOPLENS_TEST_MLFLOW_URL, or is started once with the program SHOPLENS_TEST_MLFLOW; without either
these tests are skipped.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from shoplens.bundles.manifest import ModelRef
from shoplens.db import open_database, upgrade
from shoplens.registry.errors import RegistryDamaged, RegistryUnavailable
from shoplens.registry.mlflow_registry import MlflowRegistry, open_client
from shoplens.retraining.tracking import MlflowTracker
from shoplens.testing.registry_contract import Make, RegistryContract, promote, publish
from tests.registry_bundles import bundle_maker
from tests.retraining_shop import ColourShop
from tests.unit.registry.test_object_registry import utc_now

pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
PATIENCE_S = 300


@pytest.fixture(scope="module")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server."""
    if given := os.environ.get("SHOPLENS_TEST_MLFLOW_URL"):
        yield given
        return
    program = os.environ.get("SHOPLENS_TEST_MLFLOW")
    if program is None:
        pytest.skip("SHOPLENS_TEST_MLFLOW_URL and SHOPLENS_TEST_MLFLOW are not set")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "f"),
                 "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]  # fmt: skip
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([program, "server", *arguments], stdout=log, stderr=log, start_new_session=True)
    try:
        give_up_at = time.monotonic() + PATIENCE_S
        while not is_up(f"http://127.0.0.1:{port}/health"):
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < give_up_at
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, 15)
        server.wait(60)


def is_up(url: str) -> bool:
    """Whether the server answers."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def registry(mlflow_url: str) -> MlflowRegistry:
    """On that server, with what other tests published."""
    return MlflowRegistry(mlflow_url, clock=utc_now)


@pytest.fixture
def name() -> str:
    """Of this test alone."""
    return f"fruit-{secrets.token_hex(4)}"


@pytest.fixture
def make(tmp_path: Path, name: str) -> Make:
    """Fruit."""
    return bundle_maker(tmp_path / "made", name)


@pytest.fixture
def tamper(mlflow_url: str, tmp_path: Path) -> Callable[[ModelRef], None]:
    """By a client that may write to the server."""

    def damage(ref: ModelRef) -> None:
        client = open_client(mlflow_url)
        (version,) = client.search_model_versions(f"name = '{ref.name}'")
        file = Path(client.download_artifacts(str(version.run_id), "bundle/model.onnx", str(tmp_path)))
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(bytes(data))
        client.log_artifact(version.run_id, str(file), "bundle")

    return damage


class TestMlflowRegistry(RegistryContract):
    """A server whose aliases cannot be changed on condition."""

    is_conditional = False


def test_a_change_past_shoplens_is_recorded_by_the_next_one(
    registry: MlflowRegistry, mlflow_url: str, name: str, make: Make
) -> None:
    """It is what is live meanwhile; the record says that nobody knows who and why."""
    publish(registry, make("1.0"), make("2.0"), make("3.0"))
    promote(registry, name, "1.0")
    client = open_client(mlflow_url)
    numbers = {each.tags["shoplens.version"]: each.version for each in client.search_model_versions(f"name = '{name}'")}
    client.set_registered_model_alias(name, "champion", numbers["2.0"])
    assert "2.0" == registry.aliases(name).champion
    promote(registry, name, "3.0")
    moves = [(entry.by, entry.before, entry.after) for entry in registry.history(name)]
    assert [("ann", None, "1.0"), ("outside Shoplens", "1.0", "2.0"), ("ann", "2.0", "3.0")] == moves


def test_models_and_versions_of_others_are_left_alone(
    registry: MlflowRegistry, mlflow_url: str, name: str, make: Make
) -> None:
    """On a server that a team uses for more than Shoplens."""
    client = open_client(mlflow_url)
    client.create_registered_model(name)
    assert (name not in registry.names(), []) == (True, registry.versions(name))
    publish(registry, make("1.0"))
    assert ["1.0"] == [version.ref.version for version in registry.versions(name)]


def test_a_tag_that_cannot_be_read_is_named(registry: MlflowRegistry, mlflow_url: str, name: str, make: Make) -> None:
    """What is live stays known."""
    publish(registry, make("1.0"))
    promote(registry, name, "1.0")
    open_client(mlflow_url).set_registered_model_tag(name, "shoplens.history.0", "{")
    with pytest.raises(RegistryDamaged, match=name):
        registry.history(name)
    assert "1.0" == registry.aliases(name).champion


def test_a_server_that_is_away_is_unavailable() -> None:
    """Within seconds, with its address and what to set."""
    with pytest.raises(RegistryUnavailable, match=r"127\.0\.0\.1:9.*MLFLOW_TRACKING_TOKEN"):
        MlflowRegistry("http://127.0.0.1:9", clock=utc_now).aliases("fruit")


def test_a_retraining_is_a_run_with_its_figures_and_its_bundle(mlflow_url: str, tmp_path: Path, name: str) -> None:
    """In the experiment of the channel."""
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    upgrade(url)
    with closing(open_database(url)) as database:
        shop = ColourShop(database, tmp_path)
        shop.parts = replace(shop.parts, watchers=[MlflowTracker(mlflow_url)])
        shop.said(range(48))
        run = shop.retrain()
    client = open_client(mlflow_url)
    tracked = client.get_run(run.tracked_as or "")
    assert (run.label_digest, run.ref.partition("@")[2]) == (
        tracked.data.params["label_digest"],
        tracked.data.params["candidate"],
    )
    assert run.accuracy == tracked.data.metrics["accuracy"]
    assert {"bundle", "report.json"} == {each.path for each in client.list_artifacts(tracked.info.run_id)}
    assert "bundle/model.onnx" in {each.path for each in client.list_artifacts(tracked.info.run_id, "bundle")}
