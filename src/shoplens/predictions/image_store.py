"""Stored photos: the original or a copy, under a key made of the photo's hash; copies carry no metadata.

Copies (thumbnails, and views for a page) are made when they are first asked for, a few at once, and then stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final

from shoplens.errors import BlobNotFound, ImageNotKept
from shoplens.images.copies import CopyLimits, CopyQueue
from shoplens.images.decoder import decode
from shoplens.images.picture import ImageFacts, Limits
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.images.thumbnails import thumbnail
from shoplens.predictions.entities import PredictionRecord
from shoplens.storage import Store, image_key, require_unchanged

THUMBNAIL_SIDE = 256
VIEW_SIDE = 1280

_SUFFIXES = {"jpeg": "jpg"}
_THUMBNAIL_SUFFIX = "thumbnail.jpg"
_VIEW_SUFFIX = "view.jpg"
_MEDIA_TYPES: Final = {"jpg": "image/jpeg", "tif": "image/tiff", "jpe": "image/jpeg"} | {
    suffix: f"image/{suffix}" for suffix in ("jpeg", "png", "gif", "webp", "bmp", "tiff", "heic", "heif", "avif")
}


class ImageSize(StrEnum):
    """The wanted size of a stored photo. `original` is the uploaded file; the others are JPEG without metadata."""

    ORIGINAL = "original"
    VIEW = "view"
    THUMBNAIL = "thumbnail"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """Bytes to send, with their media type."""

    data: bytes
    media_type: str


class ImageStore:
    """Photos in a store. All methods block and may be called from many threads.

    `moved_to` gives another key under which the photo of a record may lie while it is being moved, or None.
    """

    def __init__(
        self,
        store: Store,
        *,
        limits: Limits,
        sandbox: SandboxedDecoder,
        moved_to: Callable[[PredictionRecord], str | None] = lambda _: None,
        copies: CopyLimits | None = None,
    ) -> None:
        self._store = store
        self._limits = limits
        self._sandbox = sandbox
        self._moved_to = moved_to
        self._copies = CopyQueue(copies)

    def save(self, facts: ImageFacts, original: bytes | None, small: bytes | None) -> str | None:
        """Store the original, else the thumbnail `small`; the key, None without either. Raises StorageUnavailable."""
        if original is not None:
            key, data = image_key(facts.sha256, _SUFFIXES.get(facts.format, facts.format)), original
        elif small is not None:
            key, data = image_key(facts.sha256, _THUMBNAIL_SUFFIX), small
        else:
            return None
        self._store.put(key, data)
        return key

    def open_record(self, record: PredictionRecord, size: ImageSize) -> ImageFile:
        """The stored photo of a record. Raises ImageNotKept, also where only a thumbnail of it is."""
        key = record.image_key
        if record.photo_deleted_at is not None:
            raise ImageNotKept(
                f"The photo of prediction {record.id} was deleted by retention on {record.photo_deleted_at:%Y-%m-%d}."
            )
        if key is None:
            raise ImageNotKept(f"The photo of prediction {record.id} was not stored (channel {record.channel}).")
        only_copy = key == image_key(record.image.sha256, _THUMBNAIL_SUFFIX)
        if only_copy and size is ImageSize.ORIGINAL:
            raise ImageNotKept(f"Only a thumbnail of the photo of prediction {record.id} was stored.")
        try:
            if only_copy:
                return self.open_copy(key)
            try:
                return self.open(key, record.image.sha256, size)
            except BlobNotFound:
                moved = self._moved_to(record)
                if moved is None:
                    raise
            try:
                return self.open(moved, record.image.sha256, size)
            except BlobNotFound:  # the move ended between the two reads
                return self.open(key, record.image.sha256, size)
        except BlobNotFound as error:
            raise ImageNotKept(f"The photo of prediction {record.id} is no longer in the store.") from error

    def open(self, key: str, sha256: str, size: ImageSize) -> ImageFile:
        """The photo under `key`, whose content has this hash.

        Raises BlobNotFound, ImageChanged, SampleError for data that is no photo, StorageUnavailable, and QueueFull
        while too many other copies are being made.
        """
        if size is ImageSize.ORIGINAL:
            suffix = key.rsplit(".", 1)[-1].lower()
            media_type = _MEDIA_TYPES.get(suffix, "application/octet-stream")
            return ImageFile(data=require_unchanged(self._store.get(key), sha256), media_type=media_type)
        copy_key, side = (
            (view_key(sha256), VIEW_SIDE)
            if size is ImageSize.VIEW
            else (image_key(sha256, _THUMBNAIL_SUFFIX), THUMBNAIL_SIDE)
        )
        try:
            return ImageFile(data=self._store.get(copy_key), media_type="image/jpeg")
        except BlobNotFound:
            pass
        copy = self._copies.run(partial(self._make_copy, key, copy_key, side, sha256))
        return ImageFile(data=copy, media_type="image/jpeg")

    def open_copy(self, key: str) -> ImageFile:
        """A JPEG that was made of a photo, whose hash is that of the photo. Raises BlobNotFound, StorageUnavailable."""
        return ImageFile(data=self._store.get(key), media_type="image/jpeg")

    def _make_copy(self, key: str, copy_key: str, side: int, sha256: str) -> bytes:
        try:  # another request may have made it meanwhile
            return self._store.get(copy_key)
        except BlobNotFound:
            copy = self.thumbnail(require_unchanged(self._store.get(key), sha256), side)
            self._store.put(copy_key, copy)
            return copy

    def thumbnail(self, data: bytes, side: int) -> bytes:
        """A JPEG without metadata, its longer side at most `side` pixels. Raises SampleError for other data."""
        return thumbnail(decode(data, limits=self._limits, short_side=side, sandbox=self._sandbox), side)

    def check(self) -> None:
        """Raises StorageUnavailable when photos could not be stored now."""
        self._store.check()


def copy_keys(record: PredictionRecord) -> set[str]:
    """The keys of everything that is stored of a record's photo: as it was sent, and all that is made of it."""
    made = made_keys(record)
    return made if record.image_key is None else made | {record.image_key}


def made_keys(record: PredictionRecord) -> set[str]:
    """The keys of the copies that are made of a record's photo: those of all records of the same photo."""
    return {image_key(record.image.sha256, _THUMBNAIL_SUFFIX), view_key(record.image.sha256)}


def view_key(sha256: str) -> str:
    """The key of the stored view of a photo, which goes when the photo is deleted."""
    return image_key(sha256, _VIEW_SUFFIX)
