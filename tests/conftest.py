"""What tests share: real models built once, a real platform, a real server process, and photos."""

from __future__ import annotations

import fcntl
import gc
import io
import json
import logging
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from PIL import Image

from servers.postgres import SharedDatabase, fresh_database
from servers.process import START_TIMEOUT_S
from shoplens.bundles.builtin import builtin_names, prepare_builtin
from shoplens.cli.output import Manner, speak
from shoplens.db import Database, open_database, upgrade
from shoplens.images import sandbox
from shoplens.platform import parts
from shoplens.platform.server import Platform, build_platform
from shoplens.serving import classifier
from shoplens.settings import Settings, read_settings
from shoplens.web.app import create_app
from tests.commands import RunningCommand, start_command

pytest_plugins = ["servers.fixtures"]
# Test processes share the processors. Threads of torch that wait for one another would take them from the others.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A busy machine may take longer than the five seconds of httpx and the 0.2 of Hypothesis. The product sets its own
# timeouts, and where Hypothesis sees that it runs in CI it has loaded a profile of its own.
for _phase in ("connect", "read", "write", "pool"):
    setattr(DEFAULT_TIMEOUT_CONFIG, _phase, 60.0)
if hypothesis_settings.get_current_profile_name() == "default":
    hypothesis_settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    hypothesis_settings.load_profile("unhurried")


def pytest_collection_finish() -> None:
    """Collecting garbage need not look at modules and tests from now on: they stay."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _each_model_is_opened_once() -> Iterator[None]:
    """Sessions of ONNX Runtime may be called from all threads, so platforms share them: opening four takes 0.4 s."""
    opened = lru_cache(maxsize=24)(_opened_session)

    def open_session(model: Path | bytes, *, provider: classifier.Provider, name: str | None = None) -> Any:
        if isinstance(model, bytes):
            return _opened_session(model, None, provider, name)
        return opened(model, model.stat().st_ctime_ns, provider, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "open_session", open_session)
        yield


@pytest.fixture(autouse=True, scope="session")
def _one_process_forks_the_decoders_of_all_platforms() -> Iterator[None]:
    """It imports the decoders once; to start it for each platform takes a fifth of a second."""

    class SharedForkServer(sandbox._ForkServer):
        def close(self) -> None:
            """A platform has ended its own decoders before."""

    shared = SharedForkServer()

    class Decoder(sandbox.SandboxedDecoder):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self._server = shared

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "SandboxedDecoder", Decoder)
        yield
    sandbox._ForkServer.close(shared)


@pytest.fixture(autouse=True, scope="session")
def _commands_in_this_process_leave_its_memory_alone() -> Iterator[None]:
    """What they set for malloc could not be taken back, and other tests measure memory."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("shoplens.cli.process", "shoplens.predictions.commands"):
            patch.setattr(f"{module}.keep_freed_memory", lambda: False)
        yield


@pytest.fixture(autouse=True)
def _what_a_command_sets_is_restored() -> Iterator[None]:
    """One that runs in this process changes its umask, its log and its manner of speaking."""
    umask = os.umask(0o022)
    os.umask(umask)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    os.umask(umask)
    root.handlers[:] = handlers
    root.setLevel(level)
    speak(Manner())


def _opened_session(
    model: Path | bytes,
    _changed_ns: int | None,
    provider: classifier.Provider,
    name: str | None,
    really: Callable[..., Any] = classifier.open_session,
) -> Any:
    return really(model, provider=provider, name=name)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """One event loop, the one that the server uses."""
    return "asyncio"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real photos; it is not part of the repository."""
    default = Path(__file__).parents[2] / "shared" / "data"
    root = Path(os.environ.get("SHOPLENS_SHARED_DATA", default))
    if not (root / "imagenet-samples").is_dir():
        pytest.skip("no sample photos here: set SHOPLENS_SHARED_DATA to the folder that holds imagenet-samples")
    return root


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in models, built once for all tests, also where several processes share the tests out."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "models"
    root.mkdir(exist_ok=True)
    with (root.parent / "models.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in builtin_names():
            prepare_builtin(name, root)
    return root


@pytest.fixture
def make_settings(tmp_path: Path, models_dir: Path) -> Callable[..., Settings]:
    """Settings of an embedded system in a temporary folder, independent of the tests' environment."""

    def make(**overrides: Any) -> Settings:
        return read_settings(**{"data_dir": tmp_path / "data", "models_dir": models_dir, **overrides})

    return make


@pytest.fixture
async def make_platform(make_settings: Callable[..., Settings]) -> AsyncIterator[Callable[..., Platform]]:
    """Real platforms, closed at the end of the test."""
    built: list[Platform] = []

    def make(**overrides: Any) -> Platform:
        settings = make_settings(**overrides)
        if "database_url" not in overrides:
            add_database(settings.data_dir)
        built.append(build_platform(settings))
        return built[-1]

    yield make
    for platform in built:
        await platform.close()


@pytest.fixture
async def platform(make_platform: Callable[..., Platform]) -> Platform:
    """A real platform with the default settings."""
    return make_platform()


@pytest.fixture
async def client(platform: Platform) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the whole application, without a socket between."""
    async with client_of(platform) as connected:
        yield connected


@pytest.fixture(scope="module")
async def busy_client(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client that a whole module shares: for tests that do not mind what else is in the database."""
    data_dir = add_database(tmp_path_factory.mktemp("shared"))
    platform = build_platform(read_settings(data_dir=data_dir, models_dir=models_dir))
    async with client_of(platform) as connected:
        yield connected
    await platform.close()


@cache
def _migrated_database() -> bytes:
    """The file of a migrated database without rows: a copy takes a hundredth of the time of the migrations."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shoplens.db")
        upgrade(f"sqlite:///{path}")
        return path.read_bytes()


def add_database(data_dir: Path) -> Path:
    """Give this data directory an empty database, if it has none."""
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / "shoplens.db"
    if not path.exists():
        path.write_bytes(_migrated_database())
    return data_dir


_applications: list[tuple[Platform, FastAPI]] = []
"""The platform of the last client with its application: building one takes a fifth of a second."""


def client_of(platform: Platform) -> httpx.AsyncClient:
    """A client of the application over `platform`; crashes are answered with 500, as a server would."""
    if not _applications or _applications[0][0] is not platform:
        _applications[:] = [(platform, create_app(platform))]
    transport = httpx.ASGITransport(app=_applications[0][1], raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningServer:
    """A `shoplens serve` process."""

    url: str
    process: RunningCommand
    data_dir: Path
    log: Path

    def events(self) -> list[dict[str, Any]]:
        """What it logged, as far as it is JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


ServerStarter = Callable[..., Any]


@contextmanager
def running_server(data_dir: Path, models_dir: Path, *arguments: str, **settings: str) -> Iterator[RunningServer]:
    """Start `shoplens serve` on a free port and stop it at the end; `settings` become SHOPLENS_ variables."""
    data_dir.mkdir(parents=True, exist_ok=True)
    if "database_url" not in settings:
        add_database(data_dir)
    log = data_dir / "server.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOPLENS_")}
    environment |= {"SHOPLENS_DATA_DIR": str(data_dir), "SHOPLENS_MODELS_DIR": str(models_dir)}
    environment["SHOPLENS_CONSOLE_CHANNEL"] = "look"  # the quickest model
    environment |= {f"SHOPLENS_{name.upper()}": value for name, value in settings.items()}
    log.touch()
    before = log.stat().st_size
    process = start_command("serve", "--port", "0", *arguments, environment=environment, folder=data_dir, log=log)
    try:
        url = _wait_until_ready(process, log, before)
        yield RunningServer(url=url, process=process, data_dir=data_dir, log=log)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: RunningCommand, log: Path, before: int) -> str:
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up_at and process.poll() is None:
        with log.open() as lines:
            lines.seek(before)
            found = re.search(r"ready at (http://\S+)", lines.read())
        if found and _answers(found[1]):
            return found[1]
        time.sleep(0.05)
    ended = process.poll()
    what = f"ended with status {ended}" if ended is not None else f"was not ready within {START_TIMEOUT_S} s"
    raise RuntimeError(f"`shoplens serve` {what}. Its log {log}:\n{log.read_text()}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=20) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[RunningServer]:
    """One server process for the tests that only talk to it."""
    with running_server(tmp_path_factory.mktemp("server"), models_dir) as started:
        yield started


def jpeg_of(pixels: np.ndarray[Any, np.dtype[np.uint8]], *, quality: int = 90, **options: Any) -> bytes:
    """Encode (height, width, 3) pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, **options)
    return buffer.getvalue()


def colourful(seed: int, *, width: int = 320, height: int = 240) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A smooth random picture; another for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(smooth)


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A small valid JPEG."""
    return jpeg_of(colourful(1))


@pytest.fixture(scope="session")
def empty_database_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without rows; do not write to it."""
    path = tmp_path_factory.mktemp("database") / "empty.db"
    path.write_bytes(_migrated_database())
    return path


@pytest.fixture
def database_file(empty_database_file: Path, tmp_path: Path) -> Path:
    """A migrated database of this test alone."""
    return Path(shutil.copy(empty_database_file, tmp_path / "shoplens.db"))


@pytest.fixture(scope="session")
def migrated_postgres(postgres_url: str) -> Iterator[SharedDatabase]:
    """A migrated PostgreSQL database for all tests of this process."""
    with fresh_database(postgres_url) as url:
        upgrade(url)
        shared = SharedDatabase(url)
        yield shared
        shared.close()


@pytest.fixture
def postgres_tables(migrated_postgres: SharedDatabase) -> str:
    """The URL of a migrated PostgreSQL database without rows."""
    migrated_postgres.empty()
    return migrated_postgres.url


ONLY_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what concerns SQLite's file or its one writer."""
ONLY_POSTGRESQL = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database without rows, of this test alone: each test runs on both kinds."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_tables"))
    return f"sqlite:///{request.getfixturevalue('database_file')}"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The same, opened."""
    opened = open_database(database_url)
    yield opened
    opened.close()
