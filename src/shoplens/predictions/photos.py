"""Keep photos and show them again: the original or a thumbnail, content-addressed, thumbnails without metadata."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shoplens.errors import BlobNotFound, ImageNotKept
from shoplens.images.decoder import decode
from shoplens.images.picture import ImageFacts, Limits
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.images.thumbnails import thumbnail
from shoplens.predictions.entities import PredictionRecord
from shoplens.storage import Store, image_key

THUMBNAIL_SIDE = 256
VIEW_SIDE = 1280

_SUFFIXES = {"jpeg": "jpg"}
_MEDIA_TYPES: Final = {"jpg": "image/jpeg", "tif": "image/tiff", "jpe": "image/jpeg"} | {
    suffix: f"image/{suffix}" for suffix in ("jpeg", "png", "gif", "webp", "bmp", "tiff", "heic", "heif", "avif")
}
_UNKNOWN_MEDIA: Final = "application/octet-stream"


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


def _nowhere(_: PredictionRecord) -> str | None:
    """A photo that is not where its record says is gone."""
    return None


class PhotoShelf:
    """All methods block and may be called from many threads.

    `elsewhere` says under which other key a photo may lie while it is being moved.
    """

    def __init__(
        self,
        store: Store,
        *,
        limits: Limits,
        sandbox: SandboxedDecoder,
        elsewhere: Callable[[PredictionRecord], str | None] = _nowhere,
    ) -> None:
        self._store = store
        self._limits = limits
        self._sandbox = sandbox
        self._elsewhere = elsewhere

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
        try:
            return self._found(record, Size.ORIGINAL if kept_small else size)
        except BlobNotFound as error:
            raise ImageNotKept(f"The photo of prediction {record.id} is no longer in the store.") from error

    def show(self, key: str, sha256: str, size: Size) -> PhotoFile:
        """The photo under `key`, whose content has this hash, in a size.

        Raises BlobNotFound, SampleError for what is no photo, StorageUnavailable.
        """
        if size is Size.ORIGINAL:
            return PhotoFile(data=self._store.get(key), media_type=_media_type(key))
        data = self._thumbnail(key, sha256) if size is Size.THUMBNAIL else self.reduce(self._store.get(key), VIEW_SIDE)
        return PhotoFile(data=data, media_type="image/jpeg")

    def reduce(self, data: bytes, side: int) -> bytes:
        """A JPEG without metadata, its longer side at most `side` pixels. Raises SampleError for what is no photo."""
        return thumbnail(decode(data, limits=self._limits, short_side=side, sandbox=self._sandbox), side)

    def check(self) -> None:
        """Raises StorageUnavailable when photos could not be kept now."""
        self._store.check()

    def _found(self, record: PredictionRecord, size: Size) -> PhotoFile:
        try:
            return self.show(record.image_key or "", record.image.sha256, size)
        except BlobNotFound:
            key = self._elsewhere(record)
            if key is None:
                raise
        try:
            return self.show(key, record.image.sha256, size)
        except BlobNotFound:  # it has arrived just now
            return self.show(record.image_key or "", record.image.sha256, size)

    def _thumbnail(self, key: str, sha256: str) -> bytes:
        """Made once, when somebody first looks, and kept beside the originals."""
        small_key = _thumbnail_key(sha256)
        try:
            return self._store.get(small_key)
        except BlobNotFound:
            small = self.reduce(self._store.get(key), THUMBNAIL_SIDE)
            self._store.put(small_key, small)
            return small


def _thumbnail_key(sha256: str) -> str:
    return image_key(sha256, "thumbnail.jpg")


def _media_type(key: str) -> str:
    return _MEDIA_TYPES.get(key.rsplit(".", 1)[-1].lower(), _UNKNOWN_MEDIA)
