"""Keep blobs under keys and read folders of objects, wherever a URL says: a directory, memory, S3, Google or Azure."""

from shoplens.storage.blobs import (
    LocalBlobs,
    ObjectBlobs,
    Store,
    image_key,
    open_store,
    require_key,
)
from shoplens.storage.prefix import ForeignObject, ObjectPrefix, open_prefix

__all__ = [
    "ForeignObject",
    "LocalBlobs",
    "ObjectBlobs",
    "ObjectPrefix",
    "Store",
    "image_key",
    "open_prefix",
    "open_store",
    "require_key",
]
