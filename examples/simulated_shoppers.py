"""Shoppers' photos in the simulated quarter: taken in, decided by the policy and by people, reported, appealed.

The signals are drawn by chance; the policy of the channel, the queue of moderators, second opinions, undo and appeals
are those of the product. Of photos that were decided more than three days ago retention has deleted the files.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Final

from examples.simulated_agenda import Agenda, Pictures, people
from shoplens.accounts.entities import SYSTEM
from shoplens.db import Database
from shoplens.db.tables import new_id
from shoplens.images.picture import ImageFacts, Measurements
from shoplens.moderation.channel import ModerationChannel
from shoplens.moderation.consequences.appeals import AppealService
from shoplens.moderation.consequences.retention import Retention, RetentionService
from shoplens.moderation.decisions import add_decided
from shoplens.moderation.entities import Intake, ModerationPhoto, PhotoState, QueueReason, References, Signal
from shoplens.moderation.errors import AnotherPersonDecides
from shoplens.moderation.files import PhotoFiles
from shoplens.moderation.intake.assessment import Assessment
from shoplens.moderation.intake.service import decided_photo
from shoplens.moderation.intake.signals import quality_signals, strike_signal
from shoplens.moderation.policy.entities import DEFAULT_REVIEW, Band, ModerationPolicy, evaluate, usual_bands
from shoplens.moderation.queue.review import Choice, PhotoReview
from shoplens.moderation.queue.service import PhotoQueue, QueueRules
from shoplens.moderation.reasons import DEFAULT_REASONS
from shoplens.moderation.repository import IntakeRepository, PhotoRepository
from shoplens.storage import Store

CHECKED: Final = 0.02
"""The share of what the policy decides that a person checks."""
_SECOND_OPINIONS: Final = 0.1
_FILES_KEPT: Final = Retention(refused_days=3, published_days=3)
_MOST_FILES: Final = 1_000
_MODERATORS: Final = people("Anna", "Ben", "Chloé", "Dilan", "Eva")
_REPORTS: Final = ("It shows another product.", "There is a person on it.", "Advertising")
_APPEALS: Final = (
    "This is my own photo of the dress that I bought from you. Please look again.",
    "Das ist mein eigenes Foto, bitte noch einmal ansehen.",
    "Why was it refused? It only shows the shoes.",
    "Ce n'est pas de la publicité, c'est l'étiquette du produit.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """What is true of a photo that was sent: the number of its file, and the reason against it, if there is one."""

    file: int
    reason: str | None


class Shoppers:
    """The photos of one channel. `photos` counts those that were taken in, `decisions` what people decided on them."""

    def __init__(
        self, database: Database, store: Store, *, channel: str, nsfw: Band, agenda: Agenda, pictures: Pictures
    ) -> None:
        self._database = database
        self._agenda = agenda
        self._random = agenda.random
        self._pictures = pictures
        self._files = PhotoFiles(store)
        signals = ("nsfw", *DEFAULT_REVIEW)
        self._channel = ModerationChannel(
            name=channel,
            title=channel,
            model="opennsfw",
            general_model="efficientnet-lite0-int8",
            groups={},
            signals=signals,
            reasons=DEFAULT_REASONS,
            default_policy=ModerationPolicy(bands=usual_bands([nsfw], signals)),
            audit_share=CHECKED,
        )
        rules = {channel: QueueRules(second_opinion_share=_SECOND_OPINIONS)}
        self._review = PhotoReview(database, rules=rules, clock=agenda.clock)
        self._queue = PhotoQueue(database, rules=rules, clock=agenda.clock)
        self._appeals = AppealService(
            database, reasons=lambda _: DEFAULT_REASONS, kept_days={channel: 30}, clock=agenda.clock
        )
        kept = {channel: _FILES_KEPT}
        self._retention = RetentionService(database, store, self._files, channels=kept, clock=agenda.clock)
        self._sent: dict[str, _Sent] = {}
        self._appealed: set[str] = set()
        self.decisions = 0

    @property
    def photos(self) -> int:
        """How many were taken in."""
        return len(self._sent)

    def send(self) -> None:
        """A shopper sends the photos of a review now; what follows from it is put on the agenda."""
        now, random = self._agenda.clock(), self._random
        number = int(900 * random.random() ** 1.5)
        customer = f"c-{1000 + number}"
        order = f"{random.randrange(200_000, 299_999)}"
        ref = References(customer=customer, product=f"P-{random.randrange(400):04}", order=order, review=f"r-{order}")
        intake = Intake(
            id=new_id(now),
            created_at=now,
            channel=self._channel.name,
            caller="simulation",
            idempotency_key=None,
            body_digest=hashlib.sha256(ref.order.encode() if ref.order else b"").hexdigest(),
        )
        with self._database.transaction() as tx:
            refused = PhotoRepository(tx).count_of_customer(
                customer, PhotoState.REFUSED, since=now - timedelta(days=self._channel.default_policy.strike_days)
            )
            # A few customers send most of what is refused.
            photos = [
                self._photo(intake, place, ref, refused, daring=number % 60 == 7)
                for place in range(random.choice((1, 1, 2)))
            ]
            IntakeRepository(tx).add(intake)
            add_decided(tx, photos, by=SYSTEM, audit_share=CHECKED)
        for photo in photos:
            self._follow(photo)

    def finish(self) -> None:
        """Delete the files that are no longer kept, and write those that are: of the last days, and of what waits."""
        self._retention.run()
        with self._database.reading() as tx:
            kept = PhotoRepository(tx).stored_images(_MOST_FILES)
        for each in kept:
            photo_id = each.folder.rpartition("/")[2]
            self._files.save(photo_id, each.format, self._pictures.file(self._sent[photo_id].file))

    def _photo(self, intake: Intake, position: int, ref: References, refused: int, *, daring: bool) -> ModerationPhoto:
        random, photo_id = self._random, new_id(intake.created_at)
        data = self._pictures.file(number := len(self._sent))
        sha256 = hashlib.sha256(data).hexdigest()
        image = ImageFacts(format="jpeg", width=480, height=480, byte_count=len(data), sha256=sha256, phash="")
        signals, reason = self._signals(image, daring=daring)
        signals = (*signals, strike_signal(refused, self._channel.default_policy.strike_days))
        self._sent[photo_id] = _Sent(file=number, reason=reason)
        assessed = Assessment(
            image=image,
            prediction=None,
            fingerprint=b"",
            signals=signals,
            decision=evaluate(signals, self._channel.default_policy),
            policy_version=self._channel.default_policy.version,
        )
        photo = decided_photo(
            photo_id,
            assessed,
            intake=intake,
            position=position,
            ref=ref,
            channel=self._channel,
            now=intake.created_at + timedelta(milliseconds=random.randint(40, 90)),
        )
        # Without a fingerprint nothing is remembered as like it: many of the files have the same pixels.
        return replace(photo, fingerprint=None)

    def _signals(self, image: ImageFacts, *, daring: bool) -> tuple[tuple[Signal, ...], str | None]:
        """What the models and measurements say of a photo, and the reason that really speaks against it."""
        random = self._random
        fault = random.choices(
            (None, "nudity", "unusable", "not_the_product", "personal_data"), (0.3 if daring else 0.93, 0.5 * daring +
            0.012, 0.03, 0.015, 0.01)
        )[0]  # fmt: skip
        doubtful = random.random() < 0.03
        nsfw = random.betavariate(6, 2) if fault == "nudity" else random.betavariate(3, 5) if doubtful else (
            random.betavariate(1, 30)
        )  # fmt: skip
        unusable = fault == "unusable"
        measured = Measurements(
            sharpness=random.uniform(2, 5) if unusable and random.random() < 0.6 else random.lognormvariate(5, 0.6),
            brightness=random.uniform(5, 16) if unusable else random.uniform(80, 170),
            contrast=50.0,
            dark_share=0.0,
            bright_share=random.betavariate(1, 30),
            text_share=random.uniform(0.15, 0.3) if fault == "personal_data" else random.uniform(0, 0.03),
            border_share=random.betavariate(1, 20),
            fingerprint=b"",
        )
        screenshot = random.betavariate(5, 3) if fault == "not_the_product" else random.betavariate(1, 25)
        document = random.betavariate(5, 3) if fault == "personal_data" else random.betavariate(1, 25)
        models = {
            "nsfw": (nsfw, "opennsfw@1.0.1", None),
            "screenshot": (screenshot, "efficientnet-lite0-int8@1.0.1", "mostly website"),
            "document": (document, "efficientnet-lite0-int8@1.0.1", "mostly menu"),
            "weapon": (random.betavariate(1, 60), "efficientnet-lite0-int8@1.0.1", "mostly holster"),
            "person": (random.betavariate(1, 12), "efficientnet-lite0-int8@1.0.1", "mostly bridegroom"),
        }
        found = [
            Signal(name=name, score=round(score, 4), version=version, detail=detail)
            for name, (score, version, detail) in models.items()
        ]
        return (*found, *quality_signals(image, measured)), fault

    def _follow(self, photo: ModerationPhoto) -> None:
        """What becomes of a photo that was taken in, or decided."""
        random, later = self._random, self._agenda.clock().timestamp()
        if photo.queue is not None:
            minutes = random.uniform(3, 90) if random.random() < 0.7 else random.uniform(300, 3000)
            self._agenda.at_work(minutes, partial(self._decide, photo.id))
        elif photo.state is PhotoState.PUBLISHED and random.random() < 0.008:
            for _ in range(random.choice((1, 1, 3))):
                self._agenda.at(later + random.uniform(1, 60) * 3600, partial(self._report, photo.id))
        elif photo.state is PhotoState.REFUSED and random.random() < 0.3:
            self._agenda.at(later + random.uniform(1, 50) * 3600, partial(self._appeal, photo.id))

    def _decide(self, photo_id: str) -> None:
        with self._database.reading() as tx:
            photo = PhotoRepository(tx).get(photo_id)
        if photo.queue is None:
            return
        random, reason = self._random, self._sent[photo_id].reason
        if random.random() < 0.08:  # people are wrong, too
            reason = None if reason else "not_the_product"
        choice = Choice(
            state=PhotoState.REFUSED if reason else PhotoState.PUBLISHED,
            reason=reason,
            answer=None if photo.queue is not QueueReason.APPEAL else "We looked at your photo again.",
        )
        for person in random.sample(_MODERATORS, len(_MODERATORS)):
            with suppress(AnotherPersonDecides):
                if photo.queue is QueueReason.HELD and random.random() < 0.04:
                    photo = self._review.escalate(photo_id, by=person, comment="I am not sure.", seen=photo.revision)
                    break
                photo = self._review.decide(photo_id, choice, by=person, seen=photo.revision)
                self.decisions += 1
                if random.random() < 0.02:
                    photo = self._review.undo(photo_id, by=person)
                    photo = self._review.decide(photo_id, choice, by=person, seen=photo.revision)
                break
        self._follow(photo)

    def _report(self, photo_id: str) -> None:
        with self._database.reading() as tx:
            waited = (photo := PhotoRepository(tx).get(photo_id)).queue is not None
        if photo.state is PhotoState.PUBLISHED:
            self._queue.report(photo_id, reason=self._random.choice(_REPORTS))
            if not waited:
                self._agenda.at_work(self._random.uniform(5, 120), partial(self._decide, photo_id))

    def _appeal(self, photo_id: str) -> None:
        with self._database.reading() as tx:
            photo = PhotoRepository(tx).get(photo_id)
        if photo.state is PhotoState.REFUSED and photo.queue is None and photo_id not in self._appealed:
            self._appealed.add(photo_id)
            self._appeals.appeal(photo_id, self._random.choice(_APPEALS))
            self._agenda.at_work(self._random.uniform(60, 1500), partial(self._decide, photo_id))
