"""Find the photo of a returned item, also while it is moved, and show it in a size."""

from __future__ import annotations

from shoplens.batch.entities import BatchItem, ItemState
from shoplens.db import Database
from shoplens.errors import BlobNotFound, ImageNotKept, SampleError
from shoplens.predictions.image_store import ImageFile, ImageSize, ImageStore


class ItemPhotos:
    """Blocks. May be called from many threads."""

    def __init__(self, database: Database, shelf: ImageStore) -> None:
        self._database = database
        self._shelf = shelf

    def __call__(self, item_id: str, size: ImageSize) -> ImageFile:
        """The photo; of a duplicate, that of the item it repeats. Raises ItemNotFound and ImageNotKept."""
        item = self._item(item_id)
        if item.duplicate_of is not None:
            item = self._item(item.duplicate_of)
        if size is not ImageSize.ORIGINAL and (item.thumbnail_key is not None or _never_read(item)):
            return self._saved(item)
        # It may have been moved since the row was read, so a fresh row is asked once more.
        return self._somewhere(item, size) or self._somewhere(self._item(item.id), size) or _refuse(item)

    def _somewhere(self, item: BatchItem, size: ImageSize) -> ImageFile | None:
        for key in (item.key, item.target_key):
            if key is None:
                continue
            try:
                return self._shelf.open(key, item.sha256, size)
            except BlobNotFound:
                continue
            except SampleError as error:
                raise ImageNotKept(f"The photo of the item {item.id} cannot be shown: {error}") from error
        return None

    def _saved(self, item: BatchItem) -> ImageFile:
        """No decoder read it in the night, so none is tried again for everybody who looks."""
        if item.thumbnail_key is None:
            raise ImageNotKept(f"Of the photo of the item {item.id} there is nothing that could be shown.")
        try:
            return self._shelf.open(item.thumbnail_key, item.sha256, ImageSize.ORIGINAL)
        except BlobNotFound:
            return _refuse(item)

    def _item(self, item_id: str) -> BatchItem:
        with self._database.read_uow() as work:
            return work.batch_items.get(item_id)


def _never_read(item: BatchItem) -> bool:
    """Set aside, perhaps named by a person since: no run has seen what is on the photo."""
    return item.state is ItemState.QUARANTINED or (item.state is ItemState.DONE and item.prediction_id is None)


def _refuse(item: BatchItem) -> ImageFile:
    raise ImageNotKept(f"The photo of the item {item.id} is not in the store any more.")
