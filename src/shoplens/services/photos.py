"""Keep photos and show them again: the original or a thumbnail, content-addressed, thumbnails without metadata."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from shoplens.domain.record import ImageFacts, PredictionRecord
from shoplens.errors import BlobNotFound, ImageNotKept
from shoplens.imaging import IsolatedDecoder, Limits, decode, thumbnail
from shoplens.storage import Store, image_key

THUMBNAIL_SIDE = 256
VIEW_SIDE = 1280

_SUFFIXES = {"jpeg": "jpg"}
_MEDIA_TYPES = {"jpg": "image/jpeg"}


class Size(StrEnum):
    """How large a kept photo is wanted. `original` is as it was sent; the others are JPEG without metadata."""

    ORIGINAL = "original"
    VIEW = "view"
    THUMBNAIL = "thumbnail"


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoFile:
    """Bytes to send, with their media type."""

    data: bytes
    media_type: str


class PhotoShelf:
    """All methods block and may be called from many threads."""

    def __init__(self, store: Store, *, limits: Limits, isolation: IsolatedDecoder) -> None:
        self._store = store
        self._limits = limits
        self._isolation = isolation

    def keep(self, facts: ImageFacts, original: bytes | None, small: bytes | None) -> str | None:
        """Store what is given, the original first choice, and return its key. Raises StorageUnavailable."""
        if original is not None:
            key = image_key(facts.sha256, _SUFFIXES.get(facts.format, facts.format))
            self._store.put(key, original)
            return key
        if small is not None:
            key = _thumbnail_key(facts.sha256)
            self._store.put(key, small)
            return key
        return None

    def fetch(self, record: PredictionRecord, size: Size) -> PhotoFile:
        """The kept photo. Raises ImageNotKept, also where only a thumbnail was kept and the original is wanted."""
        if record.image_key is None:
            raise ImageNotKept(f"The photo of prediction {record.id} was not kept (channel {record.channel}).")
        kept_small = record.image_key == _thumbnail_key(record.image.sha256)
        if kept_small and size is Size.ORIGINAL:
            raise ImageNotKept(f"Of the photo of prediction {record.id} only a thumbnail was kept.")
        if kept_small or size is Size.ORIGINAL:
            return PhotoFile(data=self._kept(record, record.image_key), media_type=_media_type(record.image_key))
        data = self._thumbnail(record, record.image_key) if size is Size.THUMBNAIL else self._view(record)
        return PhotoFile(data=data, media_type="image/jpeg")

    def check(self) -> None:
        """Raises StorageUnavailable when photos could not be kept now."""
        self._store.check()

    def _thumbnail(self, record: PredictionRecord, key: str) -> bytes:
        """Made once, when somebody first looks, and kept beside the original."""
        small_key = _thumbnail_key(record.image.sha256)
        try:
            return self._store.get(small_key)
        except BlobNotFound:
            small = self._reduced(self._kept(record, key), THUMBNAIL_SIDE)
            self._store.put(small_key, small)
            return small

    def _view(self, record: PredictionRecord) -> bytes:
        return self._reduced(self._kept(record, record.image_key or ""), VIEW_SIDE)

    def _reduced(self, original: bytes, side: int) -> bytes:
        picture = decode(original, limits=self._limits, short_side=side, isolation=self._isolation)
        return thumbnail(picture, side)

    def _kept(self, record: PredictionRecord, key: str) -> bytes:
        try:
            return self._store.get(key)
        except BlobNotFound as error:
            raise ImageNotKept(f"The photo of prediction {record.id} is no longer in the store.") from error


def _thumbnail_key(sha256: str) -> str:
    return image_key(sha256, "thumbnail.jpg")


def _media_type(key: str) -> str:
    suffix = key.rsplit(".", 1)[-1]
    return _MEDIA_TYPES.get(suffix, f"image/{suffix}")
