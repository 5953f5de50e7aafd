"""Photos are imported by the command line: its output, two at once, killed at any moment, beside a slow writer."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from examples.simulate_returns import drawn_photos, simulate
from shoplens.batch.entities import BatchItem
from shoplens.storage import open_store
from tests.acceptance.batch_shop import BatchShop, Forked, tiny_photo

ROUNDS = 8
MOST_ROUNDS = 32  # a quick machine ends many before their kill
AT_ONCE = 2
Command = Callable[..., str]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> BatchShop:
    """A shop that the tests of this file share; each leaves its drop folder empty."""
    return BatchShop(tmp_path_factory.mktemp("shop")).set_up()


@pytest.fixture(scope="module")
def runs() -> Iterator[list[Forked]]:
    """Two processes that run commands without the cost of their imports."""
    started = [Forked(log=f"{number}.log") for number in range(AT_ONCE)]
    yield started
    for each in started:
        each.close()


@pytest.fixture
def batch(shop: BatchShop, runs: list[Forked]) -> Command:
    """Run a command that is to end with this status; what it said."""

    def run(*arguments: str, status: int = 0) -> str:
        log = shop.root / "0.log"
        before = log.stat().st_size if log.exists() else 0
        assert status == runs[0](shop, "batch", *arguments), shop.output()[-2_000:]
        with log.open() as lines:
            lines.seek(before)
            return lines.read()

    return run


def summary_of(said: str) -> dict[str, object]:
    """The one line of JSON that is no event of the log."""
    rows = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    (summary,) = [row for row in rows if "event" not in row]
    return dict(summary)


def test_an_ingest_says_what_it_did(shop: BatchShop, batch: Command) -> None:
    """In a sentence for people, and as JSON for programs."""
    shop.bring("1_A_1.jpg", tiny_photo(1))
    shop.bring("copy.jpg", tiny_photo(1))
    shop.bring("empty.jpg", b"")
    assert f"{shop.drop}: imported 1, skipped 1 duplicate, quarantined 1." in batch("ingest")
    assert f"{shop.drop}: no new photos." in batch("ingest")
    shop.bring("2_B_1.jpg", tiny_photo(2))
    summary = summary_of(batch("ingest", "--json"))
    assert (1, 0, str(shop.drop), []) == tuple(summary[name] for name in ("taken", "known", "source", "notes"))


def test_a_source_may_be_named_and_kept(shop: BatchShop, batch: Command) -> None:
    """Nothing is taken twice, and no list is removed."""
    folder = shop.root / "elsewhere"
    folder.mkdir()
    (folder / "photo.jpg").write_bytes(tiny_photo(3))
    (folder / "list.csv").write_text("file,order,reason\nphoto.jpg,4711,too small\n")
    assert "imported 1." in batch("ingest", str(folder), "--keep-source")
    assert "1 already imported." in batch("ingest", folder.as_uri(), "--keep-source")
    assert {"photo.jpg", "list.csv"} == {path.name for path in folder.iterdir()}
    (item,) = [item for item in shop.items() if item.source_name == "photo.jpg"]
    assert ("4711", "too small") == (item.references.order, item.references.reason)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{root}/missing", "There is no folder {root}/missing"),
        ("{root}/file", "{root}/file is a file"),
        ("{root}", "holds the data of Shoplens itself"),
        ("{root}/data/blobs/returns", "holds the data of Shoplens itself"),
        ("ftp://host/photos", "cannot be imported from ftp://"),
        ("file://host/photos", "names another machine"),
    ],
)
def test_an_unusable_source_is_reported_in_one_sentence(
    shop: BatchShop, batch: Command, source: str, words: str
) -> None:
    """And its status, with nothing touched."""
    (shop.root / "file").touch()
    before = len(shop.items())
    status = 6 if source.startswith("ftp") else 5
    said = batch("ingest", source.format(root=shop.root), status=status)
    assert words.format(root=shop.root) in said
    assert ("Traceback" in said, before) == (False, len(shop.items()))


def test_a_simulated_day_is_imported(shop: BatchShop, batch: Command) -> None:
    """Drawn pictures and every kind of broken file."""
    now = datetime.now(UTC).astimezone()
    simulate(drawn_photos(12, seed=1), shop.drop, count=12, seed=1, messy=True, now=now)
    summary = summary_of(batch("ingest", "--json"))
    assert {"taken": 16, "duplicates": 1, "not_ready": 0} == {
        name: summary[name] for name in ("taken", "duplicates", "not_ready")
    }
    assert [] == list(shop.drop.iterdir())


def test_a_photo_that_another_process_is_writing_is_taken_when_it_is_whole(shop: BatchShop, batch: Command) -> None:
    """Although nothing has to be left alone for any time here."""
    photo = tiny_photo(4)
    program = (
        "import sys; data = sys.stdin.buffer; half = data.read(int(sys.argv[2]))\n"
        "with open(sys.argv[1], 'wb') as file:\n"
        "    file.write(half); file.flush(); print('half', flush=True); file.write(data.read())\n"
    )
    half = len(photo) // 2
    with subprocess.Popen(
        [sys.executable, "-c", program, str(shop.drop / "slow.jpg"), str(half)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as writer:  # fmt: skip
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write(photo[:half])
        writer.stdin.flush()
        assert b"half\n" == writer.stdout.readline()
        if sys.platform == "linux":
            assert 1 == summary_of(batch("ingest", "--json"))["not_ready"]
        writer.stdin.write(photo[half:])
        writer.stdin.close()
        assert 0 == writer.wait(30)
    assert 1 == summary_of(batch("ingest", "--json"))["taken"]
    (item,) = [item for item in shop.items() if item.source_name == "slow.jpg"]
    assert hashlib.sha256(photo).hexdigest() == item.sha256


def test_two_at_once_are_killed_again_and_again_and_nothing_is_lost_or_doubled(
    tmp_path: Path, runs: list[Forked]
) -> None:
    """Kills at random moments, with equal photos under different names; then one that is let to its end."""
    seed = int.from_bytes(os.urandom(4))
    chance = random.Random(seed)
    shop = BatchShop(tmp_path, settings={"SHOPLENS_BATCH__COMMIT_ITEMS": "5"}).set_up()
    brought: dict[str, bytes] = {}
    statuses: list[int] = []
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for number in range(MOST_ROUNDS):
            if ROUNDS <= statuses.count(-9):
                break
            for photo in range(20):
                name = f"{number}_A{photo}_1.jpg"
                brought[name] = tiny_photo(20 * number + photo // 2)
                shop.bring(name, brought[name])
                if photo % 3 == 0:
                    shop.bring(f"{name}.json", b'{"reason": "torn"}')
            moments = [chance.uniform(0, 0.2) for _ in runs]
            statuses += threads.map(
                lambda run, at: run(shop, "batch", "ingest", kill_after_s=at, once_said="trigger.started"),
                runs, moments,
            )  # fmt: skip
    assert 0 == runs[0](shop, "batch", "ingest"), shop.output()[-4_000:]
    assert ROUNDS <= statuses.count(-9), f"seed {seed}: too few were killed in time: {statuses}"
    assert [] == faults(shop, brought), f"seed {seed}"


def faults(shop: BatchShop, brought: dict[str, bytes]) -> list[str]:
    """What does not add up after everything was imported."""
    items = shop.items()
    own = [item for item in items if item.duplicate_of is None]
    store = open_store(str(shop.data / "blobs"))
    found = [f"{path.name} was left" for path in shop.drop.iterdir()]
    if sorted(brought) != sorted(item.source_name for item in items):
        found.append(f"{len(brought)} files, {len(items)} rows")
    if sorted(set(brought.values())) != sorted(store.get(item.key or "") for item in own):
        found.append(f"{len(set(brought.values()))} photos, {len(own)} items")
    if sorted(store.list("returns")) != sorted(item.key or "" for item in own):
        found.append("a photo in the store is nobody's")
    lost = [name for name in brought if int(name.split("_")[1][1:]) % 3 == 0 and reasons(items).get(name) != "torn"]
    return found + [f"what was said about {name} is lost" for name in lost]


def reasons(items: list[BatchItem]) -> dict[str, str | None]:
    """Why things came back, by the names of their photos."""
    return {item.source_name: item.references.reason for item in items}
