"""The photos of products in the store: a folder for each product, so that deleting one is exact.

The folder follows from channel and reference, so an import that is repeated after a crash writes the same files again.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Final

from shoplens.catalogue.entities import ProductPhoto
from shoplens.errors import BlobNotFound, ImageNotKept, ImageTooLarge
from shoplens.images import headers
from shoplens.images.copies import CopyQueue
from shoplens.images.decoder import decode
from shoplens.images.picture import MEGABYTE, ImageFacts, Limits
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.images.thumbnails import thumbnail
from shoplens.predictions.image_store import THUMBNAIL_SIDE, VIEW_SIDE, ImageFile, ImageSize
from shoplens.storage import Store, require_unchanged

_FOLDER: Final = "catalogue/products"
_SUFFIXES: Final = {"jpeg": "jpg"}
_SIDES: Final = {ImageSize.THUMBNAIL: THUMBNAIL_SIDE, ImageSize.VIEW: VIEW_SIDE}


def facts_of(data: bytes, limits: Limits) -> ImageFacts:
    """What the header of a photo says, without decoding it; the perceptual hash is left empty.

    Raises ImageMissing, ImageTooLarge, ImageUnsupported, ImageCorrupt, ImageTooSmall and ImageTooManyPixels.
    """
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(
            f"This photo is {len(data) / MEGABYTE:.1f} MB. The limit is {limits.max_bytes / MEGABYTE:g} MB."
        )
    kind = headers.sniff(data)
    if kind == "jpeg":
        header = headers.read_jpeg(data)
        size, whole = (header.width, header.height), header.scans > 1
    else:
        size, whole = headers.read_size(kind, data), True
    headers.check_size(size, limits, whole=whole)
    return ImageFacts(
        format=kind,
        width=size[0],
        height=size[1],
        byte_count=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        phash="",
    )


def photo_key(channel: str, reference: str, facts: ImageFacts) -> str:
    """The key of a photo of a product."""
    return f"{_folder(channel, reference)}/{facts.sha256[:32]}.{_SUFFIXES.get(facts.format, facts.format)}"


class ProductPhotos:
    """The files. All methods block, may be called from many threads, and raise StorageUnavailable."""

    def __init__(self, store: Store, *, limits: Limits, sandbox: SandboxedDecoder) -> None:
        self._store = store
        self._sandbox = sandbox
        self._copies = CopyQueue()
        self.limits: Final = limits

    def save(self, key: str, data: bytes) -> None:
        """Store a photo under the key that `photo_key` gave."""
        self._store.put(key, data)

    def read(self, photo: ProductPhoto) -> bytes:
        """The photo as it was sent. Raises ImageNotKept where it is gone, and ImageChanged."""
        try:
            return require_unchanged(self._store.get(photo.image_key), photo.image.sha256)
        except BlobNotFound as error:
            raise ImageNotKept(f"The photo {photo.name[:80]!r} of the product is no longer in the store.") from error

    def open(self, photo: ProductPhoto, size: ImageSize) -> ImageFile:
        """The photo, or a JPEG copy without metadata, which is made when it is first asked for.

        Raises ImageNotKept, ImageChanged, SampleError for data that is no photo, and QueueFull while too many other
        copies are being made.
        """
        if size is ImageSize.ORIGINAL:
            return ImageFile(data=self.read(photo), media_type=f"image/{photo.image.format}")
        copy_key = f"{photo.image_key.rsplit('.', 1)[0]}-{size.value}.jpg"
        try:
            return ImageFile(data=self._store.get(copy_key), media_type="image/jpeg")
        except BlobNotFound:
            copy = self._copies.run(partial(self._make_copy, photo, copy_key, _SIDES[size]))
            return ImageFile(data=copy, media_type="image/jpeg")

    def delete(self, channel: str, reference: str, *, keep: frozenset[str] = frozenset()) -> None:
        """Delete the files of a product, but for the photos with these keys and their copies."""
        stems = tuple(key.rsplit(".", 1)[0] for key in keep)
        for key in list(self._store.list(_folder(channel, reference))):
            if not (stems and key.startswith(stems)):
                self._store.delete(key)

    def _make_copy(self, photo: ProductPhoto, copy_key: str, side: int) -> bytes:
        picture = decode(self.read(photo), limits=self.limits, short_side=side, sandbox=self._sandbox)
        copy = thumbnail(picture, side)
        self._store.put(copy_key, copy)
        return copy


def _folder(channel: str, reference: str) -> str:
    name = hashlib.sha256(f"{channel}\0{reference}".encode()).hexdigest()[:32]
    return f"{_FOLDER}/{name[:2]}/{name}"
