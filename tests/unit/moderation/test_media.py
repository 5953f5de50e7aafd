"""Copies of photos, beside deletions."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from shoplens.db import Database
from shoplens.errors import BlobNotFound
from shoplens.images.copies import CopyLimits, CopyQueue
from shoplens.images.picture import Limits
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.moderation.files import PhotoFiles
from shoplens.moderation.media import Format, MediaService, Width
from shoplens.moderation.repository import StoredImage
from shoplens.storage import open_store
from tests.unit.batch.batch_house import MoodyStore
from tests.unit.moderation.photos import photo_id


def test_a_copy_that_is_made_while_its_photo_is_deleted_is_deleted_too(
    database: Database, tmp_path: Path, photo: bytes
) -> None:
    """At its last moment before it is stored: nothing of an erased customer comes back."""
    store = open_store(str(tmp_path / "blobs"))
    folder = PhotoFiles(store).save(photo_id(1), "jpeg", photo)

    def erase(verb: str, key: str) -> None:
        if verb == "put" and key.startswith(folder):
            assert 1 == PhotoFiles(store).delete(folder)

    with SandboxedDecoder(processes=1) as sandbox:
        media = MediaService(
            database,
            MoodyStore(store, erase),
            limits=Limits(),
            sandbox=sandbox,
            copies=CopyQueue(CopyLimits(at_once=1, waiting=1)),
        )
        image = StoredImage(
            folder=folder, format="jpeg", sha256=hashlib.sha256(photo).hexdigest(), width=640, height=480
        )
        with pytest.raises(BlobNotFound):
            media.copy(image, width=Width.W160, kind=Format.JPEG)
    assert [] == list(store.list(folder))
