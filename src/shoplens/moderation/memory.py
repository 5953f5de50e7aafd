"""What is remembered of decided photos: their perceptual hashes."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from shoplens.moderation.entities import HashVerdict, ModerationPhoto, PhotoState
from shoplens.moderation.repository import HashRepository


def remember(tx: Connection, photo: ModerationPhoto, to_state: PhotoState, *, by_person: bool, now: datetime) -> None:
    """Keep the hash of a photo that a person decided; forget it when the photo is held again."""
    if not by_person:
        return
    hashes = HashRepository(tx)
    hashes.forget(photo.id)
    if to_state is not PhotoState.HELD:
        verdict = HashVerdict.REFUSED if to_state is PhotoState.REFUSED else HashVerdict.ACCEPTED
        hashes.add(channel=photo.channel, phash=photo.image.phash, verdict=verdict, photo_id=photo.id, now=now)
