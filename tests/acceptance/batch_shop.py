"""A shop of returned goods with real processes: a tiny model, a drop folder, commands to be killed, and an audit."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import simplejpeg

from shoplens.batch.entities import BatchItem, ItemFilter, ItemState
from shoplens.batch.repository import ItemRepository
from shoplens.bundles.bundle import write_bundle
from shoplens.db import open_database, upgrade
from shoplens.predictions.entities import PredictionRecord, RecordFilter
from shoplens.predictions.repository import PredictionRepository
from shoplens.storage import open_store
from tests.conftest import add_database
from tests.unit.bundles.conftest import CARD, LABELS, MANIFEST, small_model

ROOT = Path(__file__).parents[2]
_SETTLED = {ItemState.DONE, ItemState.NEEDS_REVIEW, ItemState.QUARANTINED}


@dataclass
class BatchShop:
    """Below one folder. `settings` become variables of every command; `server` is a PostgreSQL database to be used."""

    root: Path
    settings: dict[str, str] = field(default_factory=dict)
    server: str | None = None
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def drop(self) -> Path:
        """Where photos arrive."""
        return self.root / "drop" / "returns"

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.root / "data"

    @property
    def database_url(self) -> str:
        """Where the rows are."""
        return self.server or f"sqlite:///{self.data / 'shoplens.db'}"

    def output(self) -> str:
        """What the forked commands said."""
        return "\n".join(path.read_text() for path in sorted(self.root.glob("*.log")))

    def set_up(self) -> Self:
        """Folders, database and a model of three fruits."""
        for folder in (self.drop, self.data):
            folder.mkdir(parents=True)
        write_bundle(
            self.root / "models" / "fruit" / "1.2.0", manifest=MANIFEST, labels=LABELS, card=CARD, model=small_model()
        )
        if self.server is None:
            add_database(self.data)
        else:
            upgrade(self.server)
        return self

    def environment(self) -> dict[str, str]:
        """For a command."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SHOPLENS_")}
        own = {
            "SHOPLENS_DATA_DIR": str(self.data),
            "SHOPLENS_MODELS_DIR": str(self.root / "models"),
            "SHOPLENS_CHANNELS__RETURNS__MODEL": "fruit",
            "SHOPLENS_CHANNELS__RETURNS__ACCEPT_AT": "0.4",
            "SHOPLENS_CHANNELS__RETURNS__BATCH__SOURCE": str(self.drop),
            "SHOPLENS_CHANNELS__RETURNS__BATCH__QUIET_S": "0",
            "SHOPLENS_LOG_FORMAT": "json",
            "OPENBLAS_NUM_THREADS": "1",
        }
        there = {"SHOPLENS_DATABASE_URL": self.server} if self.server else {}
        return clean | own | there | self.settings

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A real `shoplens …` process."""
        process = subprocess.Popen(
            [sys.executable, "-m", "shoplens", *arguments],
            env=self.environment(), cwd=self.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def close(self) -> None:
        """End whatever still runs."""
        for process in self.started:
            process.kill()
            process.communicate()

    def bring(self, name: str, data: bytes) -> None:
        """A file that appears in the drop folder at once, as a careful client writes it."""
        hidden = self.root / f"{name}.part"
        hidden.write_bytes(data)
        hidden.rename(self.drop / name)

    def items(self) -> list[BatchItem]:
        """All rows in order of arrival."""
        with closing(open_database(self.database_url)) as database, database.reading() as tx:
            return sorted(ItemRepository(tx).page(ItemFilter(), limit=100_000), key=lambda item: item.seq)

    def records(self) -> list[PredictionRecord]:
        """All predictions."""
        with closing(open_database(self.database_url)) as database, database.reading() as tx:
            return PredictionRepository(tx).page(RecordFilter(), limit=1_000_000)

    def faults(self, brought: dict[str, bytes]) -> list[str]:
        """What does not add up, when everything that was brought should be settled."""
        return list(self._faults(self.items(), self.records(), brought))

    def _faults(
        self, items: list[BatchItem], records: list[PredictionRecord], brought: dict[str, bytes]
    ) -> Iterator[str]:
        yield from (f"{path.name} was left in the drop folder" for path in self.drop.iterdir())
        yield from _arrivals(items, brought)
        own = [item for item in items if item.duplicate_of is None]
        yield from (f"{item.id} is {item.state.value}" for item in own if item.state not in _SETTLED)
        yield from (f"{item.id} is still to be moved" for item in items if item.target_key is not None)
        yield from _results(own, records)
        yield from self._places(own)

    def _places(self, own: list[BatchItem]) -> Iterator[str]:
        store = open_store((self.data / "blobs").as_uri())
        keys = {key for key in store.list("returns") if not key.startswith("returns/reports/")}
        for item in own:
            if item.key not in keys:
                yield f"the photo of {item.id} is not at {item.key}"
            elif hashlib.sha256(store.get(item.key)).hexdigest() != item.sha256:
                yield f"the photo of {item.id} is another one"
        yield from (f"nobody owns the photo {key}" for key in sorted(keys - {item.key for item in own}))


class Forked:
    """Runs one command after another, each killed after its time if that is wanted, without the cost of imports."""

    def __init__(self, log: str = "commands.log") -> None:
        self._log = log
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.acceptance.forking_shop"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip

    def __call__(self, shop: BatchShop, *arguments: str, kill_after_s: float | None = None, once_said: str = "") -> int:
        """The exit status; -9 if it was killed: so many seconds after its start, or after its log held these words."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        request = {
            "arguments": arguments, "environment": shop.environment(), "log": str(shop.root / self._log),
            "kill_after_s": kill_after_s, "once_said": once_said,
        }  # fmt: skip
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return int(json.loads(self._server.stdout.readline())["status"])

    def close(self) -> None:
        """End the process that has the imports."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(60)
        self._server.stdout.close()


def tiny_photo(number: int) -> bytes:
    """A JPEG of 32 x 24 pixels, another one for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=90))


def _arrivals(items: list[BatchItem], brought: dict[str, bytes]) -> Iterator[str]:
    """Each file has one row, and each content one item."""
    contents = {hashlib.sha256(data).hexdigest() for data in brought.values()}
    names = sorted(item.source_name.rsplit("/", 1)[-1] for item in items)
    if names != sorted(brought):
        yield f"brought {len(brought)} files, there are rows for {len(names)}, {len(set(names))} different"
    own = [item.sha256 for item in items if item.duplicate_of is None]
    if sorted(own) != sorted(contents):
        yield f"brought {len(contents)} contents, there are {len(own)} items, {len(set(own))} different"
    if {item.duplicate_of for item in items if item.duplicate_of} - {item.id for item in items}:
        yield "a duplicate of nothing"


def _results(own: list[BatchItem], records: list[PredictionRecord]) -> Iterator[str]:
    """Each classified photo has one prediction, and each prediction one photo."""
    classified = [item for item in own if item.state in (ItemState.DONE, ItemState.NEEDS_REVIEW)]
    if sorted(item.prediction_id or "" for item in classified) != sorted(record.id for record in records):
        yield f"{len(classified)} items are classified, there are {len(records)} predictions"
    if sorted(item.sha256 for item in classified) != sorted(record.image.sha256 for record in records):
        yield "a prediction is of another photo"
    places = {record.id: record.image_key for record in records}
    yield from (
        f"{item.id} and its record differ" for item in classified if places.get(item.prediction_id or "") != item.key
    )
