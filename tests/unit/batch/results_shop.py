"""A small shop for tests of results, over a real database and store: photos arrive, runs have scripted results."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from shoplens.accounts.audit import AuditLog
from shoplens.batch.entities import (
    BatchItem,
    BatchRun,
    ItemResult,
    ItemState,
    References,
    RunOwner,
    incoming_key,
    target_key,
)
from shoplens.batch.files import finish_moves
from shoplens.batch.repository import ItemRepository
from shoplens.batch.retention import RunPhotoRetention
from shoplens.batch.review_repository import owned_predictions
from shoplens.batch.run_repository import RunRepository
from shoplens.bundles.manifest import ModelRef
from shoplens.db import Database
from shoplens.images.picture import Limits
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.labels.service import LabelService, feedback_labels
from shoplens.predictions.image_store import ImageStore
from shoplens.predictions.policy import Decision, Outcome
from shoplens.predictions.removal import Removal
from shoplens.predictions.repository import PredictionRepository
from shoplens.predictions.retention import RetentionJob
from shoplens.serving.engine import LabelScore
from shoplens.storage import Store, open_store
from tests.conftest import colourful, jpeg_of
from tests.samples import NOON, id_at, make_record, make_run

MODEL = ModelRef(name="clothing", version="2.1.0")
LIMITS = Limits(max_bytes=20_000_000, max_pixels=50_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """The result of an item."""

    state: ItemState = ItemState.DONE
    label: str = "dress"
    score: float = 0.93
    failure_code: str | None = None
    failure: str | None = None
    thumbnail_key: str | None = None
    work_ms: float = 12.5


@dataclass(slots=True)
class Shop:
    """`now` advances by a second with every action."""

    database: Database
    store: Store
    images: ImageStore
    now: datetime = NOON
    count: int = 0
    fates: dict[str, Fate] = field(default_factory=dict)

    def clock(self) -> datetime:
        """The time of the shop."""
        return self.now

    def tick(self, seconds: float = 1.0) -> datetime:
        """Advance the time."""
        self.now += timedelta(seconds=seconds)
        return self.now

    def arrive(
        self,
        name: str = "42_7.jpg",
        *,
        fate: Fate | None = None,
        data: bytes | None = None,
        references: References = References(item="7", order="42", reason="too small"),  # noqa: B008 - a frozen value
    ) -> BatchItem:
        """A photo, another one each time unless its bytes are given; `fate` is its result in the next run."""
        self.count += 1
        data = jpeg_of(colourful(self.count, width=160, height=120)) if data is None else data
        item_id = id_at(self.tick())
        item = BatchItem(
        channel="returns",
            id=item_id, received_at=self.now, source_name=name, sha256=hashlib.sha256(data).hexdigest(),
            byte_count=len(data), state=ItemState.WAITING, references=references,
            key=incoming_key("returns", item_id, name, "jpg"),
        )  # fmt: skip
        self.store.put(item.key or "", data)
        self.fates[item.id] = fate or Fate()
        return self._add(item)

    def repeat(self, item: BatchItem, name: str) -> BatchItem:
        """The same photo under another name."""
        again = replace(
            item, id=id_at(self.tick()), received_at=self.now, source_name=name, state=ItemState.DUPLICATE,
            key=None, duplicate_of=item.id, seq=0,
        )  # fmt: skip
        return self._add(again)

    def refuse(self, name: str = "empty.jpg", *, code: str = "image_missing") -> BatchItem:
        """A file that is quarantined when it arrives."""
        data = f"not a photo {self.count}".encode()
        item = self.arrive(name, data=data)
        refused = replace(
            item, id=id_at(self.tick()), source_name=f"refused-{name}", state=ItemState.QUARANTINED, seq=0,
            sha256=hashlib.sha256(data + b"!").hexdigest(), failure_code=code, failure="The file is empty.",
        )  # fmt: skip
        return self._add(refused)

    def request(self) -> BatchRun:
        """A run of what waits."""
        with self.database.transaction() as tx:
            bound = ItemRepository(tx).last_seq()
            run = make_run(
                id=id_at(self.tick()), created_at=self.now, requested_by="the schedule", bound=bound,
                planned=ItemRepository(tx).count_waiting("returns", bound=bound),
            )  # fmt: skip
            RunRepository(tx).add(run)
        return run

    def run(self, *, limit: int = 10_000, end: bool = True) -> BatchRun:
        """Request a run, process up to `limit` items as their fates say, move their photos and finish."""
        run = self.request()
        me = RunOwner(id=id_at(self.tick()), host="here", pid=1)
        with self.database.transaction() as tx:
            RunRepository(tx).take_over(run, me, now=self.now)
            RunRepository(tx).describe(
                run.id, owner=me.id, model=MODEL, policy_version="0123456789ab", planned=run.planned, bound=run.bound
            )
            taken = ItemRepository(tx).lease("returns", owner=me.id, run_id=run.id, bound=run.bound, limit=limit)
        self._settle(taken, me)
        finish_moves(self.database, self.store, "returns")
        with self.database.transaction() as tx:
            RunRepository(tx).beat(run.id, owner=me.id, now=self.tick(), finished_item=bool(taken))
            if end:
                RunRepository(tx).finish(run.id, owner=me.id, now=self.now, report_key=None)
            return RunRepository(tx).get(run.id)

    def item(self, item: BatchItem) -> BatchItem:
        """The item as it is now."""
        with self.database.reading() as tx:
            return ItemRepository(tx).get(item.id)

    def _settle(self, taken: Sequence[BatchItem], me: RunOwner) -> None:
        with self.database.transaction() as tx:
            for item in taken:
                fate = self.fates.get(item.id, Fate())
                settlement = _settlement(item, fate, self.tick())
                if fate.failure_code is None:
                    record = make_record(
                        self.count, channel="returns", model=MODEL, id=id_at(self.now), created_at=self.now,
                        image_key=settlement.target_key, labels=(LabelScore(fate.label, fate.score),),
                        decision=Decision(
                            outcome=Outcome.ACCEPT, policy_version="0123456789ab", label=fate.label, threshold=0.8
                        ),
                    )  # fmt: skip
                    record = replace(record, image=replace(record.image, sha256=item.sha256))
                    PredictionRepository(tx).add_many([record])
                    settlement = replace(settlement, prediction_id=record.id)
                ItemRepository(tx).complete([settlement], owner=me.id)

    def _add(self, item: BatchItem) -> BatchItem:
        with self.database.transaction() as tx:
            ItemRepository(tx).add_many([item])
        return self.item(item)


def open_shop(database: Database, folder: Path) -> Shop:
    """A shop over a local store."""
    store = open_store(str(folder / "blobs"))
    sandbox = SandboxedDecoder(memory_bytes=1_500_000_000, cpu_s=5, wall_s=10)
    return Shop(database=database, store=store, images=ImageStore(store, limits=LIMITS, sandbox=sandbox))


def retention_job(shop: Shop, *, days: int | None = 30) -> RetentionJob:
    """What deletes the photos of runs that are so many days old."""
    labels = LabelService(shop.database, shop.store, sources=(feedback_labels(shop.database),), clock=shop.clock)
    audit = AuditLog(shop.database, clock=shop.clock)
    removal = Removal(shop.database, shop.store, owned=owned_predictions, labels=labels, audit=audit)
    feature = RunPhotoRetention(removal, shop.store, channels={"returns": days}, batch=2)
    return RetentionJob(shop.database, [feature], clock=shop.clock)


def quarantined(code: str, sentence: str, *, thumbnail_key: str | None = None) -> Fate:
    """The fate of an item that cannot be classified."""
    return Fate(state=ItemState.QUARANTINED, failure_code=code, failure=sentence, thumbnail_key=thumbnail_key)


def needing_review(label: str, score: float) -> Fate:
    """The fate of an item that a person has to look at."""
    return Fate(state=ItemState.NEEDS_REVIEW, label=label, score=score)


def _settlement(item: BatchItem, fate: Fate, now: datetime) -> ItemResult:
    good = fate.failure_code is None
    return ItemResult(
        item_id=item.id, state=fate.state, attempts=item.attempts + 1, finished_at=now,
        target_key=target_key(fate.state, fate.label if good else None, item.key or ""),
        predicted=fate.label if good else None, score=fate.score if good else None,
        work_ms=fate.work_ms if good else None, failure_code=fate.failure_code, failure=fate.failure,
        thumbnail_key=fate.thumbnail_key,
    )  # fmt: skip
