"""What every store promises, as tests: subclass `StoreContract` and give it a fixture `store` that is empty."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from shoplens.errors import BlobNotFound, RequestInvalid
from shoplens.storage import Store

KEY = "images/ab/cd/abcd.jpg"


class StoreContract:
    """The same sentences for every implementation. `store` is empty at the start of each."""

    def test_a_blob_comes_back_as_it_was_put(self, store: Store) -> None:
        """Any bytes, empty ones too."""
        blobs = {"images/a.bin": bytes(range(256)) * 5000, "images/b": b"", "c.txt": b"\r\n\0"}
        for key, data in blobs.items():
            store.put(key, data)
        assert blobs == {key: store.get(key) for key in blobs}

    def test_a_missing_blob_is_told_with_its_key(self, store: Store) -> None:
        """As an error of its own kind."""
        with pytest.raises(BlobNotFound, match=r"abcd\.jpg"):
            store.get(KEY)

    def test_existence_follows_putting_and_deleting(self, store: Store) -> None:
        """Deleting what is not there is harmless."""
        seen = [store.exists(KEY)]
        store.put(KEY, b"photo")
        seen.append(store.exists(KEY))
        store.delete(KEY)
        store.delete(KEY)
        seen.append(store.exists(KEY))
        assert [False, True, False] == seen

    def test_a_folder_is_not_a_blob(self, store: Store) -> None:
        """Although a blob lies below it."""
        store.put(KEY, b"photo")
        assert not store.exists("images/ab")
        with pytest.raises(BlobNotFound):
            store.get("images/ab")

    def test_putting_again_is_harmless(self, store: Store) -> None:
        """Same key, same bytes, same outcome."""
        for _ in range(3):
            store.put(KEY, b"photo")
        assert (b"photo", [KEY]) == (store.get(KEY), list(store.list("")))

    def test_a_blob_of_another_size_is_replaced(self, store: Store) -> None:
        """So a blob that a loss of power cut short is healed by the next upload of the same photo."""
        store.put(KEY, b"")
        store.put(KEY, b"photo")
        assert b"photo" == store.get(KEY)

    def test_a_list_holds_what_lies_below_the_folder(self, store: Store) -> None:
        """By whole segments, at any depth, whether or not the folder ends with a slash."""
        keys = {"images/ab/1.jpg", "images/ab/cd/2.jpg", "images/abc/3.jpg", "other/4.jpg"}
        for key in keys:
            store.put(key, b"x")
        assert {"images/ab/1.jpg", "images/ab/cd/2.jpg"} == set(store.list("images/ab"))
        assert keys - {"other/4.jpg"} == set(store.list("images/"))
        assert keys == set(store.list(""))

    def test_a_list_of_nothing_is_empty(self, store: Store) -> None:
        """A folder that was never made is no error."""
        assert [] == list(store.list("images"))

    def test_a_check_passes_and_leaves_no_image(self, store: Store) -> None:
        """However often it is asked."""
        store.check()
        store.check()
        assert [] == list(store.list("images"))

    @pytest.mark.parametrize(
        "key",
        ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "a/.hidden", ".staging/x", "a\\b", "a b", "a\n", "a#1", "é",
         "a/..", "a" * 600, "a\0b", "C:/x"],
    )  # fmt: skip
    def test_a_key_that_is_no_plain_path_is_refused(self, store: Store, key: str) -> None:
        """By every verb that takes a key, before anything is touched."""
        for verb in (store.get, store.exists, store.delete, lambda key: store.put(key, b"x")):
            with pytest.raises(RequestInvalid, match="is no key"):
                verb(key)

    def test_many_threads_put_and_get_at_once(self, store: Store) -> None:
        """Also the same key: whoever reads gets a whole blob."""
        data = bytes(100_000)

        def work(number: int) -> bool:
            own = f"images/{number % 7}.jpg"
            store.put(own, data)
            return store.get(own) == data

        with ThreadPoolExecutor(8) as threads:
            assert {True} == set(threads.map(work, range(60)))
