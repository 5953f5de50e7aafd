"""Runs with a scripted engine over a real database and a real store, and photos whose bytes say what they are."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from shoplens import errors
from shoplens.batch.entities import BatchItem, BatchRun, ItemFilter, ItemState, RunState, incoming_key
from shoplens.batch.executors import EngineExecutor, Executor, ResultBuilder, RetryPolicy, WorkLimits
from shoplens.batch.process import WatchTime
from shoplens.batch.repository import ItemRepository
from shoplens.batch.run_mail import Posted
from shoplens.batch.run_repository import RunRepository
from shoplens.batch.runner import BatchRunner, OnProgress, RunnerParts, RunRules
from shoplens.bundles.manifest import ModelRef, SampleKind
from shoplens.db import Database
from shoplens.db.tables import make_id
from shoplens.errors import StorageUnavailable
from shoplens.images.picture import ImageFacts, Limits
from shoplens.predictions.entities import Channel, Keep, PredictionRecord, RecordFilter
from shoplens.predictions.policy import Policy
from shoplens.predictions.repository import PredictionRepository
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, LabelScore, Prediction, ServedModel
from shoplens.storage import Store, open_store

MODEL = ModelRef(name="script", version="1.0.0")
CHANNEL = Channel(
    name="returns",
    title="Returns",
    question="What is it?",
    model="script",
    policy=Policy(accept_at=0.8),
    keep=Keep.ORIGINAL,
)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The numbers of a run in tests."""

    photos: int = 3
    photo_bytes: int = 1_000_000
    retry_s: float = 30.0
    file_by_label: bool = True
    run: RunRules = RunRules(commit_items=4, takeover_s=15.0, stall_after_s=30.0)  # noqa: RUF009  it is frozen


RULES = Rules()


def now() -> datetime:
    """The current time."""
    return datetime.now(UTC)


class ScriptedEngine:
    """Answers what the bytes of a photo say: `shirt 0.9 …`, or the name of an error such as `!ImageCorrupt …`.

    `!Once<Error>` fails the first time only. While `gate` is given, each job waits for it.
    """

    def __init__(self, gate: asyncio.Event | None = None) -> None:
        self.seen: Counter[str] = Counter()
        self.most_at_once = 0
        self.closed = False
        self._entered = asyncio.Event()
        self._gate = gate
        self._now = 0

    async def classify(self, request: ClassifyRequest) -> ClassifyResult:
        """See Engine."""
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        self._entered.set()
        try:
            await (asyncio.sleep(0) if self._gate is None else self._gate.wait())
            return self._answer(request)
        finally:
            self._now -= 1

    async def until_at_work(self, count: int = 1) -> None:
        """Until so many photos are in work at once."""
        while self._now < count:
            self._entered.clear()
            await self._entered.wait()

    def open_gate(self) -> None:
        """Let the jobs go on."""
        assert self._gate is not None
        self._gate.set()

    def _answer(self, job: ClassifyRequest) -> ClassifyResult:
        first, second = job.images[0].decode().split()[:2]
        sha256 = job.sha256 or ""
        self.seen[sha256] += 1
        if first.startswith("!") and not (first.startswith("!Once") and self.seen[sha256] > 1):
            raise _error(first.removeprefix("!").removeprefix("Once"))
        label, score = ("shirt", 0.9) if first.startswith("!") else (first, float(second))
        facts = ImageFacts(
            format="jpeg", width=8, height=6, byte_count=job.byte_count, sha256=sha256, phash="00ff00ff00ff00ff"
        )
        labels = (LabelScore(label, score), LabelScore("other", 1 - score))
        return ClassifyResult(
            prediction=Prediction(model=MODEL, labels=labels), images=(facts,), thumbnail=None,
            queue_s=0.0, pixels_s=0.001, inference_s=0.002,
        )  # fmt: skip

    def labels(self, model: str) -> tuple[str, ...]:
        """See Engine."""
        return ("shirt", "other")

    def kinds(self, model: str) -> tuple[SampleKind, ...]:
        """See Engine."""
        return ("photo",)

    def served(self) -> tuple[ServedModel, ...]:
        """See Engine."""
        return (ServedModel(ref=MODEL, provider="cpu", batching="none"),)

    async def check(self) -> None:
        """See Engine."""

    async def close(self) -> None:
        """See Engine."""
        self.closed = True


def _error(name: str) -> Exception:
    if name == "QueueFull":
        return errors.QueueFull("full", retry_after_s=0.0)
    kind: type[Exception] = getattr(errors, name, RuntimeError)
    return kind(f"It is {name}.")


class MoodyStore:
    """A real store that fails on request: `refuse` gets the verb and the key, and may return an error."""

    def __init__(self, inner: Store, refuse: Callable[[str, str], Exception | None]) -> None:
        self._inner = inner
        self._refuse = refuse

    def put(self, key: str, data: bytes, durable: bool = False) -> None:
        """See Store."""
        self._ask("put", key)
        self._inner.put(key, data, durable)

    def put_pieces(self, key: str, pieces: Iterable[bytes]) -> None:
        """See Store."""
        self._ask("put", key)
        self._inner.put_pieces(key, pieces)

    def version(self, key: str) -> str | None:
        """See Store."""
        return self._inner.version(key)

    def put_if(self, key: str, data: bytes, *, seen: str | None) -> bool:
        """See Store."""
        self._ask("put", key)
        return self._inner.put_if(key, data, seen=seen)

    def pieces(self, key: str) -> Iterator[bytes]:
        """See Store."""
        self._ask("get", key)
        return self._inner.pieces(key)

    def move(self, source: str, target: str, *, durable: bool = True) -> None:
        """See Store."""
        self._ask("move", source)
        self._inner.move(source, target, durable=durable)

    def sync(self, keys: Iterable[str]) -> None:
        """See Store."""
        self._inner.sync(keys)

    def get(self, key: str) -> bytes:
        """See Store."""
        self._ask("get", key)
        return self._inner.get(key)

    def exists(self, key: str) -> bool:
        """See Store."""
        return self._inner.exists(key)

    def delete(self, key: str) -> None:
        """See Store."""
        self._inner.delete(key)

    def list(self, prefix: str) -> Iterator[str]:
        """See Store."""
        return self._inner.list(prefix)

    def check(self) -> None:
        """See Store."""
        self._ask("check", "")
        self._inner.check()

    def _ask(self, verb: str, key: str) -> None:
        if (error := self._refuse(verb, key)) is not None:
            raise error


def away(times: int, *verbs: str) -> Callable[[str, str], Exception | None]:
    """Refuses the first so many calls of these verbs."""
    left = itertools.count(times, -1)

    def refuse(verb: str, key: str) -> Exception | None:
        return StorageUnavailable("The store is away.") if verb in verbs and next(left) > 0 else None

    return refuse


@dataclass
class House:
    """Everything that a run needs, and what a test looks at afterwards."""

    database: Database
    store: Store
    engine: ScriptedEngine = field(default_factory=ScriptedEngine)
    reports: list[str] = field(default_factory=list)
    clock: Callable[[], datetime] = now
    watch: WatchTime = field(default_factory=WatchTime)
    channel: Channel = CHANNEL

    def bring(self, *scripts: str) -> list[BatchItem]:
        """Photos that arrived; each script makes one, and a number makes its content unlike any other."""
        arrived = [self._arrived(script) for script in scripts]
        with self.database.transaction() as tx:
            ItemRepository(tx).add_many(arrived)
        return arrived

    def runner(
        self,
        rules: Rules = RULES,
        *,
        store: Store | None = None,
        open_executor: Callable[[], Executor] | None = None,
        report: Callable[[str], str] | None = None,
        retry: RetryPolicy | None = None,
        mail: Callable[[str, str | None], Posted] | None = None,
    ) -> BatchRunner:
        """A runner that has not begun."""
        store = store or self.store
        results = ResultBuilder(
            self.channel, store, clock=self.clock, max_attempts=3, file_by_label=rules.file_by_label
        )
        retry = retry or RetryPolicy(rules.retry_s)
        executor = EngineExecutor(
            self.engine,
            store=store,
            results=results,
            limits=WorkLimits(photos=rules.photos, photo_bytes=rules.photo_bytes, timeout_s=30.0),
            image_limits=Limits(),
            retry=retry,
        )
        parts = RunnerParts(
            database=self.database,
            store=store,
            results=results,
            retry=retry,
            open_executor=open_executor or (lambda: executor),
            report=report or self._report,
            clock=self.clock,
            watch=self.watch,
            mail=mail,
        )
        return BatchRunner(parts, rules.run)

    async def work(
        self, rules: Rules = RULES, *, store: Store | None = None, on_progress: OnProgress = lambda _: None
    ) -> BatchRun:
        """A whole run."""
        return await self.runner(rules, store=store).run(requested_by="test", on_progress=on_progress)

    def items(self) -> list[BatchItem]:
        """All of them in order of arrival."""
        with self.database.reading() as tx:
            return sorted(ItemRepository(tx).page(ItemFilter(), limit=100_000), key=lambda item: item.seq)

    def item(self, item_id: str) -> BatchItem:
        """One of them."""
        with self.database.reading() as tx:
            return ItemRepository(tx).get(item_id)

    def records(self) -> list[PredictionRecord]:
        """All predictions."""
        with self.database.reading() as tx:
            return PredictionRepository(tx).page(RecordFilter(), limit=1_000_000)

    def states(self) -> Counter[ItemState]:
        """The number of items by state."""
        return Counter(item.state for item in self.items())

    def faults(self) -> list[str]:
        """What does not add up once a run is finished: each photo in one place, each result once, nothing half done."""
        return list(_faults(self.items(), self.records(), set(self.store.list("returns"))))

    def bring_bytes(self, data: bytes) -> BatchItem:
        """One photo with just these bytes."""
        item = self._arrival(make_id(int(now().timestamp() * 1000), os.urandom(10)), data)
        with self.database.transaction() as tx:
            ItemRepository(tx).add_many([item])
        return item

    def _arrived(self, script: str) -> BatchItem:
        item_id = make_id(int(now().timestamp() * 1000), os.urandom(10))
        return self._arrival(item_id, f"{script} {item_id}".encode())

    def _arrival(self, item_id: str, data: bytes) -> BatchItem:
        key = incoming_key(self.channel.name, item_id, "photo.jpg", "jpg")
        self.store.put(key, data)
        return BatchItem(
            channel=self.channel.name,
            id=item_id, received_at=now(), source_name=f"{item_id}.jpg", key=key, state=ItemState.WAITING,
            sha256=hashlib.sha256(data).hexdigest(), byte_count=len(data),
        )  # fmt: skip

    def _report(self, run_id: str) -> str:
        self.reports.append(run_id)
        return f"returns/reports/{run_id}.html"


def open_house(database: Database, tmp_path: Path, **more: object) -> House:
    """With photos in a folder of its own."""
    house = House(database=database, store=open_store(str(tmp_path / "blobs")))
    return replace(house, **more)  # type: ignore[arg-type]  # what a test wants otherwise


def make_run(house: House, *, bound: int = 1_000_000) -> BatchRun:
    """An active run that nobody works on."""
    run = BatchRun(
        channel="returns",
        id=make_id(int(now().timestamp() * 1000), os.urandom(10)), created_at=now(), requested_by="test",
        state=RunState.REQUESTED, bound=bound, planned=0,
    )  # fmt: skip
    with house.database.transaction() as tx:
        RunRepository(tx).add(run)
    return run


def _faults(items: list[BatchItem], records: list[PredictionRecord], keys: set[str]) -> Iterator[str]:
    by_id = {record.id: record for record in records}
    photos = {key for key in keys if not key.startswith("returns/reports/")}
    if len(by_id) != len(records) or len({record.image.sha256 for record in records}) != len(records):
        yield "a photo has two predictions"
    for item in items:
        if item.target_key is not None:
            yield f"{item.id} is still to be moved"
        record = by_id.pop(item.prediction_id or "", None)
        if (record is not None) is not (item.state in (ItemState.DONE, ItemState.NEEDS_REVIEW)):
            yield f"{item.id} is {item.state} with record {record}"
        if record is not None and record.image_key != item.key:
            yield f"{item.id} is at {item.key}, its record says {record.image_key}"
        if item.failure_code != errors.ImageGone.code and item.key not in photos:
            yield f"{item.id} is not at {item.key}"
        photos.discard(item.key or "")
    yield from (f"nobody owns the prediction {each}" for each in by_id)
    yield from (f"nobody owns the photo {each}" for each in photos)
