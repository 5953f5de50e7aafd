"""`shoplens batch run --engine ray` on a real cluster of three nodes: the same answers, whichever process dies."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shoplens.batch.entities import ItemState
from shoplens.db.sqlite import driver as sqlite3
from shoplens.storage import open_store
from tests.acceptance.batch_shop import BatchShop, Forked, tiny_photo
from tests.acceptance.ray_cluster import POISON, RayCluster, ray_cluster
from tests.commands import status_said

LONG = 400


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A cluster of three nodes. A test may kill one that is not the head."""
    with ray_cluster(tmp_path_factory.mktemp("nodes")) as started:
        yield started


@pytest.fixture(scope="module")
def run() -> Iterator[Forked]:
    """Runs commands without a cluster."""
    forked = Forked()
    yield forked
    forked.close()


@pytest.fixture
def make_shop(tmp_path: Path, run: Forked) -> Iterator[Callable[..., BatchShop]]:
    """Makes shops with imported photos. Their processes end with the test."""
    made: list[BatchShop] = []

    def make(brought: dict[str, bytes], name: str = "shop", **settings: str) -> BatchShop:
        shop = BatchShop(tmp_path / name, {"RAY_AUTH_MODE": "disabled"} | settings).set_up()
        made.append(shop)
        for file, data in brought.items():
            shop.bring(file, data)
        assert 0 == run(shop, "batch", "ingest"), shop.output()
        return shop

    yield make
    for shop in made:
        shop.close()


def start_run(shop: BatchShop, cluster: RayCluster) -> subprocess.Popen[str]:
    """A run on the cluster."""
    return shop.start("batch", "run", "--engine", "ray", "--address", cluster.address)


def ended(process: subprocess.Popen[str]) -> str:
    """The log of a process that ended with status 0."""
    _, logged = process.communicate(timeout=LONG)
    assert 0 == process.returncode, logged
    return logged


def until_settled(shop: BatchShop, count: int) -> None:
    """Wait until this number of items has a result."""
    with closing(sqlite3.connect(shop.data / "shoplens.db")) as connection:
        query = "SELECT count(*) >= ? FROM batch_items WHERE state IN ('done', 'needs_review')"
        give_up_at = time.monotonic() + LONG
        while not connection.execute(query, (count,)).fetchone()[0]:
            assert time.monotonic() < give_up_at, f"{count} items had no result: {shop.output()[-5_000:]}"
            time.sleep(0.01)


def tiny_photos(count: int) -> dict[str, bytes]:
    """Small photos, all different."""
    return {f"{number}_1.jpg": tiny_photo(number) for number in range(count)}


def large_photos(count: int) -> dict[str, bytes]:
    """Photos that take some time. A number after the end of each makes all files different."""
    contents = [_encoded(np.random.default_rng(n).integers(0, 256, (40, 50, 3), np.uint8).repeat(40, 0).repeat(40, 1))
                for n in range(3)]  # fmt: skip
    return {f"{n}_1.jpg": contents[n % 3] + n.to_bytes(4) for n in range(count)}


def mixed_photos() -> dict[str, bytes]:
    """Several formats and sizes, a rotated photo, and files that cannot be classified."""
    pixels = np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    whole = _encoded(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    odd = {
        "png_1.png": _encoded(pixels, "PNG"),
        "webp_1.webp": _encoded(pixels, "WEBP"),
        "gif_1.gif": _encoded(pixels, "GIF"),
        "turned_1.jpg": _encoded(pixels, exif=exif),
        "narrow_1.jpg": _encoded(pixels[:, :9]),
        "cut_1.jpg": whole[: len(whole) // 2],
        "page_1.jpg": b"<html>no photo</html>",
        "huge_1.png": _encoded(np.zeros((600, 600, 3), np.uint8), "PNG"),
    }
    return tiny_photos(60) | odd


def _encoded(pixels: Any, form: str = "JPEG", **more: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, form, **more)
    return file.getvalue()


def results(shop: BatchShop) -> dict[str, Any]:
    """The result of each file, without ids, times and durations."""
    store = open_store((shop.data / "blobs").as_uri())
    records = {record.id: record for record in shop.records()}
    found = {}
    for item in shop.items():
        record = records.get(item.prediction_id or "")
        found[item.source_name] = (
            item.state, item.attempts, item.predicted, item.score, item.failure_code, item.failure,
            (item.key or "").rpartition("/")[0], store.get(item.thumbnail_key) if item.thumbnail_key else None,
            record and (record.channel, record.model, record.labels, record.decision, record.image),
        )  # fmt: skip
    return found


def test_answers_are_equal_to_those_of_a_run_in_one_process(
    run: Forked, cluster: RayCluster, make_shop: Callable[..., BatchShop]
) -> None:
    """Labels, scores, decisions, facts, reasons and thumbnails are equal, although one photo kills its processes."""
    brought, settings = mixed_photos(), {"SHOPLENS_MAX_IMAGE_PIXELS": "350000"}
    here = make_shop(brought, "here", **settings)
    assert 0 == run(here, "batch", "run"), here.output()
    poison = {"poison_1.jpg": tiny_photo(999) + POISON}
    there = make_shop(brought | poison, "there", **settings, SHOPLENS_BATCH__MAX_ATTEMPTS="1")
    logged = ended(start_run(there, cluster))
    found = results(there)
    poisoned = found.pop("poison_1.jpg")
    assert results(here) == found
    assert (ItemState.QUARANTINED, 1, "internal_error") == (poisoned[0], poisoned[1], poisoned[4])
    assert "died each time" in poisoned[5]
    assert [] == there.faults(brought | poison)
    # Ray's native code may report a connection that broke with a killed process.
    said = [line for line in logged.splitlines() if not re.match(r"\[[-:, \d]+ E \d+ \d+\] \w+\.cc:", line)]
    assert all(line.startswith("{") for line in said), logged
    events = Counter(json.loads(line)["event"] for line in said)
    assert {"run.started", "run.finished"} <= set(events)
    assert len(cluster.deaths.read_text()) == events["ray.actor_died"]
    assert [] == list(open_store((there.data / "blobs").as_uri()).list("health/nodes"))


def test_a_local_cluster_is_silent_stops_in_good_order_and_leaves_no_files(
    make_shop: Callable[..., BatchShop], run: Forked
) -> None:
    """Without an address a cluster is started here. Ray prints nothing, and any run continues after SIGTERM."""
    brought = large_photos(250)
    with tempfile.TemporaryDirectory(prefix="r") as name:
        shop = make_shop(brought, HOME=name, TMPDIR=name, SHOPLENS_THREADS="2", SHOPLENS_BATCH__COMMIT_ITEMS="8")
        del shop.settings["RAY_AUTH_MODE"]
        process = shop.start("batch", "run", "--engine", "ray")
        until_settled(shop, 1)
        process.send_signal(signal.SIGTERM)
        _, logged = process.communicate(timeout=LONG)
        assert 143 == process.returncode, logged
        said = logged.splitlines()
        assert ["Stopped. Run again to resume."] == [line for line in said if not line.startswith("{")]
        assert "run.interrupted" in [json.loads(line)["event"] for line in said if line.startswith("{")]
        assert [] == [path.name for path in Path(name).iterdir()]
    states = Counter(item.state for item in shop.items())
    assert (0, True) == (states[ItemState.PROCESSING], states[ItemState.WAITING] > 0)
    assert 0 == run(shop, "batch", "run"), shop.output()
    assert [] == shop.faults(brought)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--engine", "ray", "--address", "127.0.0.1:1"), "The Ray cluster at 127.0.0.1:1 cannot be reached"),
        (("--engine", "ray", "--address", "somewhere"), "The Ray cluster at somewhere cannot be reached"),
        (("--address", "auto"), "Use it with --engine ray"),
        (("--engine", "workers"), "redis_url"),
    ],
)
def test_invalid_options_end_with_one_sentence(
    run: Forked, make_shop: Callable[..., BatchShop], arguments: tuple[str, ...], sentence: str
) -> None:
    """The command ends within seconds with the status of its kind."""
    shop = make_shop(tiny_photos(1))
    began = time.monotonic()
    assert (5 if "ray" in arguments else 6) == run(shop, "batch", "run", *arguments), shop.output()
    assert 20 > time.monotonic() - began
    assert sentence in shop.output()
    assert "Traceback" not in shop.output()


def test_a_run_ends_if_a_node_does_not_see_the_photos(cluster: RayCluster, make_shop: Callable[..., BatchShop]) -> None:
    """A run must not quarantine photos because a folder is mounted on one machine only."""
    shop = make_shop(tiny_photos(2))
    hidden = shop.data / "blobs"
    program = (
        "from shoplens.platform import batch; "
        f"batch.shared_url = lambda url: {(shop.root / 'elsewhere').as_uri()!r}; "
        "from shoplens.cli import main; main()"
    )
    process = subprocess.run(
        [sys.executable, "-c", program, "batch", "run", "--engine", "ray", "--address", cluster.address],
        env=shop.environment(), cwd=shop.root, capture_output=True, text=True, timeout=LONG, check=False,
    )  # fmt: skip
    assert status_said(process.stderr) == process.returncode, process.stderr
    assert "must be mounted on every node" in process.stderr
    assert {ItemState.WAITING} == {item.state for item in shop.items()}
    assert [] == list((hidden / "health" / "nodes").iterdir())


def test_no_result_is_lost_with_a_driver_or_a_node(cluster: RayCluster, make_shop: Callable[..., BatchShop]) -> None:
    """After `kill -9` the next start continues at once, and the other nodes do the work of a lost node.

    This must be the last test of the file, since the node does not come back.
    """
    brought = large_photos(320)
    shop = make_shop(brought, SHOPLENS_BATCH__COMMIT_ITEMS="8", SHOPLENS_BATCH__TAKEOVER_S="3600")
    first = start_run(shop, cluster)
    until_settled(shop, 1)
    first.kill()
    first.communicate()
    states = Counter(item.state for item in shop.items())
    assert states[ItemState.PROCESSING] > 0
    second = start_run(shop, cluster)
    until_settled(shop, states[ItemState.DONE] + states[ItemState.NEEDS_REVIEW] + 1)
    cluster.kill_a_node()
    left = sum(item.state in {ItemState.WAITING, ItemState.PROCESSING} for item in shop.items())
    assert left > 0, "the node was killed too late to mean anything"
    ended(second)
    assert [] == shop.faults(brought)
    assert {1} == {item.attempts for item in shop.items()}
