"""Take in shoppers' photos: assess each, store the files, and commit rows, decisions and events together.

The files come first and are durable; the rows come in one transaction after them. So a process that dies leaves no
photo without a decision, and nothing half: at worst files that no row names, which nobody can reach.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

from sqlalchemy import Connection

from shoplens.accounts.entities import SYSTEM
from shoplens.db import Database, GroupWriter
from shoplens.db.tables import new_id
from shoplens.errors import QueueFull, RecordRefused, RequestInvalid, SampleError, StorageUnavailable
from shoplens.moderation.channel import ModerationChannel
from shoplens.moderation.decisions import add_decided
from shoplens.moderation.entities import (
    POLICY,
    Intake,
    ModerationPhoto,
    PhotoState,
    QueueReason,
    References,
    UnusablePhoto,
)
from shoplens.moderation.errors import IdempotencyKeyReused
from shoplens.moderation.files import PhotoFiles, folder_of
from shoplens.moderation.intake.assessment import Assessment, NewPhoto, PhotoAssessor
from shoplens.moderation.queue.service import queue_rank
from shoplens.moderation.repository import IntakeRepository, PhotoRepository
from shoplens.registry.shadow import AnsweredSample, Offer, offer_nothing
from shoplens.serving.engine import ClassifyRequest
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import Metrics
from shoplens.telemetry.threads import run_in

T = TypeVar("T")

MOST_PHOTOS: Final = 10
MAX_KEY: Final = 255
MAX_REFERENCE: Final = 200
_THREADS: Final = 8
_OUTCOMES: Final = {PhotoState.PUBLISHED: "accept", PhotoState.HELD: "review", PhotoState.REFUSED: "reject"}
"""States as the outcomes of other channels, for the metrics."""
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeRequest:
    """What a shop sends. `caller` is the id of the principal, within which an idempotency key is unique."""

    photos: tuple[bytes, ...]
    ref: References
    caller: str
    idempotency_key: str | None = None

    def __post_init__(self) -> None:
        """Raises RequestInvalid."""
        if not 1 <= len(self.photos) <= MOST_PHOTOS:
            raise RequestInvalid(f"Send 1 to {MOST_PHOTOS} photos in one request; these are {len(self.photos)}.")
        key = self.idempotency_key
        if key is not None and not (0 < len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
            raise RequestInvalid(f"The Idempotency-Key must have 1 to {MAX_KEY} printable ASCII characters.")
        for name in ("customer", "product", "order", "review"):
            value = getattr(self.ref, name)
            if value is not None and not (0 < len(value) <= MAX_REFERENCE and value.isprintable()):
                raise RequestInvalid(f"The field {name!r} must have 1 to {MAX_REFERENCE} printable characters.")

    def digest(self, channel: str) -> str:
        """The SHA-256 of everything that is sent, to tell a repeated request from another one with the same key."""
        ref = self.ref
        parts = [channel, ref.customer, ref.product, ref.order, ref.review]
        total = hashlib.sha256(repr(parts).encode())
        for photo in self.photos:
            total.update(hashlib.sha256(photo).digest())
        return total.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeAnswer:
    """What became of each photo, in their order. `replayed`: the request had been answered before."""

    intake: Intake
    photos: tuple[ModerationPhoto | UnusablePhoto, ...]
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _NewIntake:
    intake: Intake
    photos: tuple[ModerationPhoto, ...]
    audit_share: float


def _add_intakes(tx: Connection, intakes: Sequence[_NewIntake]) -> None:
    for each in intakes:
        IntakeRepository(tx).add(each.intake)
        add_decided(tx, each.photos, by=SYSTEM, audit_share=each.audit_share)


class PhotoIntake:
    """Photos from the shop, decided and committed. Close it at the end.

    `writing` is a database with a connection of its own for the writer. `answered` is called with each photo that the
    channel's model answered, after it was committed.
    """

    def __init__(
        self,
        *,
        assessor: PhotoAssessor,
        database: Database,
        writing: Database,
        files: PhotoFiles,
        clock: Callable[[], datetime],
        metrics: Metrics,
        queue_limit: int,
        answered: Offer = offer_nothing,
    ) -> None:
        self._answered = answered
        self._assessor = assessor
        self._database = database
        self._files = files
        self._clock = clock
        self._metrics = metrics
        self._writer = GroupWriter(writing, _add_intakes, table="moderation_photos", queue_limit=queue_limit)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="intake")
        self._running: dict[tuple[str, str], asyncio.Event] = {}
        self._in_progress = 0

    async def take(self, request: IntakeRequest, *, channel: ModerationChannel) -> IntakeAnswer:
        """Assess and store the photos; all of it is committed when this returns.

        A request whose idempotency key was used before gets the same photos again. Raises IdempotencyKeyReused where
        that request was another one, and what the assessor, the store and the database raise; then nothing is stored.
        """
        digest = await self._in_thread(partial(request.digest, channel.name))
        key = request.idempotency_key
        if key is None:
            return await self._take(request, channel, digest)
        mine = request.caller, key
        while (running := self._running.get(mine)) is not None:
            await running.wait()
        self._running[mine] = ended = asyncio.Event()
        try:
            return await self._in_thread(partial(self._replay, request, digest)) or await self._take(
                request, channel, digest
            )
        finally:
            del self._running[mine]
            ended.set()

    def close(self) -> None:
        """Commit what was accepted and release the threads. Blocks."""
        self._writer.close()
        self._threads.shutdown()
        self._assessor.close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await run_in(self._threads, work)

    async def _take(self, request: IntakeRequest, channel: ModerationChannel, digest: str) -> IntakeAnswer:
        started = time.perf_counter()
        with self._counted(channel):
            assessed = await self._assess_all(request, channel)
            new = self._decided(request, channel, digest, assessed)
            try:
                await self._store(request, new)
                about = {"shoplens.intake": new.intake.id, "shoplens.channel": channel.name}
                await self._writer.store(new, others=self._in_progress - 1, about=about)
            # After DatabaseUnavailable the files stay: the commit may have happened, and then they belong to rows.
            except (StorageUnavailable, QueueFull):
                await self._in_thread(partial(self._remove_files, new))
                raise
            except RecordRefused:
                await self._in_thread(partial(self._remove_files, new))
                # Another process may have committed a request with this key meanwhile.
                answer = None
                if request.idempotency_key is not None:
                    answer = await self._in_thread(partial(self._replay, request, digest))
                if answer is None:
                    raise
                return answer
        for photo in new.photos:
            self._metrics.channel_predictions.labels(
                channel=channel.name, model=channel.model.partition("@")[0], outcome=_OUTCOMES[photo.state]
            ).inc()
            self._metrics.moderation_photos.labels(channel=channel.name, state=photo.state.value).inc()
            self._offer(channel, photo, request.photos[photo.position], assessed[photo.position][1])
        self._metrics.moderation_seconds.observe(time.perf_counter() - started)
        return IntakeAnswer(intake=new.intake, photos=_in_order(new.intake, new.photos))

    @contextmanager
    def _counted(self, channel: ModerationChannel) -> Iterator[None]:
        """Count the request that the block answers, and know meanwhile that it is in progress."""
        self._in_progress += 1
        try:
            with self._metrics.request_of(channel.name, channel.model.partition("@")[0]):
                yield
        finally:
            self._in_progress -= 1

    def _offer(
        self, channel: ModerationChannel, photo: ModerationPhoto, data: bytes, outcome: Assessment | SampleError
    ) -> None:
        if isinstance(outcome, Assessment) and outcome.prediction is not None:
            asked = ClassifyRequest(
                model=channel.model, images=(data,), top_k=1, timeout_s=1.0, sha256=photo.image.sha256
            )
            self._answered(
                AnsweredSample(request=asked, channel=channel.name, prediction=outcome.prediction, photo_id=photo.id)
            )

    async def _assess_all(
        self, request: IntakeRequest, channel: ModerationChannel
    ) -> list[tuple[str, Assessment | SampleError]]:
        """Each photo with the id that it gets, or why it cannot be used."""

        async def assess(photo: bytes) -> Assessment | SampleError:
            client = f"{request.caller} {request.ref.customer or ''}"
            new = NewPhoto(data=photo, customer=request.ref.customer, client=client)
            try:
                return await self._assessor.assess(new, channel=channel)
            except SampleError as error:
                return error

        outcomes = await asyncio.gather(*(assess(photo) for photo in request.photos))
        now = self._clock()
        return [(new_id(now), outcome) for outcome in outcomes]

    def _decided(
        self,
        request: IntakeRequest,
        channel: ModerationChannel,
        digest: str,
        assessed: Sequence[tuple[str, Assessment | SampleError]],
    ) -> _NewIntake:
        now = self._clock()
        unusable = tuple(
            UnusablePhoto(position=position, code=outcome.code, detail=outcome.public)
            for position, (_, outcome) in enumerate(assessed)
            if isinstance(outcome, SampleError)
        )
        intake = Intake(
            id=new_id(now),
            created_at=now,
            channel=channel.name,
            caller=request.caller,
            idempotency_key=request.idempotency_key,
            body_digest=digest,
            unusable=unusable,
        )
        photos = tuple(
            decided_photo(
                photo_id, outcome, intake=intake, position=position, ref=request.ref, channel=channel, now=now
            )
            for position, (photo_id, outcome) in enumerate(assessed)
            if isinstance(outcome, Assessment)
        )
        return _NewIntake(intake=intake, photos=photos, audit_share=channel.audit_share)

    async def _store(self, request: IntakeRequest, new: _NewIntake) -> None:
        """All files, durable. Raises StorageUnavailable."""
        await asyncio.gather(
            *(
                self._in_thread(partial(self._files.save, photo.id, photo.image.format, request.photos[photo.position]))
                for photo in new.photos
            )
        )

    def _remove_files(self, new: _NewIntake) -> None:
        """Those of photos that were not committed, as far as the store answers."""
        try:
            for photo in new.photos:
                if photo.image_key is not None:
                    self._files.delete(photo.image_key)
        except StorageUnavailable as error:
            _log.warning("intake.files_left", intake=new.intake.id, reason=str(error))

    def _replay(self, request: IntakeRequest, digest: str) -> IntakeAnswer | None:
        """The answer to the request that used the key before; None where there was none."""
        with self._database.reading() as tx:
            intake = IntakeRepository(tx).by_key(request.caller, request.idempotency_key or "")
            if intake is None:
                return None
            if intake.body_digest != digest:
                raise IdempotencyKeyReused(
                    f"Another request was sent with this Idempotency-Key at {intake.created_at:%Y-%m-%d %H:%M:%S} UTC. "
                    "Use a new key for every new request."
                )
            photos = PhotoRepository(tx).by_intake(intake.id)
        return IntakeAnswer(intake=intake, photos=_in_order(intake, photos), replayed=True)


def decided_photo(
    photo_id: str,
    assessed: Assessment,
    *,
    intake: Intake,
    position: int,
    ref: References,
    channel: ModerationChannel,
    now: datetime,
) -> ModerationPhoto:
    """The row of an assessed photo whose files are in the folder of its id."""
    state = assessed.decision.state
    queue = QueueReason.HELD if state is PhotoState.HELD else _drawn(channel.audit_share)
    reason = next((each.code for each in channel.reasons if each.label == assessed.decision.signal), None)
    return ModerationPhoto(
        id=photo_id,
        created_at=intake.created_at,
        channel=channel.name,
        intake_id=intake.id,
        position=position,
        ref=ref,
        state=state,
        image=assessed.image,
        image_key=folder_of(photo_id),
        fingerprint=assessed.fingerprint,
        signals=assessed.signals,
        policy_version=assessed.policy_version,
        decided_by=POLICY,
        decided_at=now,
        rule=assessed.decision.rule,
        reason=reason if state is PhotoState.REFUSED and assessed.decision.signal is not None else None,
        queue=queue,
        queue_rank=0 if queue is None else queue_rank(queue),
    )


def _drawn(audit_share: float) -> QueueReason | None:
    """Whether chance sends an automatic decision to a person. Meanwhile it stands: nothing is shown later for it."""
    return QueueReason.CHECK if random.random() < audit_share else None  # noqa: S311  no secret


def _in_order(intake: Intake, photos: Sequence[ModerationPhoto]) -> tuple[ModerationPhoto | UnusablePhoto, ...]:
    every: list[ModerationPhoto | UnusablePhoto] = [*photos, *intake.unusable]
    return tuple(sorted(every, key=lambda each: each.position))
