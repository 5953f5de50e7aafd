"""Copies of shoppers' photos for pages: made again from the pixels, so without metadata, in a few widths.

The public gets those of published photos. The database is asked each time, so a refusal counts at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import partial
from typing import Final

import cv2
import numpy as np
import simplejpeg

from shoplens.db import Database
from shoplens.errors import BlobNotFound
from shoplens.images.copies import CopyQueue
from shoplens.images.decoder import decode
from shoplens.images.picture import Limits
from shoplens.images.pixels import Pixels
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.moderation.entities import PhotoState
from shoplens.moderation.errors import PhotoNotFound
from shoplens.moderation.files import copy_key, original_key
from shoplens.moderation.previews import PREVIEWED
from shoplens.moderation.repository import PhotoRepository, StoredImage
from shoplens.storage import Store, require_unchanged

_QUALITY: Final = 82
_MAX_ASPECT: Final = 4
"""A copy is at most so many times as high as its width says."""
_VERSION: Final = 1
"""Raise it when copies are made in another way, so that browsers do not keep the old ones."""


class Width(IntEnum):
    """How wide a copy is, in pixels; a narrower photo keeps its width."""

    W160 = 160
    W320 = 320
    W640 = 640
    W1280 = 1280


class Format(StrEnum):
    """In which format a copy is sent."""

    JPEG = "jpeg"
    WEBP = "webp"

    @property
    def media_type(self) -> str:
        """As in HTTP headers."""
        return f"image/{self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """A copy to send. `etag` names its content without quotes; `load` reads or makes it, and may block."""

    etag: str
    format: Format
    load: Callable[[], bytes]


class MediaService:
    """Copies of photos, made when they are first asked for and then stored. All methods block."""

    def __init__(
        self, database: Database, store: Store, *, limits: Limits, sandbox: SandboxedDecoder, copies: CopyQueue
    ) -> None:
        self._database = database
        self._store = store
        self._limits = limits
        self._sandbox = sandbox
        self._copies = copies

    def published(self, photo_id: str, *, width: Width, kind: Format) -> Media:
        """A copy of a photo that everybody may see. Raises PhotoNotFound for every other one, and for none at all."""
        return self._shown((PhotoState.PUBLISHED,), photo_id, width, kind)

    def previewed(self, photo_id: str, *, width: Width, kind: Format) -> Media:
        """A copy of a photo for who sent it: also while it is held, never once it is refused. Raises PhotoNotFound."""
        return self._shown(PREVIEWED, photo_id, width, kind)

    def copy(self, image: StoredImage, *, width: Width, kind: Format) -> bytes:
        """A copy of any photo: only for people who may see it.

        Raises BlobNotFound where its files are deleted, ImageChanged, SampleError for data that is no photo,
        StorageUnavailable, and QueueFull while too many other copies are being made.
        """
        key = copy_key(image.folder, width, kind)
        try:
            return self._store.get(key)
        except BlobNotFound:
            return self._copies.run(partial(self._make, image, key, width, kind))

    def _shown(self, states: Collection[PhotoState], photo_id: str, width: Width, kind: Format) -> Media:
        with self._database.reading() as tx:
            image = PhotoRepository(tx).image_in(states, photo_id)
        if image is None:
            raise PhotoNotFound("There is no published photo with this id.")
        etag = hashlib.blake2b(f"{photo_id} {width} {kind} {_VERSION}".encode(), digest_size=12).hexdigest()
        return Media(etag=etag, format=kind, load=partial(self._load, image, width, kind))

    def _load(self, image: StoredImage, width: Width, kind: Format) -> bytes:
        try:
            return self.copy(image, width=width, kind=kind)
        except BlobNotFound as error:
            raise PhotoNotFound("There is no published photo with this id.") from error

    def _make(self, image: StoredImage, key: str, width: Width, kind: Format) -> bytes:
        try:  # another request may have made it meanwhile
            return self._store.get(key)
        except BlobNotFound:
            original = original_key(image.folder, image.format)
            photo = require_unchanged(self._store.get(original), image.sha256)
            columns, rows = _fitted(image.width, image.height, width)
            picture = decode(photo, limits=self._limits, short_side=min(columns, rows), sandbox=self._sandbox)
            copy = _encoded(_resized(picture.pixels, columns, rows), kind)
            self._store.put(key, copy)
            if not self._store.exists(original):  # deleted meanwhile; see `PhotoFiles.delete`
                self._store.delete(key)
                raise BlobNotFound(key) from None
            return copy


def _fitted(width: int, height: int, wanted: int) -> tuple[int, int]:
    """The size of a copy: never larger than the photo, at most `wanted` wide, and of bounded height."""
    scale = min(1.0, wanted / width, _MAX_ASPECT * wanted / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _resized(pixels: Pixels, columns: int, rows: int) -> Pixels:
    if pixels.shape[:2] == (rows, columns):
        return pixels
    shrinks = columns <= pixels.shape[1] and rows <= pixels.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (columns, rows), interpolation=method), np.uint8)


def _encoded(pixels: Pixels, kind: Format) -> bytes:
    if kind is Format.JPEG:
        jpeg = simplejpeg.encode_jpeg(pixels, quality=_QUALITY, colorspace="RGB", colorsubsampling="420")
        return bytes(jpeg)
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
    return encoded.tobytes()
