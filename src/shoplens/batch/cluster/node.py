"""What a node does with photos: read them ahead, decode and encode them; in other processes, call the model.

The two halves pass arrays between them, one row per photo, in columns that Ray keeps in shared memory. A photo that
fails goes on as a row of its own, so that no other is held up by it.
"""

from __future__ import annotations

import pickle
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from shoplens.batch.cluster.plan import Block, ClusterOutcome, ClusterPhoto, Plan, SharedStore, own_version
from shoplens.bundles.store import unpack_bundle
from shoplens.errors import (
    BlobNotFound,
    BundleTampered,
    DeadlineExceeded,
    ImageGone,
    Misconfigured,
    ShoplensError,
    StorageUnavailable,
)
from shoplens.images.decoder import decode
from shoplens.images.hashing import facts_of
from shoplens.images.picture import ImageFacts, Picture
from shoplens.images.preprocess import preprocess
from shoplens.images.salvage import salvage
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.serving.classifier import Classifier, Tensor
from shoplens.serving.engine import ClassifyResult, fault_of
from shoplens.serving.prediction import Prediction
from shoplens.serving.redis.messages import Reply, decode_reply, encode_reply
from shoplens.storage import Store, open_store

Columns = dict[str, NDArray[Any]]
Value = TypeVar("Value")

_READ_AHEAD: Final = 8


class StoreAway(Exception):
    """This node cannot reach the store, or sees another one than the driver: nothing that a photo could help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A photo that is ready for the model."""

    tensor: Tensor
    facts: ImageFacts
    pixels_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One photo on its way: with facts until it is classified, then with the frame of its reply."""

    id: str
    facts: ImageFacts | None = None
    pixels_s: float = 0.0
    reply: bytes = b""
    salvaged: bytes | None = None
    away: bool = False

    def settled(self, outcome: ClassifyResult | ShoplensError) -> Row:
        """With its reply."""
        return replace(self, facts=None, reply=encode_reply(Reply(job_id=self.id, outcome=outcome)))

    def answer(self, outcome: Prediction | ShoplensError, *, inference_s: float) -> ClassifyResult | ShoplensError:
        """What the model said of it, with what is known of its picture."""
        if isinstance(outcome, ShoplensError) or self.facts is None:
            return outcome if isinstance(outcome, ShoplensError) else fault_of(ValueError("a row without facts"))
        return ClassifyResult(
            prediction=outcome,
            image=self.facts,
            thumbnail=None,
            queue_s=0.0,
            pixels_s=self.pixels_s,
            inference_s=inference_s,
        )


def rows_of(column: NDArray[Any]) -> list[Row]:
    """The rows in a column that this module made; between nodes Ray itself packs everything in this way, too."""
    return [pickle.loads(each) for each in column]  # noqa: S301 - from our own tasks


def column_of(rows: Sequence[Row]) -> NDArray[Any]:
    """Rows as bytes of any length; numpy's own kind of bytes would cut zeros off their ends."""
    column = np.empty(len(rows), dtype=np.object_)
    column[:] = [pickle.dumps(row) for row in rows]
    return column


def outcome_of(row: Row) -> ClusterOutcome:
    """What the driver is told of a photo."""
    return ClusterOutcome(id=row.id, outcome=decode_reply(row.reply).outcome, salvaged=row.salvaged, away=row.away)


class NodeStore:
    """The store as this node sees it; it is looked at once before its word about a photo counts."""

    def __init__(self, shared: SharedStore) -> None:
        self._shared = shared
        self._store: Store | None = None

    def get(self, key: str | None) -> bytes:
        """The photo. Raises ImageGone, StorageUnavailable for this one alone, StoreAway where nothing can be read."""
        try:
            return self._opened().get(key or "returns/nowhere")
        except BlobNotFound as error:
            self.look()
            raise ImageGone("The photo is no longer where it was put. Bring it in again.") from error
        except StoreAway:
            raise
        except StorageUnavailable:
            self.look()
        return self._opened().get(key or "returns/nowhere")

    def look(self) -> None:
        """Raises StoreAway unless this node sees what the driver has put there."""
        try:
            self._store = self._store or open_store(self._shared.url)
            seen = self._store.get(self._shared.marker_key)
        except BlobNotFound:
            seen = b""
        except ShoplensError as error:
            self._store = None
            raise StoreAway(str(error)) from error
        if seen != self._shared.marker:
            raise StoreAway(
                f"{self._shared.url} is another place there than here. A folder must be mounted on every node at the "
                "same path."
            )

    def _opened(self) -> Store:
        if self._store is None:
            self.look()
        assert self._store is not None
        return self._store


class PixelStage:
    """Reads, decodes and encodes the photos of a block, one after the other, while the next are being read."""

    def __init__(self, plan: Plan, *, store: NodeStore | None = None) -> None:
        if plan.version != own_version():
            raise Misconfigured(f"A node has Shoplens {own_version()}, the night has {plan.version}.")
        self._plan = plan
        self._store = store or NodeStore(plan.store)
        self._sandbox = SandboxedDecoder(
            memory_bytes=plan.sandbox.memory_bytes,
            cpu_s=plan.sandbox.cpu_s,
            wall_s=plan.sandbox.wall_s,
        )
        self._nothing = np.zeros_like(preprocess(_grey(plan.spec.resize), plan.spec))
        self._readers = ThreadPoolExecutor(_READ_AHEAD, thread_name_prefix="read")
        self._pixels = ThreadPoolExecutor(1, thread_name_prefix="pixels")

    def __call__(self, photos: Block) -> Columns:
        """One row per photo: its tensor with what is known of it, or its failure."""
        rows = [self._row(photo, data) for photo, data in zip(photos, self._read(photos), strict=True)]
        tensors = [self._nothing if tensor is None else tensor for _, tensor in rows]
        return {
            "tensor": np.stack(tensors) if tensors else np.zeros((0, *self._nothing.shape), self._nothing.dtype),
            "row": column_of([row for row, _ in rows]),
        }

    def _read(self, photos: Block) -> Iterator[Future[bytes]]:
        waiting = iter(photos)
        running = deque(self._readers.submit(self._store.get, each.key) for each in islice(waiting, _READ_AHEAD))
        while running:
            yield running.popleft()
            running.extend(self._readers.submit(self._store.get, each.key) for each in islice(waiting, 1))

    def _row(self, photo: ClusterPhoto, reading: Future[bytes]) -> tuple[Row, Tensor | None]:
        data: bytes | None = None
        try:
            data = self._within(reading)
            encoded = self._within(self._pixels.submit(self._encoded, photo, data))
        except DeadlineExceeded as error:
            self._pixels.shutdown(wait=False)  # its thread may never come back
            self._pixels = ThreadPoolExecutor(1, thread_name_prefix="pixels")
            return Row(id=photo.id).settled(error), None
        except StoreAway as error:
            reason = StorageUnavailable(f"The node {socket.gethostname()} cannot read photos: {error}")
            return Row(id=photo.id, away=True).settled(reason), None
        except ShoplensError as error:
            return Row(id=photo.id, salvaged=self._salvaged(data)).settled(error), None
        except Exception as error:  # noqa: BLE001 - whatever one photo does, the others are worked on
            return Row(id=photo.id, salvaged=self._salvaged(data)).settled(fault_of(error)), None
        return Row(id=photo.id, facts=encoded.facts, pixels_s=encoded.pixels_s), encoded.tensor

    def _within(self, work: Future[Value]) -> Value:
        try:
            return work.result(self._plan.timeout_s)
        except TimeoutError as error:
            if work.done():
                raise
            raise DeadlineExceeded(f"There was no answer within {self._plan.timeout_s:g} s.") from error

    def _encoded(self, photo: ClusterPhoto, data: bytes) -> Encoded:
        started = time.perf_counter()
        spec = self._plan.spec
        picture = decode(data, limits=self._plan.limits, short_side=spec.resize, sandbox=self._sandbox)
        facts = facts_of(data, picture, sha256=photo.sha256)
        tensor = preprocess(picture, spec)
        return Encoded(tensor=tensor, facts=facts, pixels_s=time.perf_counter() - started)

    def _salvaged(self, data: bytes | None) -> bytes | None:
        try:
            return None if data is None else salvage(data, limits=self._plan.limits)
        except (ShoplensError, MemoryError):
            return None


class ModelStage:
    """Holds the model, unpacked and verified here, and turns rows with tensors into rows with replies."""

    def __init__(self, plan: Plan, packed: bytes) -> None:
        self._plan = plan
        with tempfile.TemporaryDirectory(prefix="shoplens-bundle-") as folder:
            file = Path(folder) / "bundle"
            file.write_bytes(packed)
            bundle = unpack_bundle(file, Path(folder) / "unpacked")
            if bundle.digest != plan.digest:
                raise BundleTampered(f"The bundle {bundle.ref} came to this node as another one than was sent.")
            self._classifier = Classifier(bundle, provider=plan.provider)
            self._classifier.warm()

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> Columns:
        """The same rows, each with its reply."""
        rows, tensors = rows_of(batch["row"]), batch["tensor"]
        ready = [number for number, row in enumerate(rows) if not row.reply]
        for number, (outcome, seconds) in zip(ready, self._classified([tensors[n] for n in ready]), strict=True):
            rows[number] = rows[number].settled(rows[number].answer(outcome, inference_s=seconds))
        return {"row": column_of(rows)}

    def _classified(self, tensors: Sequence[Tensor]) -> list[tuple[Prediction | ShoplensError, float]]:
        """On a CPU by single calls, as in one process, so that the answers are the same to the last bit."""
        if self._plan.provider == "cpu":
            return [(outcome[0], seconds) for outcome, seconds in (_timed(self._outcomes, [each]) for each in tensors)]
        if not tensors:
            return []
        outcomes, seconds = _timed(self._outcomes, tensors)
        return [(outcome, seconds / len(tensors)) for outcome in outcomes]

    def _outcomes(self, tensors: Sequence[Tensor]) -> Sequence[Prediction | ShoplensError]:
        try:
            return self._classifier.classify(tensors, top_k=self._plan.top_k)
        except Exception as error:  # noqa: BLE001 - a batch with a bad one is tried one by one
            if len(tensors) == 1:
                return [fault_of(error)]
        return [self._outcomes([each])[0] for each in tensors]


def _timed(act: Callable[[Sequence[Tensor]], Value], tensors: Sequence[Tensor]) -> tuple[Value, float]:
    started = time.perf_counter()
    return act(tensors), time.perf_counter() - started


def _grey(side: int) -> Picture:
    return Picture(pixels=np.full((side, side, 3), 127, np.uint8), format="png", width=side, height=side)
