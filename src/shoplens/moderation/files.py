"""The files of a shopper's photo in the store: a folder by the photo's id, so that deleting it is exact.

The original is private. What the public sees are copies that are made of it (`media.py`), in the same folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from shoplens.moderation.entities import ModerationPhoto
from shoplens.storage import Store, require_unchanged

FOLDER: Final = "moderation"
_ORIGINAL: Final = "original"
_SUFFIXES: Final = {"jpeg": "jpg"}


def folder_of(photo_id: str) -> str:
    """The key of the folder of a photo's files. The end of an id is random, so the folders above fill evenly."""
    return f"{FOLDER}/{photo_id[-2:]}/{photo_id}"


def original_key(folder: str, image_format: str) -> str:
    """The key of the file that was sent."""
    return f"{folder}/{_ORIGINAL}.{_SUFFIXES.get(image_format, image_format)}"


def copy_key(folder: str, width: int, kind: str) -> str:
    """The key of a copy of this width; `kind` is its format."""
    return f"{folder}/w{width}.{_SUFFIXES.get(kind, kind)}"


class PhotoFiles:
    """The files of moderation in a store. All methods block; they raise StorageUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def save(self, photo_id: str, image_format: str, data: bytes) -> str:
        """Store the photo that was sent, so that it survives a loss of power; returns the key of its folder."""
        folder = folder_of(photo_id)
        self._store.put(original_key(folder, image_format), data, durable=True)
        return folder

    def original(self, photo: ModerationPhoto) -> bytes:
        """The photo as it was sent. Raises BlobNotFound where its files are deleted, and ImageChanged."""
        folder = photo.image_key or folder_of(photo.id)
        return require_unchanged(self._store.get(original_key(folder, photo.image.format)), photo.image.sha256)

    def delete(self, folder: str) -> int:
        """Delete every file of a photo; how many there were.

        The original goes first: a copy that is being made is listed after it, or its maker misses the original.
        """
        originals = [key for key in self._store.list(folder) if key.startswith(f"{folder}/{_ORIGINAL}.")]
        for key in originals:
            self._store.delete(key)
        copies = list(self._store.list(folder))
        for key in copies:
            self._store.delete(key)
        return len(originals) + len(copies)

    def delete_imported(self, keys: Iterable[str]) -> int:
        """Delete files that were imported and are no photo of moderation yet; how many keys there were."""
        deleted = 0
        for key in keys:
            self._store.delete(key)
            deleted += 1
        return deleted
