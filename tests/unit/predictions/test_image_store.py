"""Copies of stored photos are made once, a few at a time, and excess requests are refused at once."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from shoplens.errors import ImageChanged, ImageCorrupt, QueueFull
from shoplens.images.copies import CopyLimits
from shoplens.images.picture import Limits
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.predictions.image_store import ImageSize, ImageStore, view_key
from shoplens.storage import Store, image_key, open_store
from shoplens.testing.hostile import encoded, photo

TIFF = encoded(photo(640, 480), "tiff")
SHA = hashlib.sha256(TIFF).hexdigest()
KEY = image_key(SHA, "tiff")


@pytest.fixture
def sandbox() -> Iterator[SandboxedDecoder]:
    """One process that a test may stop."""
    with SandboxedDecoder(processes=1, wall_s=60) as decoder:
        decoder.warm()
        yield decoder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with one photo, a TIFF."""
    opened = open_store(str(tmp_path / "store"))
    opened.put(KEY, TIFF)
    return opened


@pytest.mark.parametrize(("size", "expected"), [(ImageSize.VIEW, (640, 480)), (ImageSize.THUMBNAIL, (256, 192))])
def test_a_copy_is_made_once_and_then_read(
    size: ImageSize, expected: tuple[int, int], store: Store, sandbox: SandboxedDecoder
) -> None:
    """The second request does not decode: it is answered although the original is now damaged."""
    images = ImageStore(store, limits=Limits(), sandbox=sandbox)
    first = images.open(KEY, SHA, size)
    store.put(KEY, TIFF[:100])
    assert first == images.open(KEY, SHA, size)
    assert expected == Image.open(io.BytesIO(first.data)).size


def test_a_view_obeys_the_rules_of_the_decoder(store: Store, sandbox: SandboxedDecoder) -> None:
    """What cannot be decoded is not shown, and nothing is stored for it."""
    images = ImageStore(store, limits=Limits(), sandbox=sandbox)
    torn = TIFF[:1_000]
    sha256 = hashlib.sha256(torn).hexdigest()
    store.put(image_key(sha256, "tiff"), torn)
    with pytest.raises(ImageCorrupt):
        images.open(image_key(sha256, "tiff"), sha256, ImageSize.VIEW)
    with pytest.raises(Exception, match="view"):
        store.get(view_key(sha256))


@pytest.mark.parametrize("size", ImageSize)
def test_a_photo_whose_content_changed_is_not_shown_in_any_size(
    size: ImageSize, store: Store, sandbox: SandboxedDecoder
) -> None:
    """One bit is enough, and no copy of it is stored under the hash of the right photo."""
    images = ImageStore(store, limits=Limits(), sandbox=sandbox)
    store.delete(KEY)
    store.put(KEY, TIFF[:-1] + bytes([TIFF[-1] ^ 1]))
    with pytest.raises(ImageChanged, match="its content has changed"):
        images.open(KEY, SHA, size)
    assert [KEY] == list(store.list(""))


def test_requests_beyond_the_queue_are_refused_at_once_and_the_others_are_answered(
    store: Store, sandbox: SandboxedDecoder
) -> None:
    """One copy is being made, one request waits, and the third hears when to come again."""
    images = ImageStore(store, limits=Limits(), sandbox=sandbox, copies=CopyLimits(at_once=1, waiting=1, wait_s=30))
    child = sandbox._free.queue[-1]
    assert child is not None
    os.kill(child.pid, signal.SIGSTOP)
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(images.open, KEY, SHA, ImageSize.VIEW) for _ in range(2)]
        while images._copies._waiting < 2 or not sandbox._free.empty():
            time.sleep(0.01)
        started = time.monotonic()
        with pytest.raises(QueueFull) as full:
            images.open(KEY, SHA, ImageSize.VIEW)
        assert time.monotonic() - started < 10  # the others may wait 30
        assert full.value.retry_after_s > 0
        os.kill(child.pid, signal.SIGCONT)
        assert both[0].result() == both[1].result()


def test_a_request_waits_a_bounded_time_for_its_turn(store: Store, sandbox: SandboxedDecoder) -> None:
    """Then it is refused like those that find the queue full."""
    images = ImageStore(store, limits=Limits(), sandbox=sandbox, copies=CopyLimits(at_once=1, waiting=5, wait_s=0.1))
    child = sandbox._free.queue[-1]
    assert child is not None
    os.kill(child.pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(images.open, KEY, SHA, ImageSize.VIEW)
        while not sandbox._free.empty():
            time.sleep(0.01)
        with pytest.raises(QueueFull):
            images.open(KEY, SHA, ImageSize.THUMBNAIL)
        os.kill(child.pid, signal.SIGCONT)
        assert first.result().data
