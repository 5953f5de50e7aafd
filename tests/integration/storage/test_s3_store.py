"""Blobs in a real S3: the contract, and what is particular to a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import obstore
import pytest

from servers.seaweed import S3Place
from shoplens.errors import BlobNotFound, StorageUnavailable
from shoplens.storage import Store, open_store
from shoplens.storage.objects import BucketStore
from shoplens.testing.store_contract import KEY, OTHER, StoreContract
from tests.integration.s3_bucket import s3_bucket
from tests.integration.storage.raw_s3 import put_raw, unfinished_uploads


@pytest.fixture
def store(s3: S3Place) -> Store:
    """Below a prefix of its own."""
    return open_store(s3.url, options=s3.options)


class TestS3Store(StoreContract):
    """A bucket."""


def test_the_variables_of_the_environment_are_enough(s3: S3Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same that every client of S3 reads."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    store = open_store(s3.url)
    store.put(KEY, b"photo")
    assert b"photo" == store.get(KEY)


def test_objects_of_others_are_not_listed(s3: S3Place, store: Store) -> None:
    """Their names are not keys."""
    keys = [f"images/{number}.jpg" for number in range(3)]
    for key in keys:
        store.put(key, b"photo")
    for name in ("images/a b.jpg", "images/é.jpg", "images/.hidden"):
        put_raw(s3, name, b"photo of another")
    assert keys == sorted(store.list("images")) == sorted(store.list(""))
    assert [] == list(store.list("image"))


def test_the_bytes_of_all_objects_are_listed(store: Store) -> None:
    """For the size of the store on the page Monitoring."""
    store.put("images/a.jpg", b"x" * 70)
    store.put("images/b/c.jpg", b"x" * 5)
    assert isinstance(store, BucketStore)
    assert [5, 70] == sorted(store.sizes())


def test_a_name_that_cannot_be_expressed_fails_the_listing(s3: S3Place, store: Store) -> None:
    """The sentence says what to do about it."""
    put_raw(s3, "images/new\nline.jpg", b"photo of another")
    with pytest.raises(StorageUnavailable, match="Rename or remove that object"):
        list(store.list("images"))


@pytest.mark.parametrize("name", ["images/a//b.jpg", "images/../b.jpg"])
def test_a_name_with_an_odd_segment_fails_the_listing(name: str) -> None:
    """In a bucket that keeps such names, as S3 does; SeaweedFS stores `a//b` as `a/b`."""
    with s3_bucket({name: b"photo of another"}) as options:
        store = open_store("s3://shop", options=options)
        with pytest.raises(StorageUnavailable, match="Rename or remove that object"):
            list(store.list("images"))


def test_an_upload_that_ends_early_leaves_no_parts(s3: S3Place, store: Store) -> None:
    """They would be invisible, and paid for."""
    seen: list[int] = []

    def cut_short() -> Iterator[bytes]:
        yield from (bytes(4_000_000) for _ in range(6))
        seen.append(len(unfinished_uploads(s3, KEY)))
        raise RuntimeError("the source is missing")

    with pytest.raises(RuntimeError, match="the source is missing"):
        store.put_pieces(KEY, cut_short())
    assert ([1], []) == (seen, unfinished_uploads(s3, KEY))


def test_a_move_that_was_killed_between_copy_and_removal_loses_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The photo is in both places, and the next move ends it."""
    store.put(KEY, b"photo")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(obstore, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            store.move(KEY, OTHER)
    assert (b"photo", b"photo") == (store.get(KEY), store.get(OTHER))
    store.move(KEY, OTHER)
    assert [OTHER] == list(store.list(""))


def test_a_blob_that_changes_while_it_is_read_is_not_mixed(store: Store) -> None:
    """Its parts are of one version, or there is an error."""
    store.put_pieces(KEY, [bytes(12_000_000)])
    pieces = store.pieces(KEY)
    next(pieces)
    store.put_pieces(KEY, [b"x" * 12_000_001])
    with pytest.raises(StorageUnavailable):
        list(pieces)


def test_two_machines_race_for_a_name(s3: S3Place) -> None:
    """Each with a client of its own."""
    stores = [open_store(s3.url, options=s3.options) for _ in range(6)]
    with ThreadPoolExecutor(6) as threads:
        won = list(threads.map(lambda each: each.put_if(KEY, b"%d" % id(each), seen=None), stores))
    assert 1 == sum(won)
    assert b"%d" % id(stores[won.index(True)]) == stores[0].get(KEY)


def test_the_error_of_a_missing_blob_names_the_store(s3: S3Place, store: Store) -> None:
    """So that somebody who reads the log knows where to look."""
    with pytest.raises(BlobNotFound, match=s3.prefix):
        store.get(KEY)
