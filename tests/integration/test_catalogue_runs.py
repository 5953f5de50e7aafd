"""Runs over the catalogue: every product once, whatever ends the process, and with the model it began with."""

from __future__ import annotations

import asyncio
import email
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from email.policy import default
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import redis
import simplejpeg
from sqlalchemy import select

from shoplens.batch.process import has_ended
from shoplens.catalogue.entities import CatalogueRun, Product, ProductState
from shoplens.catalogue.products import NewProduct
from shoplens.catalogue.repository import ProductFilter, ProductOrder, ProductRepository
from shoplens.catalogue.service import StoredCatalogue
from shoplens.db import open_database
from shoplens.errors import ModelNotFound, NothingWaiting, RunInProgress
from shoplens.mail.tables import mail_messages
from shoplens.platform.alerts import open_alerts
from shoplens.platform.catalogue import open_stored
from shoplens.platform.catalogue_runs import build_catalogue_runner
from shoplens.settings import Settings, read_settings
from tests.integration.running_worker import running_worker
from tests.support.fusion import COLOURS, write_fusion_bundle

CHANNEL = "catalogue"
T = TypeVar("T")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A shop with one catalogue, whose model tells three colours; also for the processes that a test starts."""
    write_fusion_bundle(tmp_path / "models")
    for name, value in {
        "DATA_DIR": str(tmp_path / "data"), "MODELS_DIR": str(tmp_path / "models"), "DEFAULT_CHANNEL": CHANNEL,
        "CHANNELS__CATALOGUE__MODEL": "paint", "CHANNELS__CATALOGUE__ACCEPT_AT": "0.5",
        "CHANNELS__CATALOGUE__CATALOGUE": "{}", "BATCH__TAKEOVER_S": "2",
        "PUBLIC_URL": "https://photos.shop.example", "MAIL__HOST": "localhost", "MAIL__SENDER": "shoplens@shop.example",
        "MAIL__REPORTS": '{"catalogue": ["listing@shop.example", "ops@shop.example"]}',
    }.items():  # fmt: skip
        monkeypatch.setenv(f"SHOPLENS_{name}", value)
    return read_settings()


def photo_of(colour: str) -> bytes:
    """A photo of one colour."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[..., COLOURS.index(colour)] = 255
    return bytes(simplejpeg.encode_jpeg(pixels))


def fill(catalogue: StoredCatalogue, count: int) -> None:
    """Products with a title alone; each names one colour."""
    new = [NewProduct(reference=f"A-{number}", designation=f"{COLOURS[number % 3]} thing") for number in range(count)]
    catalogue.products.save_many(CHANNEL, new)


def products_of(settings: Settings) -> list[Product]:
    """All of them."""
    with open_stored(settings) as catalogue, catalogue.products._database.reading() as tx:
        every = ProductFilter(channel=CHANNEL)
        return ProductRepository(tx).page(every, order=ProductOrder.ID, limit=100_000)


def run(
    settings: Settings,
    on_progress: Callable[[CatalogueRun], None] = lambda _: None,
    **how: Any,
) -> CatalogueRun:
    """A run in this process."""
    with build_catalogue_runner(settings, None, engine="local") as runner:
        return asyncio.run(runner.run(requested_by="test", on_progress=on_progress, **how))


def mails_of(settings: Settings) -> list[tuple[str, str, Any]]:
    """What waits to be sent: about what, to whom, and the mail."""
    with closing(open_database(settings.effective_database_url)) as database, database.reading() as tx:
        rows = tx.execute(select(mail_messages).order_by(mail_messages.c.id)).all()
    return [(row.about, row.recipient, email.message_from_bytes(row.content, policy=default)) for row in rows]


def command(*arguments: str) -> subprocess.Popen[bytes]:
    """`shoplens catalogue run` as a process."""
    return subprocess.Popen(
        [sys.executable, "-m", "shoplens", "catalogue", "run", *arguments], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def wait_for(process: subprocess.Popen[bytes], settings: Settings, suggested: int) -> None:
    """Until the run of a process has committed so many."""
    with closing(open_database(settings.effective_database_url)) as database:
        give_up_at = time.monotonic() + 60
        while True:
            assert process.poll() is None, "the run ended too early"
            assert time.monotonic() < give_up_at
            with database.reading() as tx:
                found = ProductRepository(tx).count(ProductFilter(channel=CHANNEL, state=ProductState.SUGGESTED))
            if found >= suggested:
                return
            time.sleep(0.02)


def test_every_product_gets_a_suggestion_for_what_it_has(settings: Settings) -> None:
    """A title, a photo or both; where the photo cannot be used, for the title alone, and a person looks at it."""
    with open_stored(settings) as catalogue:
        products = catalogue.products
        photo = {colour: (products.photo(colour, photo_of(colour)),) for colour in COLOURS}
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        broken = (products.photo("broken", bytes(simplejpeg.encode_jpeg(noise))[:3_000]),)
        for new in (
            NewProduct(reference="text", designation="Red shirt"),
            NewProduct(reference="photo", photos=photo["blue"]),
            NewProduct(reference="both", designation="Green shirt", photos=photo["green"]),
            NewProduct(reference="broken", designation="Blue shirt", photos=broken),
            NewProduct(reference="nothing", photos=broken),
        ):
            products.save(CHANNEL, new)
        done = run(settings)
        found = {each.reference: each for each in products_of(settings)}
        with products._database.reading() as tx:
            stored = ProductRepository(tx).embeddings_of([each.id for each in found.values()])
        _, photos = products.get(CHANNEL, "photo")
    assert (5, 4, 1, "paint@1.0.0") == (done.planned, done.suggested, done.failed, done.model)
    assert done.finished_at is not None
    assert {
        "text": ("text", "Colours > Red", False, None), "photo": ("photo", "Colours > Blue", False, None),
        "both": ("both", "Colours > Green", False, None), "broken": ("text", "Colours > Blue", True, "image_corrupt"),
        "nothing": (None, None, True, "image_corrupt"),
    } == {
        name: (
            each.kind, each.suggestions[0].category if each.suggestions else None, each.needs_review, each.failure_code
        )
        for name, each in found.items()
    }  # fmt: skip
    assert {found["photo"].id, found["both"].id} == set(stored)
    assert {64} == {len(encoder) for encoder, _ in stored.values()}
    assert photos[0].image.phash != ""
    with pytest.raises(NothingWaiting):
        run(settings)
    with open_alerts(settings):
        pass  # a server takes these settings, too
    (_, first, sent), (_, second, _) = mails_of(settings)
    assert ("listing@shop.example", "ops@shop.example") == (first, second)
    assert "Catalogue: 5 products, 2 need a person, 1 without a suggestion" == sent["subject"]
    text = " ".join(sent.get_body(("plain",)).get_content().split())
    for line in (
        "Needs review 2", "Model paint@1.0.0", "Colours > Blue 2 (50.0%)", "Image corrupt 2", "https://photos.shop.example/console/catalogue/review?channel=catalogue",
    ):  # fmt: skip
        assert line in text


def test_a_run_that_is_killed_goes_on_and_writes_each_product_once(settings: Settings) -> None:
    """By `kill -9`, twice, in the middle of the work."""
    with open_stored(settings) as catalogue:
        fill(catalogue, 900)
    for suggested in (64, 320):
        process = command()
        wait_for(process, settings, suggested)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    done = run(settings)
    assert (900, 900, 0) == (done.planned, done.suggested, done.failed)
    products = products_of(settings)
    assert {(ProductState.SUGGESTED, 1, done.id)} == {(each.state, each.revision, each.run_id) for each in products}
    about = f"run:{done.id}"
    assert [(about, "listing@shop.example"), (about, "ops@shop.example")] == [each[:2] for each in mails_of(settings)]


def test_a_run_that_is_asked_to_stop_commits_and_keeps_its_model(settings: Settings, tmp_path: Path) -> None:
    """The next start goes on with the version that it had, though a newer one is there; a new run takes that."""
    with open_stored(settings) as catalogue:
        fill(catalogue, 500)
    process = command()
    wait_for(process, settings, 64)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert 143 == process.returncode
    assert b"was interrupted" in output
    write_fusion_bundle(tmp_path / "models", version="1.1.0", turned=1)
    assert {"paint@1.0.0"} == {run(settings).model, *(each.model for each in products_of(settings))}
    again = run(settings, again=True)
    assert ("paint@1.1.0", 500) == (again.model, again.suggested)
    assert {"paint@1.1.0"} == {each.model for each in products_of(settings)}


def test_a_run_whose_model_is_gone_says_so_and_a_new_one_can_begin(settings: Settings, tmp_path: Path) -> None:
    """With `--new`."""
    with open_stored(settings) as catalogue:
        fill(catalogue, 200)

    with build_catalogue_runner(settings, None) as runner:
        half = asyncio.run(runner.run(requested_by="test", on_progress=lambda _: runner.stop()))
    assert half.finished_at is None
    with closing(open_database(settings.effective_database_url)) as database, database.transaction() as tx:
        tx.exec_driver_sql("UPDATE catalogue_runs SET model = 'paint@0.9.0'")
    with pytest.raises(ModelNotFound, match=r"0\.9\.0"):
        run(settings)
    done = run(settings, start_over=True)
    assert "paint@1.0.0" == done.model
    assert {"paint@1.0.0"} == {each.model for each in products_of(settings)}


def test_a_requested_run_has_a_process_of_its_own_and_is_cancelled(settings: Settings) -> None:
    """As over HTTP: one at a time; a killed process is followed by another one; what it did stays."""
    with open_stored(settings) as catalogue:
        fill(catalogue, 3_000)
        runs = catalogue.runs
        requested = runs.start(CHANNEL, again=False, requested_by="anna")
        first = when(lambda: runs.get(requested.id), lambda found: found.suggested >= 64)
        with pytest.raises(RunInProgress):
            runs.start(CHANNEL, again=True, requested_by="bert")
        assert first.pid not in (None, os.getpid())
        os.kill(first.pid or 0, signal.SIGKILL)
        when(lambda: has_ended(first), bool)
        with suppress(RunInProgress):  # the launcher may go on with it at the same moment
            assert requested.id == runs.start(CHANNEL, again=False, requested_by="bert").id
        when(lambda: runs.get(requested.id), lambda found: found.suggested > first.suggested)
        cancelled = runs.cancel(requested.id, by="bert")
        assert ("bert", None) == (cancelled.cancelled_by, cancelled.active)
        when(lambda: process_of(requested.id), lambda found: found is None)
        done = runs.get(requested.id)
        states = dict(catalogue.products.tally(CHANNEL))
    assert (done.suggested, 3_000 - done.suggested) == (states["suggested"], states["new"])
    assert states["new"] > 0


def when(read: Callable[[], T], is_so: Callable[[T], object]) -> T:
    """What `read` gives as soon as it is so."""
    give_up_at = time.monotonic() + 60
    while not is_so(found := read()):
        assert time.monotonic() < give_up_at, found
        time.sleep(0.02)
    return found


def process_of(run_id: str) -> int | None:
    """The process that was started for a run."""
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if run_id.encode() in command.read_bytes():
                return int(command.parent.name)
    return None


def test_what_changes_during_a_run_is_looked_at_again_and_what_people_decide_stays(settings: Settings) -> None:
    """A suggestion for an old title is not written over a new one."""
    with open_stored(settings) as catalogue:
        fill(catalogue, 300)
        last = products_of(settings)[-1]

        others = ThreadPoolExecutor(1)
        second: list[Future[CatalogueRun]] = []

        def change(progress: CatalogueRun) -> None:
            if progress.suggested and not second:
                catalogue.products.save(CHANNEL, NewProduct(reference=last.reference, designation="blue chair"))
                second.append(others.submit(run, settings))

        done = run(settings, change)
        with others, pytest.raises(RunInProgress):
            second[0].result()
        changed, _ = catalogue.products.get(CHANNEL, last.reference)
    assert "Colours > Blue" == changed.suggestions[0].category
    assert {done.id} == {each.run_id for each in products_of(settings)}


def ended(catalogue: StoredCatalogue, run: CatalogueRun) -> CatalogueRun:
    """The run at its end."""
    until = time.monotonic() + 60
    while run.finished_at is None and time.monotonic() < until:
        time.sleep(0.1)
        run = catalogue.runs.get(run.id)
    return run


@pytest.mark.anyio
async def test_a_run_that_a_page_starts_asks_the_workers_that_the_settings_name(
    settings: Settings, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With photos and texts, in a process of its own."""
    monkeypatch.setenv("SHOPLENS_REDIS_URL", redis_url)
    monkeypatch.setenv("SHOPLENS_REDIS_PREFIX", "catalogue-run")
    monkeypatch.setenv("SHOPLENS_BATCH__ENGINE", "workers")
    shared = read_settings()
    with open_stored(shared) as catalogue:
        fill(catalogue, 30)
        blue = catalogue.products.photo("blue", photo_of("blue"))
        catalogue.products.save(CHANNEL, NewProduct(reference="photo", photos=(blue,)))
    async with running_worker(shared):
        with open_stored(shared) as catalogue:
            started = catalogue.runs.start(CHANNEL, again=False, requested_by="a page")
            done = await asyncio.to_thread(ended, catalogue, started)
    with closing(redis.from_url(redis_url)) as client:
        streams = client.scan_iter("catalogue-run*", _type="stream")
        assert 31 <= sum(client.xinfo_stream(stream)["entries-added"] for stream in streams)
    assert (31, 0, "paint@1.0.0") == (done.suggested, done.failed, done.model)
    assert "Colours > Blue" == products_of(shared)[-1].suggestions[0].category


def test_one_suggestion_at_the_command_line_stores_nothing(settings: Settings, tmp_path: Path) -> None:
    """For a title with a photo; as JSON."""
    (tmp_path / "green.jpg").write_bytes(photo_of("green"))
    arguments = ["suggest", "Green shirt", str(tmp_path / "green.jpg"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "shoplens", "catalogue", *arguments], capture_output=True, check=True, timeout=60
    )
    found = json.loads(done.stdout)
    assert ("both", "Colours > Green", "paint@1.0.0") == (
        found["kind"],
        found["suggestions"][0]["path"],
        found["model"],
    )
    assert [] == products_of(settings)


def test_a_heartbeat_after_the_end_of_a_run_does_nothing(settings: Settings) -> None:
    """It may be on its way to its thread when the run ends, which is then not lost."""
    with open_stored(settings) as catalogue:
        fill(catalogue, 3)
    with build_catalogue_runner(settings, None, engine="local") as runner:
        done = asyncio.run(runner.run(requested_by="test"))
        runner._beat(done.id, done.owner or "")
    assert (3, True) == (done.suggested, done.finished_at is not None)


def test_a_run_on_ray_goes_on_when_an_actor_dies(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its products are asked once more; each has one suggestion in the end."""
    if find_spec("ray") is None:
        pytest.skip("the extra ray is not installed")
    monkeypatch.setenv("SHOPLENS_THREADS", "1")
    with open_stored(settings) as catalogue:
        fill(catalogue, 2_000)
    with command("--engine", "ray") as process:  # of its own: Ray reads its settings once, when it is imported
        wait_for(process, settings, 1)
        os.kill(actors_of(process)[0], signal.SIGKILL)
        assert 0 == process.wait(120)
    found = products_of(settings)
    assert (2_000, {(ProductState.SUGGESTED, 1)}) == (len(found), {(each.state, each.revision) for each in found})


def actors_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The processes of actors that a process has started, by way of Ray's own."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = []
    for pid in parents:
        above = pid
        while above in parents and above != process.pid:
            above = parents[above]
        with suppress(OSError):
            if above == process.pid and b"SampleActor" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found
