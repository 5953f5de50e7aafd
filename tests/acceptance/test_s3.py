"""The whole product on a real S3: photos, models and the drop, also while the S3 is away and comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from servers.process import start, wait_until_ready
from servers.seaweed import RunningS3, S3Place, running_s3
from shoplens.bundles.bundle import write_bundle
from shoplens.bundles.store import SharedBundles
from shoplens.storage import open_prefix, open_store
from tests.acceptance.batch_server import FRUIT, clear_photo, dim_photo, items_of, run_through, torn_photo
from tests.commands import run_command
from tests.conftest import running_server
from tests.unit.bundles.conftest import CARD, LABELS, MANIFEST, small_model

DROP = {
    "1_A.jpg": clear_photo(1),
    "2_B photo ü.jpg": clear_photo(2),
    "monday/3_C.jpg": dim_photo(3),
    "4_D.jpg": torn_photo(4),
    "5_E.jpg": clear_photo(1),
}
RECOVERY_S = 30.0
_LAUNCHER: Final = 7
"""Words of a server's command line before its own."""


class MortalS3:
    """A server of a test's own, which may be killed and started again at the same address with what it kept."""

    def __init__(self, server: RunningS3) -> None:
        self.place = server.place
        self._command = [str(each) for each in _arguments(server.process)[_LAUNCHER:]]
        self._folder = server.log.parent
        self._process = server.process

    def kill(self) -> None:
        """As a crash would."""
        self._process.kill()
        self._process.wait()

    def start_again(self) -> None:
        """Returns when it answers."""
        self._process = start(self._command, folder=self._folder, environment=self.place.environment)
        store = open_store(self.place.url, options=self.place.options)
        wait_until_ready(self._process, self._folder, store.check)


@pytest.fixture
def own_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MortalS3]:
    """One whose variables are set."""
    with running_s3(tmp_path / "s3") as server:
        _set(server.place, monkeypatch)
        mortal = MortalS3(server)
        yield mortal
        mortal.kill()


@pytest.fixture
def machine(tmp_path: Path, models_dir: Path) -> Path:
    """A models directory of another machine: the built-in models alone."""
    root = tmp_path / "models"
    root.mkdir()
    for built in models_dir.iterdir():
        (root / built.name).symlink_to(built, target_is_directory=True)
    return root


def test_everything_is_stored_in_the_bucket(
    s3: S3Place, machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look, a drop, a run, its report and its table; the model comes from there too."""
    _set(s3, monkeypatch)
    _push_fruit(f"{s3.url}/models", tmp_path)
    drop = open_prefix(f"{s3.url}/drop")
    for name, data in DROP.items():
        drop.put(name, data)
    with running_server(tmp_path / "data", machine, **_settings(s3.url)) as server, _client(server.url) as client:
        assert [200, 200, 200] == _look_statuses(client)
        run = _bring_in_and_work(client)
        fates = {item["source_name"]: item["state"] for item in items_of(client, run["id"])}
        pictures = [client.get(f"/batch/items/{each['id']}/photo?size=thumbnail").status_code
                    for each in items_of(client, run["id"], state="done")]  # fmt: skip
        report = client.get(f"/batch/runs/{run['id']}/report")
        table = client.get(f"/batch/runs/{run['id']}/export")
    assert {"done", "duplicate"} == {fates.pop("1_A.jpg"), fates.pop("5_E.jpg")}
    assert {"2_B photo ü.jpg": "done", "monday/3_C.jpg": "needs_review", "4_D.jpg": "quarantined"} == fates
    assert ({200}, 200, "<html" in report.text) == (set(pictures), report.status_code, True)
    assert (200, 5) == (table.status_code, table.text.count("\n") - 1)
    assert [] == list(drop.list())
    kinds = {key.split("/")[0] + "/" + key.split("/")[1] for key in open_store(f"{s3.url}/photos").list("returns")}
    assert kinds >= {"returns/processed", "returns/needs_review", "returns/quarantine", "returns/reports"}
    assert not (tmp_path / "data" / "blobs").exists()


def test_a_server_outlives_its_store(own_s3: MortalS3, models_dir: Path, tmp_path: Path) -> None:
    """While it is away: 503 with a code and a sentence, and unready. When it is back, everything goes on by itself."""
    photos = [clear_photo(number) for number in range(3)]
    settings = {"storage_url": f"{own_s3.place.url}/photos", "channels__look__keep": "original"}
    with running_server(tmp_path / "data", models_dir, **settings) as server, _client(server.url) as client:
        kept = client.post("/predict", content=photos[0]).json()["id"]
        own_s3.kill()
        for path in (f"/predictions/{kept}/image?size=original", "/predict"):
            answer = client.post(path, content=photos[1]) if path == "/predict" else client.get(path)
            assert (503, "storage_unavailable") == (answer.status_code, answer.json()["code"])
        ready = client.get("/health/ready")
        assert (503, False) == (ready.status_code, "nothing listens" in ready.text)
        assert "ok" != ready.json()["parts"]["storage"]
        own_s3.start_again()
        _until_200(client, f"/predictions/{kept}/image?size=original")
        _until_200(client, "/health/ready")
        assert 200 == client.post("/predict", content=photos[1]).status_code
        said = server.log.read_text() + "".join(log.read_text() for log in (tmp_path / "data").rglob("*.log"))
    assert "nothing listens" in said  # operators find it in the log, visitors do not
    assert own_s3.place.secret_key not in said


def test_a_run_waits_for_its_store(
    own_s3: MortalS3, machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It retries while the store is away, and then finishes."""
    _push_fruit(f"{own_s3.place.url}/models", tmp_path)
    drop = open_prefix(f"{own_s3.place.url}/drop")
    for number in range(20):
        drop.put(f"{number}_1.jpg", clear_photo(number))
    environment = _environment(own_s3.place, machine, tmp_path / "data")
    _command(environment, "batch", "ingest")
    own_s3.kill()
    process = subprocess.Popen(
        [sys.executable, "-m", "shoplens", "batch", "run"], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = next(line for line in process.stderr if "run.waits" in line)
    own_s3.start_again()
    rest = process.communicate(timeout=120)[1]
    assert (0, True) == (process.returncode, "storage_unavailable" in said), rest
    assert 20 == len(list(open_store(f"{own_s3.place.url}/photos").list("returns/processed")))


def test_the_doctor_says_what_is_wrong_with_every_store(s3: S3Place, models_dir: Path, tmp_path: Path) -> None:
    """Within seconds, with what to do, and no secret anywhere."""
    wrong = "5ecret-of-somebody-else"
    environment = _environment(s3, models_dir, tmp_path) | {
        "AWS_SECRET_ACCESS_KEY": wrong,
        "SHOPLENS_CHANNELS__RETURNS__MODEL": "opennsfw",
    }
    done = run_command("doctor", "--json", environment=environment, folder=tmp_path)
    faults = {each["part"]: each["text"] for each in json.loads(done.stdout) if each["fault"]}
    assert {"photo store", "model store", "drop folder of returns"} == set(faults)
    for setting, text in zip(
        ("storage_url", "models_url", "channels.returns.batch.source"), faults.values(), strict=True
    ):
        assert f"({setting})" in text
        assert "Set AWS_SECRET_ACCESS_KEY" in text
    assert wrong not in done.stdout + done.stderr


def test_a_server_whose_store_refuses_warns_and_starts(s3: S3Place, models_dir: Path, tmp_path: Path) -> None:
    """In one line, with what to do; it may be repaired while the server runs."""
    wrong = "5ecret-of-somebody-else"
    environment = _environment(s3, models_dir, tmp_path) | {
        "AWS_SECRET_ACCESS_KEY": wrong,
        "SHOPLENS_CHANNELS__RETURNS__MODEL": "opennsfw",
        "SHOPLENS_PORT": "0",
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "shoplens", "serve"], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    said = []
    for line in server.stderr:
        said.append(line)
        if "ready at" in line:
            break
    server.terminate()
    said.append(server.communicate(timeout=60)[1])
    (line,) = [line for line in said if "Photos cannot be kept now" in line]
    assert "(storage_url)" in line
    assert "Set AWS_SECRET_ACCESS_KEY" in line
    assert wrong not in "".join(said)
    assert wrong not in "".join(log.read_text() for log in tmp_path.rglob("*.log"))


def test_models_are_pushed_listed_and_pulled(
    s3: S3Place, machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one machine to another, by command."""
    environment = _environment(s3, machine, tmp_path)
    here = environment | {"SHOPLENS_MODELS_DIR": str(tmp_path / "here")}
    _write_fruit(tmp_path / "here")
    pushed = _command(here, "models", "push", "fruit")
    assert "fruit@1.2.0 is published at s3://" in pushed
    assert "already" in _command(here, "models", "push", "fruit@1.2.0")
    assert {"name": "fruit", "version": "1.2.0", "here": False, "shared": True} in _listed(environment)
    assert "fruit@1.2.0 is installed and verified" in _command(environment, "models", "pull", "fruit")
    (row,) = [row for row in _listed(environment) if row["name"] == "fruit"]
    assert (True, True) == (row["here"], row["shared"])


def _set(place: S3Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)


def _settings(url: str) -> dict[str, str]:
    return FRUIT | {
        "storage_url": f"{url}/photos",
        "models_url": f"{url}/models",
        "channels__returns__batch__source": f"{url}/drop",
    }


def _environment(place: S3Place, models_dir: Path, data_dir: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SHOPLENS_")}
    settings = {f"SHOPLENS_{name.upper()}": value for name, value in _settings(place.url).items()}
    own = {"SHOPLENS_DATA_DIR": str(data_dir), "SHOPLENS_MODELS_DIR": str(models_dir), "SHOPLENS_LOG_FORMAT": "json"}
    return clean | settings | own | place.environment


def _command(environment: dict[str, str], *arguments: str) -> str:
    """What a command says that ends well."""
    done = run_command(*arguments, environment=environment, folder=Path.cwd())
    assert 0 == done.returncode, done.stderr
    return done.stdout + done.stderr


def _listed(environment: dict[str, str]) -> list[dict[str, object]]:
    done = run_command("models", "list", "--json", environment=environment, folder=Path.cwd())
    rows: list[dict[str, object]] = json.loads(done.stdout)
    return rows


def _client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=60)


def _write_fruit(models_dir: Path) -> Path:
    root = models_dir / "fruit" / "1.2.0"
    return write_bundle(root, manifest=MANIFEST, labels=LABELS, card=CARD, model=small_model()).root


def _push_fruit(url: str, tmp_path: Path) -> None:
    bundle = write_bundle(
        tmp_path / "trained" / "fruit", manifest=MANIFEST, labels=LABELS, card=CARD, model=small_model()
    )
    SharedBundles(open_store(url), url).push(bundle)


def _look_statuses(client: httpx.Client) -> list[int]:
    answer = client.post("/predict", content=clear_photo(9))
    path = f"/predictions/{answer.json()['id']}/image"
    return [answer.status_code, client.get(path).status_code, client.get(f"{path}?size=thumbnail").status_code]


def _bring_in_and_work(client: httpx.Client) -> dict[str, Any]:
    answer = client.post("/batch/ingest")
    assert answer.status_code in {200, 202}, answer.text
    return run_through(client)


def _arguments(process: subprocess.Popen[bytes]) -> list[Any]:
    """What it was started with."""
    assert isinstance(process.args, list)
    return process.args


def _until_200(client: httpx.Client, path: str) -> None:
    give_up_at = time.monotonic() + RECOVERY_S
    while (answer := client.get(path)).status_code != 200:
        assert time.monotonic() < give_up_at, answer.text
        time.sleep(0.2)
